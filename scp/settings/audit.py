"""`[audit]`: audit messages by syslog."""

import re
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from index import Section
from scp.settings.certificates import check_authorities
from scp.settings.values import files_are_checked

PORTS = {"udp": 514, "tcp": 601, "tls": 6514}
"""Where syslog listens (RFC 5426 Section 3.3, RFC 6587 Section 3.3, RFC 5425 Section 4.1)."""

_HOST = re.compile(r"[A-Za-z0-9._:-]+")


class SyslogAddress(NamedTuple):
    """Where audit messages go. `path`: of a socket of this machine, where `transport` is unix."""

    transport: str
    host: str = ""
    port: int = 0
    path: str = ""


def syslog_address(text: str) -> SyslogAddress:
    """Return what an address means. Raises ValueError."""
    if text.startswith("/"):
        return SyslogAddress("unix", path=text)
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise ValueError(f"is no address: {error}") from error
    is_plain = parts.path in ("", "/") and not (parts.query or parts.fragment or parts.username)
    if parts.scheme not in PORTS or not _HOST.fullmatch(host) or not is_plain or port == 0:
        raise ValueError("allowed are udp://host:514, tcp://host:601, tls://host:6514, and a socket's path")
    return SyslogAddress(parts.scheme, host, port or PORTS[parts.scheme])


def _check_address(value: str) -> str:
    syslog_address(value)
    return value


class AuditSettings(Section):
    """`[audit]`: audit messages as DICOM has them (PS3.15 Section A.5), by syslog (RFC 5424)."""

    syslog: Annotated[str, AfterValidator(_check_address)] | None = Field(
        None,
        description="Where audit messages go: tls://host:6514, tcp://host:601, udp://host:514, or the path of"
        " a socket, as /dev/log. They name patients and who had which study. None: there are none.",
    )
    ca: Path | None = Field(
        None, description="With tls: the authorities that sign its certificate, in PEM. None: the system's."
    )
    certificate: Path | None = Field(
        None, description="With tls: our certificate with its key, in PEM, where one is wanted."
    )
    source_id: Annotated[str, Field(pattern=r"^[\x21-\x7e]{0,64}$")] = Field(
        "", description="AuditSourceID. Empty: our AE title."
    )
    site_id: Annotated[str, Field(pattern=r"^[\x20-\x7e]{0,64}$")] = Field(
        "", description="AuditEnterpriseSiteID, as the name of the hospital."
    )

    @field_validator("ca", "certificate")
    @classmethod
    def _needs_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is None:
            return None
        if not (info.data.get("syslog") or "").startswith("tls:"):
            raise ValueError("needs syslog = tls://...")
        if files_are_checked.get() and info.field_name == "ca":
            check_authorities(value)
        if files_are_checked.get() and not value.is_file():
            raise ValueError(f"{value}: no such file")
        return value

    @property
    def address(self) -> SyslogAddress | None:
        """Where they go; None: there are none."""
        return syslog_address(self.syslog) if self.syslog else None
