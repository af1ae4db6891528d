"""Checks of certificates, keys and authorities in files."""

import re
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

# How long before its end there is a warning of a certificate.
EXPIRY_NOTICE = timedelta(days=30)

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# ASN.1 tags in DER (X.690).
_SEQUENCE = 0x30
_VERSION = 0xA0  # [0] EXPLICIT
_UTC_TIME = 0x17
_LONG_FORM = 0x80

# RFC 5280 Section 4.1.2.5.1: two-digit years from 50 on are of the last century; for strptime from 69 on. No
# certificate that is valid now differs by that.
_FORMATS = {_UTC_TIME: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}


def validity(pem: str) -> tuple[datetime, datetime]:
    """Return when the validity of the first certificate of `pem` begins and ends (RFC 5280 Section 4.1.2.5).

    Raises ValueError.
    """
    match = _PEM.search(pem)
    if not match:
        raise ValueError("holds no certificate in PEM")
    try:
        der = ssl.PEM_cert_to_DER_cert(match[0])
        certificate = _children(_content(der, _SEQUENCE))
        fields = _children(certificate[0][1])
        # tbsCertificate: version (may be missing), serial number, signature, issuer, validity.
        at = 4 if fields[0][0] == _VERSION else 3
        first, last = (
            datetime.strptime(value.decode("ascii"), _FORMATS[tag]).replace(tzinfo=UTC)
            for tag, value in _children(fields[at][1])
        )
    except (ValueError, IndexError, KeyError) as error:
        raise ValueError("holds a certificate that is not as in RFC 5280") from error
    return first, last


def _content(data: bytes, tag: int) -> bytes:
    (found, content), *_ = _children(data)
    if found != tag:
        raise ValueError("not the type expected")
    return content


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Return the tags and contents of the values in `data`."""
    values, at = [], 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length >= _LONG_FORM:
            size = length - _LONG_FORM
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        values.append((tag, data[at : at + length]))
        at += length
    return values


def check_certificate(file: Path) -> None:
    """Raise ValueError where a file holds no certificate that is valid now."""
    first, last = validity(_text(file))
    now = datetime.now(UTC)
    if now < first:
        raise ValueError(f"{file}: is valid only from {first:%Y-%m-%d %H:%M} UTC on")
    if now > last:
        raise ValueError(f"{file}: has expired on {last:%Y-%m-%d %H:%M} UTC")


def check_key(file: Path, certificate: Path, password: str) -> None:
    """Raise ValueError where a file does not hold the private key of a certificate, which is valid."""
    _text(file)
    try:
        # Without a password OpenSSL would ask for one at the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, file, lambda: password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"{file}: does not belong to the certificate in {certificate}") from error
        raise ValueError(f"{file}: holds no private key in PEM that key_password opens") from error


def check_authorities(file: Path) -> None:
    """Raise ValueError where a file holds no certificates."""
    validity(_text(file))
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(file)
    except ssl.SSLError as error:
        raise ValueError(f"{file}: holds a certificate that cannot be read") from error


def expiry_notice(file: Path) -> str | None:
    """Return a sentence where a certificate will expire soon, else None."""
    last = validity(_text(file))[1]
    return f"{file}: expires on {last:%Y-%m-%d}" if last - datetime.now(UTC) < EXPIRY_NOTICE else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{file}: cannot be read: {error.strerror}") from error
