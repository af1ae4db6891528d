"""An association that a peer requested, served by one thread that sleeps until there is work."""

import socket
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic, perf_counter

from pydicom.uid import UID
from pynetdicom import _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_GET, C_MOVE
from pynetdicom.events import Event
from pynetdicom.transport import AddressInformation

from scp.association.admission import plain_address
from scp.observing.association_record import AssociationRecord
from scp.observing.audit import events
from scp.upperlayer.context import ListenerContext
from scp.upperlayer.dimse import DimseProvider
from scp.upperlayer.dispatch import Dispatcher
from scp.upperlayer.dul import ConnectionSocket, UpperLayer
from scp.upperlayer.message_assembler import Operation
from scp.upperlayer.negotiation import Negotiation
from scp.upperlayer.requester import Requester
from scp.wire.command_set import Command
from scp.wire.connection import Closed, Connection, DeadlineExceeded, Interrupted
from scp.wire.status import SUCCESS
from scp.wire.tls import certificate_subject

# How long a peer may take to close after release, rejection or abort, in seconds (ARTIM, PS3.8 9.1.5).
CLOSE_SECONDS = 2.0
# The same while the daemon stops.
STOPPING_CLOSE_SECONDS = 0.5

Work = Callable[["ServedAssociation"], None]

# pynetdicom's descriptions of each PDU and message would take longer than to receive them.
_config.LOG_HANDLER_LEVEL = "none"


class ServedAssociation(Association):
    """An association that a peer requested on `connection`. Its thread ends with it.

    `received` is what has been read of the connection already. `on_end` is called at the end.
    """

    def __init__(
        self,
        context: ListenerContext,
        connection: socket.socket,
        on_end: Callable[["ServedAssociation"], None],
        received: bytes = b"",
    ) -> None:
        super().__init__(context.ae, "acceptor")
        self._context = context
        self._on_end = on_end
        self._stops_when_idle = False
        self._work: deque[Work] = deque()
        peer = connection.getpeername()
        self.record = AssociationRecord(plain_address(peer[0]))
        self.name = f"association-{self.record.id}"
        self.acceptor.ae_title = context.dicom.aet
        self.acceptor.maximum_length = context.dicom.max_pdu
        self.acceptor.implementation_class_uid = context.ae.implementation_class_uid
        self.acceptor.implementation_version_name = context.ae.implementation_version_name
        self.acceptor.address_info = AddressInformation.from_tuple(connection.getsockname())
        self.requestor.address_info = AddressInformation.from_tuple(peer)
        self._stores = context.store.group(self.record, lambda: self.connection.has_data)
        self.connection = Connection(connection, received, before_wait=self._stores.flush)
        timeouts = context.dicom.timeouts
        self.dul: UpperLayer = UpperLayer(
            self, self.connection, context.dicom, self.record, self._begin, self._stores.flush
        )
        self.dimse: DimseProvider = DimseProvider(
            self, timeouts.pdu, self.dul.pump, self.dul.pump_available, self.dul.send_command
        )
        self.acse: Negotiation = Negotiation(self, context, self.record)
        self._requester = Requester(self, self.dul, self.record)
        self._dispatcher = Dispatcher(
            self._stores,
            self.record,
            context.admission.services,
            self.dul.send_command,
            self.dimse.deliver,
            self._requester.stored,
        )
        self._bind_handlers()
        self.set_socket(ConnectionSocket(self, connection, self.connection, timeouts.pdu))

    def run(self) -> None:
        """Serve the association to its end, and clean up."""
        try:
            if self._start_tls():
                super().run()
        except Exception as error:
            # pynetdicom may raise anything: it ends this association only.
            self.record.set_outcome("aborted", f"{type(error).__name__}: {error}")
            self.record.log.exception("association_failed")
            self.dul.abort_after_failure()
        finally:
            self._finish()

    @property
    def is_known(self) -> bool:
        """Whether the caller is one of [[peers]], as far as is known."""
        return self.acse.is_known

    @property
    def seconds_without_request(self) -> float:
        """How long it has waited for the association request; 0 after that, infinite at the end."""
        if self.record.is_ending:
            return inf
        return 0.0 if self.record.is_requested else perf_counter() - self.record.started

    def post(self, work: Work) -> None:
        """Have the association's thread do `work` between operations. Called from any thread."""
        self._work.append(work)
        self.connection.wake()

    def read_available(self) -> None:
        """Read what has arrived, such as C-CANCEL, while an operation runs. Called from its thread."""
        self.dul.pump_available()

    def extended(self, sop_class: str) -> bytes:
        """Return what was agreed on a SOP Class by extended negotiation (PS3.7 Section D.3.3.5)."""
        return self.acceptor.sop_class_extended.get(UID(sop_class), b"")

    def stop_when_idle(self) -> None:
        """Abort as soon as no operation is running. Called from any thread, any number of times."""
        if not self._stops_when_idle:
            self._stops_when_idle = True
            self.connection.wake()
        if not self.is_established:
            self.connection.interrupt()

    def interrupt(self) -> None:
        """Abort as soon as the thread waits for its peer. Called from any thread, any number of times."""
        self.connection.interrupt()
        self._requester.interrupt()

    def close_connection(self) -> None:
        """Close the connection; after our last PDU (Sta13) the peer gets the time to close it first."""
        if self.dul.state_machine.current_state == "Sta13":
            self.connection.close_gracefully(
                STOPPING_CLOSE_SECONDS if self._stops_when_idle else CLOSE_SECONDS
            )
        self.connection.close()

    def _bind_handlers(self) -> None:
        self.bind(evt.EVT_REQUESTED, self.acse.on_requested)
        self.bind(evt.EVT_ESTABLISHED, self.acse.on_established)
        self.bind(evt.EVT_SOP_EXTENDED, self.acse.on_extended)
        self.bind(evt.EVT_C_ECHO, self._echo)
        for event, handler in self._context.handlers:
            self.bind(event, handler)

    def _begin(self, context_id: int, command: Command) -> Operation:
        """Begin the operation of a command. Raises InvalidMessage for unexpected responses."""
        return self._dispatcher.begin(context_id, self._accepted_cx[context_id], command)

    def _echo(self, _event: Event) -> int:
        self.record.count("echoes")
        self.record.log.info("echo")
        self._context.metrics.operation_answered("echo", f"{SUCCESS:04X}")
        return SUCCESS

    def _run_reactor(self) -> None:
        """Serve until the association has ended, without polling as pynetdicom's own loop does."""
        while self.is_established and not self._kill:
            # Only this thread reads, so that requests of our own need not wait for a pause of this loop.
            self._is_paused = True
            self._step()
        self._end_by_peer()

    def _step(self) -> None:
        context_id, message = self.dimse.get_msg(block=False)
        retrieve = self._context.retrieve
        if retrieve is not None and isinstance(message, C_GET | C_MOVE):
            self.dimse.cancel_req.clear()
            retrieve.serve(self._requester, message, self._accepted_cx[context_id])
        elif message is not None:
            self._serve_request(message, context_id)
        elif self.dul.peek_next_pdu() is not None:
            self._end_by_peer()
        elif self._stops_when_idle and self.dul.assembler.is_idle:
            self.record.set_outcome("aborted", "shutdown")
            self.abort()
        elif self._work and self.dul.assembler.is_idle:
            self._do(self._work.popleft())
        elif not self.dul.pump(monotonic() + self._context.dicom.timeouts.idle):
            self.record.set_outcome("aborted", "idle for too long")
            self.abort()

    def _do(self, work: Work) -> None:
        try:
            work(self)
        except Exception:
            # It was not the peer's fault: the association goes on.
            self.record.log.exception("posted_work_failed")

    def _end_by_peer(self) -> None:
        """Answer a release of the peer, or note its abort."""
        if self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released = True
            self.is_established = False
            evt.trigger(self, evt.EVT_RELEASED, {})
        elif self.acse.is_aborted():
            self.dul.receive_pdu()
            self.record.set_outcome("aborted", "by the peer")
            self.is_aborted = True
            self.is_established = False
            evt.trigger(self, evt.EVT_ABORTED, {})
        self.kill()

    def _abort_blocking(self, block: bool = True) -> None:  # noqa: FBT001, FBT002
        """Answer complete operations and send A-ABORT, without the sleep of pynetdicom's own."""
        self._stores.flush()
        super()._abort_blocking(block=False)
        if block:
            self.kill()

    def _start_tls(self) -> bool:
        """Do the TLS handshake where TLS is used; return whether the association can go on."""
        if self._context.ssl_context is None:
            return True
        try:
            deadline = monotonic() + self._context.dicom.timeouts.request
            tls = self.connection.start_tls(self._context.ssl_context, deadline)
        except DeadlineExceeded:
            return self._log_tls_failure("no TLS handshake in time")
        except (Closed, Interrupted) as error:
            return self._log_tls_failure(str(error) or "shutdown")
        self.record.log_tls(tls.version(), certificate_subject(tls.getpeercert()))
        return True

    def _log_tls_failure(self, why: str) -> bool:
        self.record.set_outcome("aborted", f"TLS: {why}")
        self.record.log.warning("tls_failed", why=why)
        if audit := self._context.metrics.audit:
            audit.put(events.rejected(audit.source, f"TLS: {why}", "", self.record.address))
        return False

    def _finish(self) -> None:
        """Clean up: a step that fails does not stop the others."""
        steps = (
            self._stores.flush,
            self._discard_incomplete,
            self._report_end,
            self.acse.end,
            self.close_connection,
        )
        for step in steps:
            try:
                step()
            except Exception:
                self.record.log.exception("association_end_failed")
        self._on_end(self)

    def _discard_incomplete(self) -> None:
        self.dul.assembler.discard(self.record.reason or "the association has ended")

    def _report_end(self) -> None:
        self.record.set_outcome(
            "released" if self.is_released else "rejected" if self.is_rejected else "aborted"
        )
        self.record.log_end()
        if self.record.accepted and (audit := self._context.metrics.audit):
            audit.put_received(self.record)
        if self.record.accepted and self._context.on_association_end:
            self._context.on_association_end(self.record.info)
