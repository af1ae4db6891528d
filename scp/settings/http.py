"""`[http]`."""

import ipaddress
from pathlib import Path

from pydantic import Field, field_validator

from index import AccessSettings, Host
from scp.settings.tls import CertificateSettings
from scp.settings.values import Port, files_are_checked


def is_loopback(host: str) -> bool:
    """Tell whether only this machine reaches an address (RFC 1122 Section 3.2.1.3, RFC 6761 Section 6.3)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class HttpSettings(AccessSettings):
    """`[http]`: the HTTP server, and who may do what over it."""

    enabled: bool = Field(True, description="Whether to listen at all.")
    host: Host = Field(
        "127.0.0.1",
        description="Address to listen on. Others than 127.0.0.1, ::1 and localhost"
        " need tokens, [http.tls] with client certificates, [http.proxy], or trust_network.",
    )
    port: Port = Field(8104, description="Port to listen on; 0 takes a free one.")
    tls: CertificateSettings | None = None

    @field_validator("tokens")
    @classmethod
    def _check_tokens(cls, value: Path | None) -> Path | None:
        if files_are_checked.get() and value is not None:
            from index import check_tokens

            check_tokens(value)
        return value

    def is_open(self) -> bool:
        """Tell whether others than this machine reach it, and nothing says how they are known."""
        asks = self.tls is not None and self.tls.client_certificates == "required"
        known = self.tokens or self.proxy or asks or self.trust_network
        return self.enabled and not is_loopback(self.host) and not known
