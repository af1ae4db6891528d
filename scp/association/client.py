"""Associations that we request: with upstream worklists, and to report on storage commitments.

Objects are sent over those of store_association.py.
"""

import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from scp.association.application_entity import application_entity
from scp.settings.sections import Configuration, Peer
from scp.wire.tls import client_context, describe_tls_error

# How long a peer may take to accept the connection, in seconds.
CONNECT_SECONDS = 10.0
# How long a peer may take for one response, in seconds.
RESPONSE_SECONDS = 60.0


class Unreachable(OSError):
    """Raised when there is no association with a peer; the text says why."""


@contextmanager
def request_association(
    configuration: Configuration,
    aet: str,
    sop_class: str,
    roles: Sequence[SCP_SCU_RoleSelectionNegotiation] = (),
) -> Iterator[Association]:
    """Yield an association with the peer of an AE title, for one SOP Class; release it at the end.

    Raises Unreachable.
    """
    peer, host, port = address_of(configuration, aet)
    tls, failures = tls_context(configuration, peer), list[OSError]()
    if tls is not None:
        tls.sslsocket_class = _noting(failures)
    ae = application_entity(configuration.dicom)
    ae.connection_timeout = CONNECT_SECONDS
    ae.dimse_timeout = RESPONSE_SECONDS
    ae.add_requested_context(sop_class)
    association = ae.associate(
        host,
        port,
        ae_title=peer.aet,
        ext_neg=list(roles),
        evt_handlers=[(evt.EVT_CONN_OPEN, _disable_nagle)],
        tls_args=(tls, None) if tls else None,  # type: ignore[arg-type]
    )
    if not association.is_established:
        why = f"TLS: {describe_tls_error(failures[0])}" if failures else _why(association, sop_class)
        raise Unreachable(f"peer {peer.aet}: {why}")
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def address_of(configuration: Configuration, aet: str) -> tuple[Peer, str, int]:
    """Return the peer of an AE title, its host and port. Raises Unreachable."""
    peer = configuration.find_peer(aet)
    if peer is None:
        raise Unreachable(f"peer {aet}: not in [[peers]]")
    if peer.host is None or peer.port is None:
        raise Unreachable(f"peer {peer.aet}: [[peers]] gives no host and port")
    return peer, peer.host, peer.port


def tls_context(configuration: Configuration, peer: Peer) -> ssl.SSLContext | None:
    """Return the TLS context for an association with a peer; None without TLS. Raises Unreachable."""
    if not peer.tls:
        return None
    if configuration.dicom.tls is None:
        raise Unreachable(f"peer {peer.aet}: TLS: [dicom.tls] is needed")
    try:
        return client_context(configuration.dicom.tls)
    except ValueError as error:
        raise Unreachable(f"peer {peer.aet}: TLS: {error}") from error


def _noting(failures: list[OSError]) -> type[ssl.SSLSocket]:
    """Return a class of sockets that note why a handshake fails: pynetdicom does not tell."""

    class NotingSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002  as in ssl
            try:
                super().do_handshake(block)
            except OSError as error:
                failures.append(error)
                raise

    return NotingSocket


def _why(association: Association, sop_class: str) -> str:
    if association.is_rejected:
        return "rejects the association"
    if association.acceptor.primitive is None:
        return "cannot be reached"
    # pynetdicom aborts an association that has no context.
    return "aborts the association" if association.accepted_contexts else f"does not offer {sop_class}"


def interrupt(association: Association) -> None:
    """Let the thread that waits for a response go on without one, and abort. Called from any thread."""
    association.dimse.msg_queue.put((None, None))


def _disable_nagle(event: Event) -> None:
    """Send small messages at once; with Nagle's algorithm each may wait 40 ms for an acknowledgement."""
    connection = event.assoc.dul.socket
    if connection is not None and connection.socket is not None:
        connection.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
