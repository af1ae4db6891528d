"""`upper_layer = "blocking"`: pynetdicom's upper layer, ACSE and services, driven by one blocking thread.

pynetdicom gives an association two threads that poll, and builds objects of every PDU. Here every wait of
the association reads the socket instead ("pumps"), and C-STORE's data set goes from the read buffer to the
store service. The state table (fsm.py), negotiation, release, abort and all other services are pynetdicom's.
This is the only module that touches its private names; PRIVATE_NAMES in its test lists them.
"""

import socket
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

from pynetdicom import evt
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from scp.association import Desk, ServedAssociation
from scp.command import Command
from scp.inbox import Disorder, Inbox, Operation
from scp.messages import WAITING, Messages
from scp.operations import Clerk
from scp.pdus import (
    A_ASSOCIATE_RQ,
    CONTEXT_AND_CONTROL_LENGTH,
    LENGTHS,
    P_DATA_TF,
    PDU_HEADER,
    PDV_HEADER,
    Fault,
    Reason,
    command_pdus,
)
from scp.request import Unacceptable, check
from scp.tls import subject
from scp.wire import Closed, Cut, Late, Wire

# How long a peer may take to close after release, rejection or abort, in seconds (ARTIM, PS3.8 9.1.5).
GOODBYE = 2.0
# The same while the daemon stops.
HASTY_GOODBYE = 0.5

Work = Callable[["BlockingAssociation"], None]


class _Socket(AssociationSocket):
    """pynetdicom's view of the connection: it sends; what it closes is closed when its thread ends."""

    def send(self, bytestream: bytes) -> None:
        assoc = cast("BlockingAssociation", self.assoc)
        try:
            assoc.wire.send(bytestream, monotonic() + assoc.desk.dicom.timeouts.pdu)
        except Closed:
            self.event_queue.put("Evt17")

    def close(self) -> None:
        self._is_connected = False

    def _shutdown_socket(self) -> None:
        self._is_connected = False


class _UpperLayer(DULServiceProvider):
    """The DUL service provider without a thread: whoever waits for it reads the socket."""

    def __init__(self, assoc: "BlockingAssociation") -> None:
        super().__init__(assoc)
        self._wire = assoc.wire
        self._timeouts = assoc.desk.dicom.timeouts
        self._max_pdu = assoc.desk.dicom.max_pdu
        self._session = assoc.session
        self._reason = Reason.UNEXPECTED_PDU
        self._draining = False
        self._request_deadline = monotonic() + self._timeouts.request
        self.inbox = Inbox(assoc.begin)

    def start(self) -> None:
        self.assoc._dul_ready.set()  # noqa: SLF001
        self._drain()

    def is_alive(self) -> bool:
        return not self._kill_thread

    def stop_dul(self) -> bool:
        self._kill_thread = True
        return True

    def send_pdu(self, primitive: Any) -> None:
        """Send at once. Data for an association that is no more is dropped."""
        if isinstance(primitive, P_DATA) and self.state_machine.current_state not in ("Sta6", "Sta8"):
            return
        super().send_pdu(primitive)
        self._drain()

    def send_bytes(self, pdus: bytes) -> None:
        """Send PDUs that are encoded already."""
        cast("_Socket", self.socket).send(pdus)
        self._drain()

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002
        """Return the next primitive, reading until there is one when told to wait."""
        deadline = monotonic() + (timeout if timeout is not None else self._timeouts.idle)
        while wait and self.is_alive() and self.to_user_queue.empty() and self.pump(deadline):
            pass
        return super().receive_pdu(wait=False)

    def pump(self, deadline: float) -> bool:
        """Read until there is something for the user, or somebody wakes us. Returns False when too late."""
        first = self.state_machine.current_state == "Sta2"
        try:
            while self._wire.has_data or self._wire.wait(deadline):
                self._read(self._request_deadline if first else monotonic() + self._timeouts.pdu)
                if self.inbox.is_idle or not self.is_alive() or not self.to_user_queue.empty():
                    break
                deadline = max(deadline, monotonic() + self._timeouts.idle)
        except Late:
            if first:
                self._session.ending("aborted", "no association request in time")
                self._happened("Evt18")
            return False
        except Closed as error:
            self._lost(str(error))
        except Cut:
            self._session.ending("aborted", "shutdown")
            self._fault(Fault(Reason.NOT_SPECIFIED, "shutdown"))
        return True

    def pump_what_is_there(self) -> None:
        """Read the PDUs that have begun to arrive, without waiting for others: C-CANCEL may be among them."""
        try:
            waiting = self.assoc.dimse.msg_queue
            while self.is_alive() and waiting.qsize() < WAITING and self._wire.is_readable():
                self._read(monotonic() + self._timeouts.pdu)
        except Closed as error:
            self._lost(str(error))
        except Cut:
            self._fault(Fault(Reason.NOT_SPECIFIED, "shutdown"))

    def _read(self, deadline: float) -> None:
        """Read one PDU and act on it."""
        try:
            kind, length = PDU_HEADER.unpack(self._wire.take(PDU_HEADER.size, deadline))
            if kind == P_DATA_TF and self.state_machine.current_state in ("Sta6", "Sta7"):
                self._read_data(length, deadline)
            elif kind == P_DATA_TF:
                self._session.ending("aborted", "data outside of an association")
                self._happened("Evt10")
            else:
                self._read_other(kind, length, deadline)
        except Fault as fault:
            self._fault(fault)
        except Disorder as error:
            self._fault(Fault(Reason.INVALID_PARAMETER_VALUE, str(error)))
        except Late:
            if self.state_machine.current_state == "Sta2":
                raise
            self._fault(Fault(Reason.NOT_SPECIFIED, "a PDU that did not end in time"))

    def _read_data(self, length: int, deadline: float) -> None:
        """Read a P-DATA-TF PDU (PS3.8 Section 9.3.5)."""
        if length > self._max_pdu:
            raise Fault(
                Reason.INVALID_PARAMETER_VALUE, f"a P-DATA-TF PDU of {length} bytes; offered {self._max_pdu}"
            )
        if not length:
            raise Fault(Reason.INVALID_PARAMETER_VALUE, "a P-DATA-TF PDU without values")
        wire, inbox = self._wire, self.inbox
        while length:
            if length < PDV_HEADER.size:
                raise Fault(Reason.INVALID_PARAMETER_VALUE, "a presentation data value that is cut off")
            size, context, control = PDV_HEADER.unpack(wire.take(PDV_HEADER.size, deadline))
            size -= CONTEXT_AND_CONTROL_LENGTH
            length -= PDV_HEADER.size
            if not 0 <= size <= length:
                raise Fault(Reason.INVALID_PARAMETER_VALUE, f"a presentation data value of {size + 2} bytes")
            length -= size
            if context not in self.assoc._accepted_cx:  # noqa: SLF001
                raise Fault(
                    Reason.INVALID_PARAMETER_VALUE, f"presentation context {context} was not accepted"
                )
            inbox.open(context, control)
            while size:
                fragment = wire.some(size, deadline)
                size -= len(fragment)
                inbox.write(fragment)
            inbox.close()

    def _read_other(self, kind: int, length: int, deadline: float) -> None:
        """Read a PDU of any other type, whole."""
        if kind not in LENGTHS:
            raise Fault(Reason.UNRECOGNIZED_PDU, f"a PDU of type {kind:02X}")
        least, most = LENGTHS[kind]
        if not least <= length <= most:
            raise Fault(Reason.INVALID_PARAMETER_VALUE, f"a PDU of type {kind:02X} with {length} bytes")
        body = bytes(self._wire.take(length, deadline))
        try:
            if kind == A_ASSOCIATE_RQ:
                check(body)
            pdu, event = self._decode_pdu(bytearray(PDU_HEADER.pack(kind, length) + body))
        except Unacceptable as error:
            raise Fault(Reason.INVALID_PARAMETER_VALUE, f"an association request with {error}") from error
        except Exception as error:
            # pynetdicom raises whatever its decoders happen to meet.
            raise Fault(
                Reason.INVALID_PARAMETER_VALUE, f"a PDU of type {kind:02X} that cannot be read"
            ) from error
        self._recv_pdu.put(pdu)
        self._happened(event)

    def _fault(self, fault: Fault) -> None:
        """Abort as provider, with the fault's reason (PS3.8 Section 9.2, AA-1 and AA-8)."""
        self._session.ending("aborted", str(fault))
        self._reason = fault.reason
        self._happened("Evt19")

    def _lost(self, why: str) -> None:
        self._session.ending("aborted" if self._session.link else "closed", f"connection lost: {why}")
        self._happened("Evt17")

    def _happened(self, event: str) -> None:
        self.event_queue.put(event)
        self._drain()

    def _drain(self) -> None:
        """Let the state machine act on all events and primitives."""
        if self._draining:
            return  # an action's handlers have sent something; the loop below sees to it
        self._draining = True
        try:
            while not self.event_queue.empty() or self._process_recv_primitive():
                self._act(self.event_queue.get(block=False))
        finally:
            self._draining = False

    def _act(self, event: str) -> None:
        state = self.state_machine.current_state
        try:
            self.state_machine.do_action(event)
        except Exception:  # noqa: BLE001  pynetdicom raises whatever it meets in a request
            self.to_provider_queue.queue.clear()
            if event == "Evt6" and state == "Sta2":
                self._fault(
                    Fault(Reason.INVALID_PARAMETER_VALUE, "an association request that cannot be understood")
                )
            self._kill_thread = True
        if self.state_machine.current_state in ("Sta1", "Sta13"):
            # Only the goodbye is left, which is not read: the association's thread may end.
            self._kill_thread = True
            self.assoc.is_established = False

    def _send(self, pdu: Any) -> None:
        if isinstance(pdu, A_ABORT_RQ) and pdu.source == 0x02:  # noqa: PLR2004  by the provider
            pdu.reason_diagnostic = self._reason
        super()._send(pdu)


class BlockingAssociation(ServedAssociation):
    """An association served by one thread that sleeps until its peer, or somebody here, wants something."""

    def __init__(
        self, desk: Desk, connection: socket.socket, on_over: Callable[[ServedAssociation], None]
    ) -> None:
        self._winding_down = False
        self._work: deque[Work] = deque()
        super().__init__(desk, connection, on_over)

    def _provide(self) -> None:
        self.wire = Wire(self.connection)
        self.dul: _UpperLayer = _UpperLayer(self)
        self.dimse: Messages = Messages(self, self.dul.pump, self.dul.pump_what_is_there)
        self.set_socket(_Socket(self, client_socket=self.connection))

    def post(self, work: Work) -> None:
        """Have `work` done by the association's thread, between operations. Called from any thread."""
        self._work.append(work)
        self.wire.wake()

    def wind_down(self) -> None:
        """Abort as soon as no operation is running; without an association there is none."""
        if not self._winding_down:
            self._winding_down = True
            self.wire.wake()
        if not self.is_established:
            self.wire.cut()

    def cut(self) -> None:
        """Abort as soon as the thread waits for its peer."""
        self.wire.cut()

    def begin(self, context_id: int, command: Command) -> Operation:
        """Decide what a command asks for. Raises Disorder for responses that nobody waits for."""

        def reply(encoded: bytes) -> None:
            cast("_Socket", self.dul.socket).send(
                command_pdus(context_id, encoded, self.dimse.maximum_pdu_size)
            )

        def deliver(data: bytes) -> None:
            self.dimse.deliver(context_id, command.encoded, data)

        clerk = Clerk(self.desk.store, self.session, self.desk.admission.services, reply, deliver)
        return clerk.begin(self._accepted_cx[context_id], command)

    def _run_reactor(self) -> None:
        """Serve until the association is over. Stands for pynetdicom's loop, which polls."""
        while self.is_established and not self._kill:
            # Nobody else reads: requests of our own need not wait for this loop to pause.
            self._is_paused = True
            self._step()
        self._conclude()

    def _step(self) -> None:
        context_id, message = self.dimse.get_msg(block=False)
        if message is not None:
            self._serve_request(message, context_id)
        elif self.dul.peek_next_pdu() is not None:
            self._conclude()
        elif self._winding_down and self.dul.inbox.is_idle:
            self.session.ending("aborted", "shutdown")
            self.abort()
        elif self._work and self.dul.inbox.is_idle:
            self._work.popleft()(self)
        elif not self.dul.pump(monotonic() + self.desk.dicom.timeouts.idle):
            self.session.ending("aborted", "idle for too long")
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
            self.session.ending("aborted", "by the peer")
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
        if self.desk.ssl_context is None:
            return True
        try:
            deadline = monotonic() + self.desk.dicom.timeouts.request
            secured = self.wire.secure(self.desk.ssl_context, deadline)
        except Late:
            return self.not_secured("no TLS handshake in time")
        except (Closed, Cut) as error:
            return self.not_secured(str(error) or "shutdown")
        self.session.secured(secured.version(), subject(secured.getpeercert()))
        return True

    def _finish(self) -> None:
        self.dul.inbox.discard(self.session.reason or "the association has ended")
        super()._finish()

    def hang_up(self) -> None:
        """Close the connection; after a goodbye of ours (Sta13) the peer may do so first."""
        if self.dul.state_machine.current_state == "Sta13":
            self.wire.hang_up(HASTY_GOODBYE if self._winding_down else GOODBYE)
        self.wire.close()
