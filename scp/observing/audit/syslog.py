"""Syslog messages and how they travel: by UDP, TCP, TLS, or a socket of this machine.

RFC 5424 (the message), RFC 5426 (UDP), RFC 6587 Section 3.4.1 (TCP, octet counting), RFC 5425 (TLS); the
header by PS3.15 Sections A.6 and A.7.
"""

import contextlib
import os
import re
import socket
import ssl
from datetime import UTC, datetime

from scp.settings.audit import AuditSettings, SyslogAddress

APP_NAME = "imagingstudyd"
MSGID = "DICOM+RFC3881"
"""PS3.15 Section A.6."""

# PS3.15 Section A.6: facility 10 (security/authorization), severity 5 (notice) or 4 (warning).
_FACILITY, _NOTICE, _WARNING = 10, 5, 4
_BOM = b"\xef\xbb\xbf"
# RFC 5424 Section 6: PRINTUSASCII, at most 255 characters of a host's name.
_UNPRINTABLE = re.compile(r"[^\x21-\x7e]")
_LONGEST_HOST = 255
_NONE = "-"
# For a connection and for one message to be taken, in seconds.
_SECONDS = 10.0
# Of one datagram, in bytes (RFC 768; IPv4).
_LONGEST_DATAGRAM = 65_507


class TooLong(Exception):
    """A message that this transport cannot carry."""


def syslog_message(content: bytes, at: int, *, is_failure: bool) -> bytes:
    """Return an RFC 5424 message; `at` in ms since 1970."""
    priority = _FACILITY * 8 + (_WARNING if is_failure else _NOTICE)
    moment = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    host = _UNPRINTABLE.sub("", socket.gethostname())[:_LONGEST_HOST] or _NONE
    header = f"<{priority}>1 {moment.replace('+00:00', 'Z')} {host} {APP_NAME} {os.getpid()} {MSGID} - "
    return header.encode() + _BOM + content


class Syslog:
    """A way to a syslog server. Used by one thread. Raises OSError where it cannot be reached."""

    def __init__(self, settings: AuditSettings, address: SyslogAddress) -> None:
        self._settings = settings
        self._address = address
        self._socket: socket.socket | None = None

    def send(self, message: bytes) -> None:
        """Send a message, over a new connection where there is none. Raises OSError, TooLong."""
        transport = self._address.transport
        if transport in ("udp", "unix") and len(message) > _LONGEST_DATAGRAM:
            raise TooLong(f"{len(message)} bytes: a datagram has at most {_LONGEST_DATAGRAM}")
        if self._socket is not None and self._is_closed(self._socket):
            self.close()
        if self._socket is None:
            self._socket = self._connect()
        try:
            if transport in ("udp", "unix"):
                self._socket.send(message)
            else:
                self._socket.sendall(b"%d " % len(message) + message)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _is_closed(self, connected: socket.socket) -> bool:
        """Whether the server has closed: a message written after that would be lost without an error."""
        if self._address.transport in ("udp", "unix"):
            return False
        connected.setblocking(False)
        try:
            # A syslog server sends nothing.
            return connected.recv(1) == b""
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            connected.settimeout(_SECONDS)

    def _connect(self) -> socket.socket:
        transport, host, port, path = self._address
        if transport == "unix":
            made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with _closed_on_failure(made):
                made.settimeout(_SECONDS)
                made.connect(path)
            return made
        if transport == "udp":
            ((family, kind, _, _, address), *_) = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
            made = socket.socket(family, kind)
            with _closed_on_failure(made):
                made.connect(address)
            return made
        made = socket.create_connection((host, port), _SECONDS)
        if transport == "tcp":
            return made
        with _closed_on_failure(made):
            return self._tls().wrap_socket(made, server_hostname=host)

    def _tls(self) -> ssl.SSLContext:
        """Return how the server is checked (RFC 5425 Section 4.2.1)."""
        ca, certificate = self._settings.ca, self._settings.certificate
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate:
            context.load_cert_chain(certificate)
        return context


@contextlib.contextmanager
def _closed_on_failure(made: socket.socket):  # type: ignore[no-untyped-def]  # noqa: ANN202  a context manager
    try:
        yield
    except BaseException:
        made.close()
        raise
