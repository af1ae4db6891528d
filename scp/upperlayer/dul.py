"""pynetdicom's upper layer, ACSE and services, driven by one blocking thread.

In pynetdicom an association has two threads that poll, and each PDU becomes objects. Here one thread reads
the socket whenever it waits ("pumps"), and the data set of a C-STORE goes from the read buffer to the store
service. The state table (fsm.py), negotiation, release, abort and all other services are pynetdicom's. Only
the modules of scp/upperlayer use its private names; PRIVATE_NAMES in their test lists them.
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
from scp.upperlayer.dimse import MAX_QUEUED_REQUESTS
from scp.upperlayer.message_assembler import MessageAssembler, Operation
from scp.wire.associate_rq import (
    REPEATED_FIELDS,
    AssociateRequest,
    UnreadableRequest,
    parse_request,
    parse_titles,
)
from scp.wire.command_set import Command
from scp.wire.connection import Closed, Connection, DeadlineExceeded, Interrupted
from scp.wire.pdus import (
    A_ASSOCIATE_RQ,
    COMMAND,
    CONTEXT_AND_CONTROL_LENGTH,
    DATA_SET,
    P_DATA_TF,
    PDU_HEADER,
    PDU_LENGTHS,
    PDV_HEADER,
    SEND_LENGTH,
    AbortReason,
    DataSource,
    InvalidMessage,
    ProtocolViolation,
    fragment_pdus,
    message_pdus,
)


class ConnectionSocket(AssociationSocket):
    """The connection as pynetdicom uses it: to send. The association's thread closes it at its end."""

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
        """Mark it as not connected."""
        self._is_connected = False

    def _shutdown_socket(self) -> None:
        self._is_connected = False


class UpperLayer(DULServiceProvider):
    """The DUL service provider, without a thread: the thread that waits for a PDU reads the socket.

    `begin` returns the operation of a command. `answer_complete` keeps and answers the complete C-STORE
    operations.
    """

    def __init__(
        self,
        assoc: Association,
        connection: Connection,
        dicom: DicomSettings,
        record: AssociationRecord,
        begin: Callable[[int, Command], Operation],
        answer_complete: Callable[[], None],
    ) -> None:
        super().__init__(assoc)
        self._connection = connection
        self._timeouts = dicom.timeouts
        self._max_pdu = dicom.max_pdu
        self._record = record
        self._answer_complete = answer_complete
        self._reason = AbortReason.UNEXPECTED_PDU
        self._is_running_events = False
        self._request_deadline = monotonic() + self._timeouts.request
        self.assembler = MessageAssembler(begin)
        self.request: AssociateRequest | None = None
        # Where messages are put together; only for who retrieves.
        self._memory: memoryview | None = None

    def start(self) -> None:
        """Start without a thread."""
        self.assoc._dul_ready.set()  # noqa: SLF001
        self._run_events()

    def is_alive(self) -> bool:
        """Whether there is still something to wait for."""
        return not self._kill_thread

    def stop_dul(self) -> bool:
        """Stop: wait for nothing more."""
        self._kill_thread = True
        return True

    @property
    def _may_send_data(self) -> bool:
        """Whether P-DATA may be sent: the association has not ended (PS3.8 Section 9.2, Table 9-10)."""
        return self.state_machine.current_state in ("Sta6", "Sta8")

    def send_pdu(self, primitive: Any) -> None:
        """Send at once. Data is dropped where the association has ended."""
        if isinstance(primitive, P_DATA) and not self._may_send_data:
            return
        super().send_pdu(primitive)
        self._run_events()

    def send_command(self, context_id: int, encoded: bytes, data_set: bytes = b"") -> None:
        """Send a message in PDUs of the peer's maximum length. Dropped when the association has ended."""
        if not self._may_send_data:
            return
        proposed_id = self.request.proposed_id(context_id) if self.request else context_id
        most = self.assoc.dimse.maximum_pdu_size
        pdus = fragment_pdus(proposed_id, COMMAND, encoded, most)
        pdus += fragment_pdus(proposed_id, DATA_SET, data_set, most)
        cast("ConnectionSocket", self.socket).send(pdus)

    def send_message(self, context_id: int, encoded: bytes, data: DataSource | None) -> bool:
        """Send a message as its data set is read; return whether all of it was sent."""
        if not self._may_send_data:
            return False
        proposed_id = self.request.proposed_id(context_id) if self.request else context_id
        if self._memory is None:
            self._memory = memoryview(bytearray(SEND_LENGTH))
        most = self.assoc.dimse.maximum_pdu_size
        try:
            for pdus in message_pdus(proposed_id, encoded, data, most, self._memory):
                self._connection.send(pdus, monotonic() + self._timeouts.pdu)
        except Closed as error:
            self._connection_lost(str(error))
        except OSError as error:  # of the data set: the message cannot be completed
            self._record.set_outcome("aborted", f"an object cannot be read: {error.strerror or error}")
            self.abort_after_failure()
        else:
            return True
        return False

    def receive_pdu(self, wait: bool = False, timeout: float | None = None) -> Any:  # noqa: FBT001, FBT002
        """Return the next primitive; with `wait`, read until there is one."""
        deadline = monotonic() + (timeout if timeout is not None else self._timeouts.idle)
        while wait and self.is_alive() and self.to_user_queue.empty() and self.pump(deadline):
            pass
        return super().receive_pdu(wait=False)

    def pump(self, deadline: float) -> bool:
        """Read until something has come or the thread is woken. Returns False after the deadline."""
        first = self.state_machine.current_state == "Sta2"
        try:
            while self._connection.has_data or self._connection.wait(deadline):
                self._read(self._request_deadline if first else monotonic() + self._timeouts.pdu)
                if self.assembler.is_idle or not self.is_alive() or not self.to_user_queue.empty():
                    break
                deadline = max(deadline, monotonic() + self._timeouts.idle)
        except DeadlineExceeded:
            if first:
                self._record.set_outcome("aborted", "no association request in time")
                self._post_event("Evt18")
            return False
        except Closed as error:
            self._connection_lost(str(error))
        except Interrupted:
            self._record.set_outcome("aborted", "shutdown")
            self._abort(ProtocolViolation(AbortReason.NOT_SPECIFIED, "shutdown"))
        return True

    def pump_available(self) -> None:
        """Read the PDUs that have begun to arrive, without waiting for others. One may be a C-CANCEL."""
        try:
            waiting = self.assoc.dimse.msg_queue
            while (
                self.is_alive() and waiting.qsize() < MAX_QUEUED_REQUESTS and self._connection.is_readable()
            ):
                self._read(monotonic() + self._timeouts.pdu)
        except Closed as error:
            self._connection_lost(str(error))
        except Interrupted:
            self._abort(ProtocolViolation(AbortReason.NOT_SPECIFIED, "shutdown"))

    def _read(self, deadline: float) -> None:
        """Read one PDU and act on it."""
        try:
            kind, length = PDU_HEADER.unpack(self._connection.read_exactly(PDU_HEADER.size, deadline))
            if kind == P_DATA_TF and self.state_machine.current_state in ("Sta6", "Sta7"):
                self._read_data(length, deadline)
            elif kind == P_DATA_TF:
                self._record.set_outcome("aborted", "data outside of an association")
                self._post_event("Evt10")
            else:
                self._read_other(kind, length, deadline)
        except ProtocolViolation as violation:
            self._abort(violation)
        except InvalidMessage as error:
            self._abort(ProtocolViolation(AbortReason.INVALID_PARAMETER_VALUE, str(error)))
        except DeadlineExceeded:
            if self.state_machine.current_state == "Sta2":
                raise
            self._abort(ProtocolViolation(AbortReason.NOT_SPECIFIED, "a PDU that did not end in time"))

    def _read_data(self, length: int, deadline: float) -> None:
        """Read a P-DATA-TF PDU (PS3.8 Section 9.3.5)."""
        if length > self._max_pdu:
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER_VALUE,
                f"a P-DATA-TF PDU of {length} bytes; offered {self._max_pdu}",
            )
        if not length:
            raise ProtocolViolation(AbortReason.INVALID_PARAMETER_VALUE, "a P-DATA-TF PDU without values")
        connection, assembler = self._connection, self.assembler
        while length:
            if length < PDV_HEADER.size:
                raise ProtocolViolation(
                    AbortReason.INVALID_PARAMETER_VALUE, "a presentation data value that is cut off"
                )
            size, context, control = PDV_HEADER.unpack(connection.read_exactly(PDV_HEADER.size, deadline))
            size -= CONTEXT_AND_CONTROL_LENGTH
            length -= PDV_HEADER.size
            if not 0 <= size <= length:
                raise ProtocolViolation(
                    AbortReason.INVALID_PARAMETER_VALUE, f"a presentation data value of {size + 2} bytes"
                )
            length -= size
            assembler.open(self._own_context(context), control)
            while size:
                fragment = connection.read_some(size, deadline)
                size -= len(fragment)
                assembler.write(fragment)
            assembler.close()

    def _read_other(self, kind: int, length: int, deadline: float) -> None:
        """Read a PDU of any other type."""
        if kind not in PDU_LENGTHS:
            raise ProtocolViolation(AbortReason.UNRECOGNIZED_PDU, f"a PDU of type {kind:02X}")
        least, most = PDU_LENGTHS[kind]
        if not least <= length <= most:
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER_VALUE, f"a PDU of type {kind:02X} with {length} bytes"
            )
        body = bytes(self._connection.read_exactly(length, deadline))
        self._answer_complete()  # before the end of the association
        try:
            if kind == A_ASSOCIATE_RQ:
                body = self._read_request(body)
            pdu, event = self._decode_pdu(bytearray(PDU_HEADER.pack(kind, len(body)) + body))
        except UnreadableRequest as error:
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER_VALUE, f"an association request with {error}"
            ) from error
        except Exception as error:
            # pynetdicom may raise anything for invalid bytes.
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER_VALUE, f"a PDU of type {kind:02X} that cannot be read"
            ) from error
        self._recv_pdu.put(pdu)
        self._post_event(event)

    def _read_request(self, body: bytes) -> bytes:
        """Return an association request as pynetdicom can read it. Raises UnreadableRequest."""
        if self.state_machine.current_state != "Sta2":
            return body  # the state machine will abort
        self._record.set_titles(*parse_titles(body))
        self.request = request = parse_request(body)
        if request.oddities:
            self._record.log.info("association_request_odd", oddities=request.oddities)
        if not request.is_version_1:
            self._record.set_outcome("rejected", "protocol version")
        return request.encoded

    def _own_context(self, proposed: int) -> int:
        """Return pynetdicom's id of an accepted presentation context. Raises ProtocolViolation."""
        own = self.request.contexts.get(proposed) if self.request else None
        if own is None or own not in self.assoc._accepted_cx:  # noqa: SLF001
            raise ProtocolViolation(
                AbortReason.INVALID_PARAMETER_VALUE, f"presentation context {proposed} was not accepted"
            )
        return own

    def _abort(self, violation: ProtocolViolation) -> None:
        """Abort as service provider, with the violation's reason (PS3.8 Section 9.2, AA-1 and AA-8)."""
        self._answer_complete()
        self._record.set_outcome("aborted", str(violation))
        self._reason = violation.reason
        self._post_event("Evt19")

    def abort_after_failure(self) -> None:
        """Abort as service provider because our own code has failed."""
        if self._may_send_data:
            self._reason = AbortReason.NOT_SPECIFIED
            self._post_event("Evt19")

    def _connection_lost(self, why: str) -> None:
        self._record.set_outcome(
            "aborted" if self._record.is_requested else "closed", f"connection lost: {why}"
        )
        self._post_event("Evt17")

    def _post_event(self, event: str) -> None:
        self.event_queue.put(event)
        self._run_events()

    def _run_events(self) -> None:
        """Let the state machine process all events and primitives."""
        if self._is_running_events:
            return  # called by a handler of an event; the loop below processes what it sent
        self._is_running_events = True
        try:
            while not self.event_queue.empty() or self._process_recv_primitive():
                self._run_event(self.event_queue.get(block=False))
        finally:
            self._is_running_events = False

    def _run_event(self, event: str) -> None:
        state = self.state_machine.current_state
        try:
            self.state_machine.do_action(event)
        except Exception:  # noqa: BLE001  pynetdicom may raise anything for an invalid request
            self.to_provider_queue.queue.clear()
            if event == "Evt6" and state == "Sta2":
                self._abort(
                    ProtocolViolation(
                        AbortReason.INVALID_PARAMETER_VALUE,
                        "an association request that cannot be understood",
                    )
                )
            self._kill_thread = True
        if self.state_machine.current_state in ("Sta1", "Sta13"):
            # Only the connection is left to be closed: the association's thread may end.
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
            memoryview(encoded)[PDU_HEADER.size :][REPEATED_FIELDS] = self.request.repeated
            cast("ConnectionSocket", self.socket).send(bytes(encoded))
            return
        if self.request and isinstance(pdu, pynetdicom.pdu.P_DATA_TF):
            for value in pdu.presentation_data_value_items:
                value.presentation_context_id = self.request.proposed_id(cast("int", value.context_id))
        super()._send(pdu)
