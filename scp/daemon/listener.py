"""The DICOM listener: accepts connections, limits their number, and starts an association for each."""

import contextlib
import logging
import os
import selectors
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from threading import Event, Lock
from time import monotonic, sleep

import structlog

from index import Supervisor
from scp.association.admission import Admission
from scp.association.application_entity import application_entity
from scp.association.events import Handler
from scp.association.quota import limit_for_unknown_callers
from scp.daemon.rejection import NOT_ANSWERED, CallerRejecter
from scp.daemon.sockets import listen
from scp.observing.association_info import AssociationInfo
from scp.observing.association_record import AssociationRecord
from scp.observing.metrics import Metrics
from scp.services.retrieve import RetrieveService
from scp.services.store import StoreService
from scp.settings.sections import DicomSettings, LimitsSettings, Peer
from scp.upperlayer.association import ServedAssociation
from scp.upperlayer.context import ListenerContext
from scp.wire.connection import BUFFER_LENGTH
from scp.wire.tls import server_context

# A peer that has vanished is detected after 2 + 4 * 0.5 minutes; the system's default is 2 hours.
KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 120),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)

# When descriptors, memory or threads run out, how long to wait for some, in seconds.
RESOURCE_PAUSE = 0.5

# How often a stopping listener checks whether associations have ended, in seconds.
STOP_INTERVAL = 0.02

# How long a connection without a request may stay when there is no room for another, in seconds. A request
# follows its connection at once, a TLS handshake takes a moment.
REQUEST_PATIENCE = 2.0

# After the drain: how long aborted associations may take to end, in seconds.
ABORT_GRACE = 5.0


class Listener:
    """Listens for association requests. Its public methods may be called from any thread.

    `handlers` are pynetdicom's (event, handler) pairs, `services` the services by the abstract syntaxes that
    the handlers serve. `sockets`, and `tls_sockets` for `dicom.tls`, are listening already; without them the
    addresses of `dicom` are bound. `on_association_end` is called in the association's thread when an
    accepted association has ended. `retrieve` serves C-MOVE and C-GET. Raises ValueError where certificates
    or users cannot be used.
    """

    def __init__(
        self,
        dicom: DicomSettings,
        limits: LimitsSettings,
        peers: Sequence[Peer],
        store: StoreService,
        *,
        handlers: Sequence[Handler] = (),
        services: Mapping[str, str] | None = None,
        on_association_end: Callable[[AssociationInfo], None] | None = None,
        sockets: Sequence[socket.socket] = (),
        tls_sockets: Sequence[socket.socket] = (),
        metrics: Metrics | None = None,
        workers: Supervisor | None = None,
        retrieve: RetrieveService | None = None,
    ) -> None:
        self._limits = limits
        self._services = dict(services or {})
        self._unknown_limit = limit_for_unknown_callers(limits.associations, peers)
        admission = Admission(dicom, peers, self._services, unknown_limit=self._unknown_limit)
        ae = application_entity(dicom)
        ssl_context = server_context(dicom.tls) if dicom.tls else None
        self._metrics = metrics or Metrics()
        self._context = ListenerContext(
            dicom,
            admission,
            store,
            tuple(handlers),
            ae,
            on_association_end,
            self._metrics,
            ssl_context,
            retrieve,
        )
        self._sockets = list(sockets)
        self._tls_sockets = list(tls_sockets)
        self._associations: dict[ServedAssociation, str] = {}
        self._lock = Lock()
        self._full_until = 0.0
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._round = Event()
        self._worker = (workers or Supervisor()).add("dicom-listener", self._run)
        self._log = structlog.get_logger("scp")

    def start(self) -> tuple[str, int]:
        """Listen and accept; return the address bound. Raises OSError where it cannot be bound."""
        _disable_pynetdicom_logging()
        self._bind(self._context.dicom)
        for listening in self._listening():
            listening.setblocking(False)
        self._worker.start()
        host, port = self._listening()[0].getsockname()[:2]
        return host, port

    def tls_address(self) -> tuple[str, int] | None:
        """Return the address for TLS, or None."""
        return self._tls_sockets[0].getsockname()[:2] if self._tls_sockets else None

    def active(self) -> int:
        """Return the number of associations, with those that are being negotiated."""
        with self._lock:
            return len(self._associations)

    def records(self) -> list[AssociationRecord]:
        """Return the records of the associations now, the oldest first."""
        return [association.record for association in self._snapshot()]

    def makes_progress(self, seconds: float) -> bool:
        """Whether the accept loop makes another round within that time, or is stopping."""
        stopping = self._worker.stopping
        if stopping.is_set():
            return True
        self._round.clear()
        self._wake_up()
        return self._round.wait(seconds) or stopping.is_set()

    def reload(
        self, peers: Sequence[Peer], limits: LimitsSettings, dicom: DicomSettings | None = None
    ) -> None:
        """Use other settings for new associations; the addresses stay.

        Raises ValueError; then nothing is changed.
        """
        dicom = dicom or self._context.dicom
        unknown_limit = limit_for_unknown_callers(limits.associations, peers)
        admission = Admission(dicom, peers, self._services, unknown_limit=unknown_limit)
        ssl_context = server_context(dicom.tls) if dicom.tls else None
        if ssl_context is None and self._tls_sockets:
            raise ValueError("dicom.tls: is missing; only a restart can take TLS away")
        self._limits, self._unknown_limit = limits, unknown_limit
        self._context = replace(
            self._context,
            dicom=dicom,
            admission=admission,
            ae=application_entity(dicom),
            ssl_context=ssl_context,
        )

    def stop(self, drain: float) -> None:
        """Accept no more; let operations finish for `drain` seconds, then abort the associations left."""
        self._worker.stopping.set()
        self._wake_up()
        self._worker.stop()
        for listening in self._listening():
            listening.close()
        self._end_all(lambda association: association.stop_when_idle(), drain)
        self._end_all(lambda association: association.interrupt(), ABORT_GRACE)
        with self._lock:
            os.close(self._wake)
            self._wake = -1

    def _bind(self, dicom: DicomSettings) -> None:
        """Bind the addresses for which no socket was passed."""
        tls = dicom.tls
        if tls and not self._tls_sockets:
            self._tls_sockets.append(listen(tls.host or dicom.host, tls.port, "dicom.tls."))
        try:
            if not self._sockets and (tls is None or tls.plain):
                self._sockets.append(listen(dicom.host, dicom.port, "dicom."))
        except OSError:
            for listening in self._tls_sockets:
                listening.close()
            raise

    def _listening(self) -> list[socket.socket]:
        return [*self._sockets, *self._tls_sockets]

    def _wake_up(self) -> None:
        """Wake the accept loop."""
        with self._lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def _end_all(self, how: Callable[[ServedAssociation], None], seconds: float) -> None:
        deadline = monotonic() + seconds
        while associations := self._snapshot():
            for association in associations:
                how(association)
            if monotonic() >= deadline:
                return
            associations[0].join(STOP_INTERVAL)

    def _snapshot(self) -> list[ServedAssociation]:
        with self._lock:
            return list(self._associations)

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            rejecter = CallerRejecter(selector, self._metrics, self._serve_peer)
            selector.register(self._wake, selectors.EVENT_READ)
            for listening in self._listening():
                selector.register(listening, selectors.EVENT_READ)
            try:
                while not self._worker.stopping.is_set():
                    with self._worker.waiting():
                        ready = selector.select(rejecter.timeout())
                    for key, _ in ready:
                        self._handle(key, rejecter)
                    rejecter.expire()
                    self._round.set()
            finally:
                rejecter.close()

    def _handle(self, key: selectors.SelectorKey, rejecter: CallerRejecter) -> None:
        if key.data is not None:
            rejecter.serve(key.data)
        elif isinstance(key.fileobj, socket.socket):
            self._accept(key.fileobj, rejecter)
        else:
            os.eventfd_read(self._wake)

    def _accept(self, listening: socket.socket, rejecter: CallerRejecter) -> None:
        try:
            connection, _ = listening.accept()
        except (BlockingIOError, ConnectionError):
            return  # the caller has closed it
        except OSError as error:
            self._log.error("accept_failed", error=str(error))
            sleep(RESOURCE_PAUSE)
            return
        with self._closing_on_failure(connection):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for level, option, value in KEEP_ALIVE:
                connection.setsockopt(level, option, value)
            address = connection.getpeername()[0]
            secure = listening in self._tls_sockets
            if self._has_room(address, as_unknown=True):
                self._serve(connection, address, secure=secure)
            elif not secure:
                rejecter.take(connection, address)
            # The AE title of a TLS caller is known only after the handshake, which needs an association.
            elif self._has_room(address) or self._make_room(address):
                self._serve(connection, address, secure=True)
            else:
                self._log.warning("association_refused", address=address, why="limit of associations")
                self._metrics.association_refused(NOT_ANSWERED, address=address)
                connection.close()

    @contextlib.contextmanager
    def _closing_on_failure(self, connection: socket.socket) -> Iterator[None]:
        """Close a connection that cannot be served: it must not end the listener."""
        try:
            yield
        except ConnectionError:
            connection.close()  # the caller has closed it
        except Exception as error:  # noqa: BLE001
            self._log.error("connection_not_served", error=f"{type(error).__name__}: {error}")
            connection.close()

    def _has_room(self, address: str, *, as_unknown: bool = False) -> bool:
        """Whether one more association may begin.

        `as_unknown`: for a caller that is not, or not yet, known to be one of [[peers]].
        """
        with self._lock:
            most = self._limits.associations_per_address
            if most and list(self._associations.values()).count(address) >= most:
                return False
            if as_unknown and sum(not one.is_known for one in self._associations) >= self._unknown_limit:
                return False
            return len(self._associations) < self._limits.associations and monotonic() >= self._full_until

    def _make_room(self, address: str) -> bool:
        """End the association that has waited longest for its request; return whether there is room now."""
        with self._lock:
            idle = max(self._associations, key=lambda one: one.seconds_without_request, default=None)
            if idle is None or idle.seconds_without_request <= REQUEST_PATIENCE:
                return False
            self._associations.pop(idle)
        if not idle.record.is_ending:
            self._log.warning("association_refused", address=idle.record.address, why="silent for too long")
            self._metrics.association_refused(NOT_ANSWERED, address=idle.record.address)
        idle.interrupt()
        return self._has_room(address)

    def _serve_peer(self, connection: socket.socket, address: str, calling_aet: str, received: bytes) -> bool:
        """Serve a caller beyond the limit where it is one of [[peers]] and there is room; return whether."""
        is_peer = self._context.admission.may_be_peer(calling_aet, address)
        if not is_peer or len(received) > BUFFER_LENGTH:
            return False
        if not (self._has_room(address) or self._make_room(address)):
            return False
        with self._closing_on_failure(connection):
            self._serve(connection, address, received=received)
        return True

    def _serve(
        self, connection: socket.socket, address: str, *, secure: bool = False, received: bytes = b""
    ) -> None:
        context = self._context if secure else replace(self._context, ssl_context=None)
        association = ServedAssociation(context, connection, self._forget, received)
        with self._lock:
            self._associations[association] = address
        try:
            association.start()
        except RuntimeError as error:  # no more threads; for a while callers are rejected
            self._log.error("association_not_started", error=str(error))
            self._full_until = monotonic() + RESOURCE_PAUSE
            self._forget(association)
            association.close_connection()

    def _forget(self, association: ServedAssociation) -> None:
        with self._lock:
            self._associations.pop(association, None)


def _disable_pynetdicom_logging() -> None:
    """Disable pynetdicom's logging: we log the same by structlog, with the association's id."""
    logger = logging.getLogger("pynetdicom")
    logger.setLevel(logging.CRITICAL + 1)
    logger.propagate = False
    with contextlib.suppress(ValueError):
        logger.addHandler(logging.NullHandler())
