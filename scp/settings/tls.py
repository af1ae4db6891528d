"""`[dicom.tls]` and `[http.tls]`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from index import Host, Section
from scp.settings.certificates import check_authorities, check_certificate, check_key
from scp.settings.values import Port, files_are_checked


class CertificateSettings(Section):
    """Our certificate, and those that callers need. TLS 1.2 and 1.3."""

    certificate: Path = Field(description="Our certificate, and those between it and its root, in PEM.")
    key_password: SecretStr | None = Field(
        None, description="The password of the key. Better given as a credential."
    )
    key: Path = Field(description="The certificate's private key, in PEM.")
    ca: Path | None = Field(None, description="The authorities that sign callers' certificates, in PEM.")
    client_certificates: Literal["none", "optional", "required"] = Field(
        "none", description="Whether callers send a certificate; one that is sent must be signed by ca."
    )
    minimum_version: Literal["1.2", "1.3"] = Field("1.2", description="The oldest TLS that is accepted.")

    @field_validator("certificate")
    @classmethod
    def _check_certificate(cls, value: Path) -> Path:
        if files_are_checked.get():
            check_certificate(value)
        return value

    @field_validator("key")
    @classmethod
    def _check_key(cls, value: Path, info: ValidationInfo) -> Path:
        # Without a valid certificate, which is a fault by itself, the key cannot be checked.
        if files_are_checked.get() and (certificate := info.data.get("certificate")):
            password = info.data.get("key_password")
            check_key(value, certificate, password.get_secret_value() if password else "")
        return value

    @field_validator("ca")
    @classmethod
    def _check_authorities(cls, value: Path | None) -> Path | None:
        if files_are_checked.get() and value is not None:
            check_authorities(value)
        return value

    @field_validator("client_certificates")
    @classmethod
    def _needs_authorities(cls, value: str, info: ValidationInfo) -> str:
        if value != "none" and info.data.get("ca", ...) is None:
            raise ValueError("needs ca, the file of the authorities that sign callers' certificates")
        return value


class TlsSettings(CertificateSettings):
    """`[dicom.tls]`: DICOM over TLS 1.2 and 1.3 by the BCP 195 profile of PS3.15 Annex B."""

    host: Host | None = Field(None, description="Address to listen on. Default: that of [dicom].")
    port: Port = Field(2762, description="Port for TLS (PS3.15 Annex B); 0 takes a free one.")
    plain: bool = Field(True, description="Whether the port of [dicom], without TLS, stays open too.")
