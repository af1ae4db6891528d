"""pynetdicom's upper layer, ACSE and services, driven by one blocking thread.

pynetdicom gives an association two threads that poll, and builds objects of every PDU. Here every wait of
the association reads the socket instead ("pumps"), and C-STORE's data set goes from the read buffer to the
store service. The state table (fsm.py), negotiation, release, abort and all other services are pynetdicom's.
The modules of scp/upperlayer alone touch its private names; PRIVATE_NAMES in their test lists them.
"""

import socket
from collections.abc import Callable
from time import monotonic
from typing import Any, cast

import pynetdicom.pdu
from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu import A_ABORT_RQ, A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import P_DATA
from pynetdicom.transport import AssociationSocket

from scp.observing.association_record import AssociationRecord
from scp.settings.sections import DicomSettings
from scp.upperlayer.dimse import WAITING
from scp.upperlayer.message_assembler import MessageAssembler, Operation
from scp.wire.associate_rq import AssociateRequest, Unacceptable, read, read_titles
from scp.wire.command_set import Command
from scp.wire.connection import Closed, Connection, DeadlineExceeded, Interrupted
from scp.wire.pdus import (
    A_ASSOCIATE_RQ,
    CONTEXT_AND_CONTROL_LENGTH,
    LENGTHS,
    P_DATA_TF,
    PDU_HEADER,
    PDV_HEADER,
    REPEATED,
    Disorder,
    Fault,
    Reason,
    command_pdus,
)


class ConnectionSocket(AssociationSocket):
    """pynetdicom's view of the connection: it sends; what it closes is closed when its thread ends."""

    def __init__(
        self, assoc: Association, client_socket: socket.socket, connection: Connection, seconds: float
    ) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._connection = connection
        self._seconds = seconds

    def send(self, bytestream: bytes) -> None:
        """See AssociationSocket."""
        try:
            self._connection.send(bytestream, monotonic() + self._seconds)
        except Closed:
            self.event_queue.put("Evt17")

    def close(self) -> None:
        """Note that it is over."""
        self._is_connected = False

    def _shutdown_socket(self) -> None:
        self._is_connected = False


class UpperLayer(DULServiceProvider):
    """The DUL service provider without a thread: whoever waits for it reads the socket."""

    def __init__(
        self,
        assoc: Association,
        connection: Connection,
        dicom: DicomSettings,
        record: AssociationRecord,
        begin: Callable[[int, Command], Operation],
    ) -> None:
        super().__init__(assoc)
        self._connection = connection
        self._timeouts = dicom.timeouts
        self._max_pdu = dicom.max_pdu
        self._record = record
        self._reason = Reason.UNEXPECTED_PDU
        self._draining = False
        self._request_deadline = monotonic() + self._timeouts.request
        self.assembler = MessageAssembler(begin)
        self.request: AssociateRequest | None = None

    def start(self) -> None:
        """Be ready, without a thread."""
        self.assoc._dul_ready.set()  # noqa: SLF001
        self._drain()

    def is_alive(self) -> bool:
        """Tell whether there is still something to wait for."""
        return not self._kill_thread

    def stop_dul(self) -> bool:
        """Wait for nothing more."""
        self._kill_thread = True
        return True

    def send_pdu(self, primitive: Any) -> None:
        """Send at once. Data for an association that is no more is dropped."""
        if isinstance(primitive, P_DATA) and self.state_machine.current_state not in ("Sta6", "Sta8"):
            return
        super().send_pdu(primitive)
        self._drain()

    def send_command(self, context_id: int, encoded: bytes) -> None:
        """Send a command set, in PDUs of the peer's maximum."""
        proposed_id = self.request.proposed_id(context_id) if self.request else context_id
        pdus = command_pdus(proposed_id, encoded, self.assoc.dimse.maximum_pdu_size)
        cast("ConnectionSocket", self.socket).send(pdus)

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
            while self._connection.has_data or self._connection.wait(deadline):
                self._read(self._request_deadline if first else monotonic() + self._timeouts.pdu)
                if self.assembler.is_idle or not self.is_alive() or not self.to_user_queue.empty():
                    break
                deadline = max(deadline, monotonic() + self._timeouts.idle)
        except DeadlineExceeded:
            if first:
                self._record.ending("aborted", "no association request in time")
                self._happened("Evt18")
            return False
        except Closed as error:
            self._lost(str(error))
        except Interrupted:
            self._record.ending("aborted", "shutdown")
            self._fault(Fault(Reason.NOT_SPECIFIED, "shutdown"))
        return True

    def pump_what_is_there(self) -> None:
        """Read the PDUs that have begun to arrive, without waiting for others: C-CANCEL may be among them."""
        try:
            waiting = self.assoc.dimse.msg_queue
            while self.is_alive() and waiting.qsize() < WAITING and self._connection.is_readable():
                self._read(monotonic() + self._timeouts.pdu)
        except Closed as error:
            self._lost(str(error))
        except Interrupted:
            self._fault(Fault(Reason.NOT_SPECIFIED, "shutdown"))

    def _read(self, deadline: float) -> None:
        """Read one PDU and act on it."""
        try:
            kind, length = PDU_HEADER.unpack(self._connection.take(PDU_HEADER.size, deadline))
            if kind == P_DATA_TF and self.state_machine.current_state in ("Sta6", "Sta7"):
                self._read_data(length, deadline)
            elif kind == P_DATA_TF:
                self._record.ending("aborted", "data outside of an association")
                self._happened("Evt10")
            else:
                self._read_other(kind, length, deadline)
        except Fault as fault:
            self._fault(fault)
        except Disorder as error:
            self._fault(Fault(Reason.INVALID_PARAMETER_VALUE, str(error)))
        except DeadlineExceeded:
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
        connection, assembler = self._connection, self.assembler
        while length:
            if length < PDV_HEADER.size:
                raise Fault(Reason.INVALID_PARAMETER_VALUE, "a presentation data value that is cut off")
            size, context, control = PDV_HEADER.unpack(connection.take(PDV_HEADER.size, deadline))
            size -= CONTEXT_AND_CONTROL_LENGTH
            length -= PDV_HEADER.size
            if not 0 <= size <= length:
                raise Fault(Reason.INVALID_PARAMETER_VALUE, f"a presentation data value of {size + 2} bytes")
            length -= size
            assembler.open(self._own_context(context), control)
            while size:
                fragment = connection.some(size, deadline)
                size -= len(fragment)
                assembler.write(fragment)
            assembler.close()

    def _read_other(self, kind: int, length: int, deadline: float) -> None:
        """Read a PDU of any other type, whole."""
        if kind not in LENGTHS:
            raise Fault(Reason.UNRECOGNIZED_PDU, f"a PDU of type {kind:02X}")
        least, most = LENGTHS[kind]
        if not least <= length <= most:
            raise Fault(Reason.INVALID_PARAMETER_VALUE, f"a PDU of type {kind:02X} with {length} bytes")
        body = bytes(self._connection.take(length, deadline))
        try:
            if kind == A_ASSOCIATE_RQ:
                body = self._read_request(body)
            pdu, event = self._decode_pdu(bytearray(PDU_HEADER.pack(kind, len(body)) + body))
        except Unacceptable as error:
            raise Fault(Reason.INVALID_PARAMETER_VALUE, f"an association request with {error}") from error
        except Exception as error:
            # pynetdicom raises whatever its decoders happen to meet.
            raise Fault(
                Reason.INVALID_PARAMETER_VALUE, f"a PDU of type {kind:02X} that cannot be read"
            ) from error
        self._recv_pdu.put(pdu)
        self._happened(event)

    def _read_request(self, body: bytes) -> bytes:
        """Return an association request as pynetdicom can read it. Raises Unacceptable."""
        if self.state_machine.current_state != "Sta2":
            return body  # out of place, whatever it holds
        self._record.requested(*read_titles(body))
        self.request = request = read(body)
        if request.oddities:
            self._record.log.info("association_request_odd", oddities=request.oddities)
        if not request.is_version_1:
            self._record.ending("rejected", "protocol version")
        return request.encoded

    def _own_context(self, proposed: int) -> int:
        """Return the id by which pynetdicom knows an accepted presentation context. Raises Fault."""
        own = self.request.contexts.get(proposed) if self.request else None
        if own is None or own not in self.assoc._accepted_cx:  # noqa: SLF001
            raise Fault(Reason.INVALID_PARAMETER_VALUE, f"presentation context {proposed} was not accepted")
        return own

    def _fault(self, fault: Fault) -> None:
        """Abort as provider, with the fault's reason (PS3.8 Section 9.2, AA-1 and AA-8)."""
        self._record.ending("aborted", str(fault))
        self._reason = fault.reason
        self._happened("Evt19")

    def _lost(self, why: str) -> None:
        self._record.ending("aborted" if self._record.is_requested else "closed", f"connection lost: {why}")
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
        """Send a PDU of pynetdicom's, with the caller's own titles and presentation context ids."""
        if isinstance(pdu, A_ABORT_RQ) and pdu.source == 0x02:  # noqa: PLR2004  by the provider
            pdu.reason_diagnostic = self._reason
        if self.request and isinstance(pdu, A_ASSOCIATE_AC):
            for context in pdu.presentation_context:
                context.presentation_context_id = self.request.proposed_id(cast("int", context.context_id))
            encoded = bytearray(pdu.encode())
            encoded[REPEATED] = self.request.repeated
            cast("ConnectionSocket", self.socket).send(bytes(encoded))
            return
        if self.request and isinstance(pdu, pynetdicom.pdu.P_DATA_TF):
            for value in pdu.presentation_data_value_items:
                value.presentation_context_id = self.request.proposed_id(cast("int", value.context_id))
        super()._send(pdu)
