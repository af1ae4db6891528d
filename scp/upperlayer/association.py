"""An association that a peer requested, served by one thread that sleeps until there is work."""

import socket
from collections import deque
from collections.abc import Callable
from math import inf
from time import monotonic, perf_counter

from pynetdicom import _config, evt
from pynetdicom.association import Association
from pynetdicom.events import Event
from pynetdicom.transport import AddressInformation

from scp.association.admission import plain_address
from scp.observing.association_record import AssociationRecord
from scp.upperlayer.context import ListenerContext
from scp.upperlayer.dimse import Messages
from scp.upperlayer.dispatch import Dispatcher
from scp.upperlayer.dul import ConnectionSocket, UpperLayer
from scp.upperlayer.message_assembler import Operation
from scp.upperlayer.negotiation import Negotiation
from scp.wire.command_set import Command
from scp.wire.connection import Closed, Connection, DeadlineExceeded, Interrupted
from scp.wire.status import SUCCESS
from scp.wire.tls import subject

# How long a peer may take to close after release, rejection or abort, in seconds (ARTIM, PS3.8 9.1.5).
GOODBYE = 2.0
# The same while the daemon stops.
HASTY_GOODBYE = 0.5

Work = Callable[["ServedAssociation"], None]

# pynetdicom's own descriptions of each PDU and message would cost more than receiving them.
_config.LOG_HANDLER_LEVEL = "none"


class ServedAssociation(Association):
    """An association that a peer requested on `connection`. Its thread ends with it.

    `received` is what has been read of the connection already. `on_over` is called at the end.
    """

    def __init__(
        self,
        context: ListenerContext,
        connection: socket.socket,
        on_over: Callable[["ServedAssociation"], None],
        received: bytes = b"",
    ) -> None:
        super().__init__(context.ae, "acceptor")
        self._context = context
        self._on_over = on_over
        self._winding_down = False
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
        self.connection = Connection(connection, received)
        timeouts = context.dicom.timeouts
        self.dul: UpperLayer = UpperLayer(self, self.connection, context.dicom, self.record, self._begin)
        self.dimse: Messages = Messages(self, timeouts.pdu, self.dul.pump, self.dul.pump_what_is_there)
        self.acse: Negotiation = Negotiation(self, context, self.record)
        self._dispatcher = Dispatcher(
            context.store,
            self.record,
            context.admission.services,
            self.dul.send_command,
            self.dimse.deliver,
        )
        self._bind_handlers()
        self.set_socket(ConnectionSocket(self, connection, self.connection, timeouts.pdu))

    def run(self) -> None:
        """Serve the association to its end, and leave nothing behind."""
        try:
            if self._secure():
                super().run()
        except Exception as error:
            # Whatever pynetdicom raises ends this association only.
            self.record.ending("aborted", f"{type(error).__name__}: {error}")
            self.record.log.exception("association_failed")
        finally:
            self._finish()

    @property
    def is_known(self) -> bool:
        """Tell whether the caller has turned out to be one of [[peers]]."""
        return self.acse.is_known

    @property
    def silence(self) -> float:
        """Seconds without an association request; 0 once it has been read, infinite at the end."""
        if self.record.is_ending:
            return inf
        return 0.0 if self.record.is_requested else perf_counter() - self.record.started

    def post(self, work: Work) -> None:
        """Have `work` done by the association's thread, between operations. Called from any thread."""
        self._work.append(work)
        self.connection.wake()

    def wind_down(self) -> None:
        """Abort as soon as no operation is running. Called from any thread, any number of times."""
        if not self._winding_down:
            self._winding_down = True
            self.connection.wake()
        if not self.is_established:
            self.connection.interrupt()

    def cut(self) -> None:
        """Abort as soon as the thread waits for its peer. Called from any thread, any number of times."""
        self.connection.interrupt()

    def hang_up(self) -> None:
        """Close the connection; after our last message (Sta13) the peer may do so first."""
        if self.dul.state_machine.current_state == "Sta13":
            self.connection.hang_up(HASTY_GOODBYE if self._winding_down else GOODBYE)
        self.connection.close()

    def _bind_handlers(self) -> None:
        self.bind(evt.EVT_REQUESTED, self.acse.on_requested)
        self.bind(evt.EVT_ESTABLISHED, self.acse.on_established)
        self.bind(evt.EVT_C_ECHO, self._echo)
        for event, handler in self._context.handlers:
            self.bind(event, handler)

    def _begin(self, context_id: int, command: Command) -> Operation:
        """Decide what a command asks for. Raises Disorder for responses that nobody waits for."""
        return self._dispatcher.begin(context_id, self._accepted_cx[context_id], command)

    def _echo(self, _event: Event) -> int:
        self.record.did("echoes")
        self.record.log.info("echo")
        self._context.metrics.operated("echo", f"{SUCCESS:04X}")
        return SUCCESS

    def _run_reactor(self) -> None:
        """Serve until the association is over. Stands for pynetdicom's loop, which polls."""
        while self.is_established and not self._kill:
            # No other thread reads: requests of our own need not wait for this loop to pause.
            self._is_paused = True
            self._step()
        self._conclude()

    def _step(self) -> None:
        context_id, message = self.dimse.get_msg(block=False)
        if message is not None:
            self._serve_request(message, context_id)
        elif self.dul.peek_next_pdu() is not None:
            self._conclude()
        elif self._winding_down and self.dul.assembler.is_idle:
            self.record.ending("aborted", "shutdown")
            self.abort()
        elif self._work and self.dul.assembler.is_idle:
            self._work.popleft()(self)
        elif not self.dul.pump(monotonic() + self._context.dicom.timeouts.idle):
            self.record.ending("aborted", "idle for too long")
            self.abort()

    def _conclude(self) -> None:
        """Answer a release, note an abort."""
        if self.acse.is_release_requested():
            self.acse.send_release(is_response=True)
            self.is_released = True
            self.is_established = False
            evt.trigger(self, evt.EVT_RELEASED, {})
        elif self.acse.is_aborted():
            self.dul.receive_pdu()
            self.record.ending("aborted", "by the peer")
            self.is_aborted = True
            self.is_established = False
            evt.trigger(self, evt.EVT_ABORTED, {})
        self.kill()

    def _abort_blocking(self, block: bool = True) -> None:  # noqa: FBT001, FBT002
        """Send A-ABORT. pynetdicom's own then sleeps."""
        super()._abort_blocking(block=False)
        if block:
            self.kill()

    def _secure(self) -> bool:
        """Shake hands for TLS where it is wanted, in the association's thread; return whether all is well."""
        if self._context.ssl_context is None:
            return True
        try:
            deadline = monotonic() + self._context.dicom.timeouts.request
            secured = self.connection.secure(self._context.ssl_context, deadline)
        except DeadlineExceeded:
            return self._not_secured("no TLS handshake in time")
        except (Closed, Interrupted) as error:
            return self._not_secured(str(error) or "shutdown")
        self.record.secured(secured.version(), subject(secured.getpeercert()))
        return True

    def _not_secured(self, why: str) -> bool:
        self.record.ending("aborted", f"TLS: {why}")
        self.record.log.warning("tls_failed", why=why)
        return False

    def _finish(self) -> None:
        self.dul.assembler.discard(self.record.reason or "the association has ended")
        self.record.ending("released" if self.is_released else "rejected" if self.is_rejected else "aborted")
        self.record.over()
        try:
            if self.record.accepted and self._context.on_association_end:
                self._context.on_association_end(self.record.info)
        except Exception:
            self.record.log.exception("association_end_failed")
        finally:
            self.acse.end()
            self.hang_up()
            self._on_over(self)
