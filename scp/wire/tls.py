"""TLS for DICOM by the BCP 195 profile of PS3.15 Annex B. A reload makes a new ssl.SSLContext."""

import ssl
from collections.abc import Mapping
from typing import Any

from scp.settings.certificates import check_authorities, check_certificate, check_key
from scp.settings.tls import CertificateSettings, TlsSettings

# Forward secrecy and authenticated encryption, as RFC 9325 Section 4.2 recommends for TLS 1.2 and the BCP 195
# profiles of PS3.15 require. TLS 1.3 has only such suites.
CIPHERS = (
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
)

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def server_context(settings: CertificateSettings) -> ssl.SSLContext:
    """Return the context of a TLS server. Raises ValueError that names the faulty file."""
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
    # Tickets are sent after the handshake: unread ones would reset the connection when the sender closes it.
    made.num_tickets = 0
    made.verify_mode = _VERIFY[settings.client_certificates]
    return made


def client_context(settings: TlsSettings) -> ssl.SSLContext:
    """Return the context of a TLS client, with the certificates of [dicom.tls]. Raises ValueError.

    The peer's certificate must be signed by `ca`. Its name is not compared with the host's: certificates of
    modalities and archives seldom have one, and PS3.15 Annex B does not ask for it.
    """
    if settings.ca is None:
        raise ValueError("dicom.tls.ca: is needed for peers with tls = true")
    password = settings.key_password.get_secret_value() if settings.key_password else ""
    check_certificate(settings.certificate)
    check_key(settings.key, settings.certificate, password)
    check_authorities(settings.ca)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.load_verify_locations(settings.ca)
    made.load_cert_chain(settings.certificate, settings.key, lambda: password)
    made.minimum_version = _VERSIONS[settings.minimum_version]
    made.set_ciphers(":".join(CIPHERS))
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    return made


def certificate_subject(certificate: Mapping[str, Any] | None) -> str | None:
    """Return the subject of a certificate of `SSLSocket.getpeercert` in one line; None without one."""
    if not certificate:
        return None
    return ", ".join(f"{name}={value}" for rdn in certificate.get("subject", ()) for name, value in rdn)


def describe_tls_error(error: OSError) -> str:
    """Return why a handshake failed, in few words."""
    return str(getattr(error, "verify_message", "") or getattr(error, "reason", "") or error)
