"""TLS for DICOM: the BCP 195 profile of PS3.15 Annex B, as an ssl.SSLContext that is made anew on reload."""

import ssl
from collections.abc import Mapping
from typing import Any

from scp.settings.certificates import check_authorities, check_certificate, check_key
from scp.settings.tls import TlsSettings

# What RFC 9325 Section 4.2 recommends for TLS 1.2, and PS3.15's BCP 195 profiles require at the least:
# forward secrecy and authenticated encryption, nothing else. TLS 1.3 has only such suites.
CIPHERS = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def server_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return the context for our side of TLS. Raises ValueError that names the file at fault."""
    password = settings.key_password.get_secret_value() if settings.key_password else ""
    check_certificate(settings.certificate)
    check_key(settings.key, settings.certificate, password)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(settings.certificate, settings.key, lambda: password)
    if settings.ca:
        check_authorities(settings.ca)
        made.load_verify_locations(settings.ca)
    made.minimum_version = _VERSIONS[settings.minimum_version]
    made.set_ciphers(":".join(CIPHERS))
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION | ssl.OP_CIPHER_SERVER_PREFERENCE
    # Tickets are sent after the handshake: a sender that never reads them would be cut off as it closes.
    made.num_tickets = 0
    made.verify_mode = _VERIFY[settings.client_certificates]
    return made


def subject(certificate: Mapping[str, Any] | None) -> str | None:
    """Return in one line the subject of what `SSLSocket.getpeercert` returned; None where there is none."""
    if not certificate:
        return None
    return ", ".join(f"{name}={value}" for rdn in certificate.get("subject", ()) for name, value in rdn)


def describe(error: OSError) -> str:
    """Return what went wrong in a handshake, in few words."""
    return str(getattr(error, "verify_message", "") or getattr(error, "reason", "") or error)
