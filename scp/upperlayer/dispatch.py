"""The dispatch of messages: C-STORE to the store service, everything else to pynetdicom's services."""

from collections.abc import Callable, Mapping
from functools import partial

from pynetdicom.presentation import PresentationContext

from scp.association.contexts import VERIFICATION, allows_sop_class, is_storage
from scp.observing.association_record import AssociationRecord
from scp.services.mpps import MPPS_RETRIEVE
from scp.services.store import StoreGroup
from scp.upperlayer.dimse import MissingParameter
from scp.upperlayer.message_assembler import Operation
from scp.wire.command_set import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_FIND_RQ,
    C_GET_RQ,
    C_MOVE_RQ,
    C_STORE_RQ,
    C_STORE_RSP,
    N_ACTION_RQ,
    N_CREATE_RQ,
    N_GET_RQ,
    N_SET_RQ,
    Command,
    encode_response,
)
from scp.wire.pdus import InvalidMessage
from scp.wire.status import (
    CANNOT_UNDERSTAND,
    NO_SUCH_SOP_CLASS,
    RESOURCE_LIMITATION,
    SOP_CLASS_NOT_SUPPORTED,
    UNRECOGNIZED_OPERATION,
)

# The longest data set of a message other than C-STORE, in bytes: such data sets are held in memory. A storage
# commitment of 100,000 instances takes 14 MB.
MESSAGE_LENGTH = 16 * 1024 * 1024

# The requests that each service answers, by its name in [[peers]]; all others are answered as unrecognized
# (PS3.4 Sections C.1, F.7.1, J.3.1, K.1.2).
OPERATIONS = {
    "worklist": frozenset({C_FIND_RQ, C_CANCEL_RQ}),
    "query": frozenset({C_FIND_RQ, C_CANCEL_RQ}),
    "retrieve": frozenset({C_MOVE_RQ, C_GET_RQ, C_CANCEL_RQ}),
    "mpps": frozenset({N_CREATE_RQ, N_SET_RQ}),
    "commitment": frozenset({N_ACTION_RQ}),
}

# Of a SOP Class that has other operations than its service (PS3.4 Section F.8.1).
_OF_SOP_CLASS = {MPPS_RETRIEVE: frozenset({N_GET_RQ})}

# A bit of the command fields of DIMSE-N, whose refusal has another status (PS3.7 Section C.5.12).
_DIMSE_N = 0x0100

Respond = Callable[[bytes], None]


class NoOperation:
    """Does nothing: for a C-CANCEL where nothing can be cancelled."""

    def write(self, fragment: memoryview) -> None:
        """Drop the bytes."""

    def end(self) -> None:
        """Do nothing."""

    def discard(self, reason: str) -> None:
        """Do nothing."""


class RefusedOperation(NoOperation):
    """A request that is not served: its data set is dropped, then it is answered."""

    def __init__(
        self, command: Command, status: int, comment: str, record: AssociationRecord, respond: Respond
    ) -> None:
        self._command = command
        self._status = status
        self._comment = comment
        self._record = record
        self._respond = respond

    def end(self) -> None:
        """Log and answer."""
        self._record.log.warning(
            "operation_refused",
            command=f"{self._command.field:04X}",
            status=f"{self._status:04X}",
            why=self._comment,
        )
        self._record.count("refused")
        self._respond(encode_response(self._command, self._status, self._comment))


class StoreResponseOperation(NoOperation):
    """The response to a C-STORE of ours (C-GET)."""

    def __init__(self, stored: Callable[[], None]) -> None:
        self._stored = stored

    def end(self) -> None:
        """Take the response."""
        self._stored()


class ServiceOperation(NoOperation):
    """A message for pynetdicom's services. Its data set is collected in memory."""

    def __init__(self, deliver: Respond, refuse: Callable[[int, str], Operation]) -> None:
        self._deliver = deliver
        self._refuse = refuse
        self._data = bytearray()
        self._is_too_long = False

    def write(self, fragment: memoryview) -> None:
        """Collect the bytes, up to the limit."""
        self._is_too_long = self._is_too_long or len(self._data) + len(fragment) > MESSAGE_LENGTH
        if self._is_too_long:
            self._data.clear()
        else:
            self._data += fragment

    def end(self) -> None:
        """Deliver the message, or refuse it."""
        if self._is_too_long:
            self._refuse(RESOURCE_LIMITATION, "the data set is too long").end()
            return
        try:
            self._deliver(bytes(self._data))
        except MissingParameter as error:
            self._refuse(error.status, str(error)).end()


class Dispatcher:
    """Decides how each message of one association is served.

    `send` takes the id of a presentation context and an encoded command set. `deliver` takes the id, the
    command and the data set of a message for pynetdicom's services. `stored` takes the responses to C-STORE
    requests of ours, and raises InvalidMessage where there was none.
    """

    def __init__(
        self,
        stores: StoreGroup,
        record: AssociationRecord,
        services: Mapping[str, str],
        send: Callable[[int, bytes], None],
        deliver: Callable[[int, Command, bytes], None],
        stored: Callable[[int, Command], None] | None = None,
    ) -> None:
        self._stores = stores
        self._record = record
        self._services = services
        self._send = send
        self._deliver = deliver
        self._stored = stored

    def begin(self, context_id: int, context: PresentationContext, command: Command) -> Operation:
        """Return the operation that a command begins. Raises InvalidMessage for unexpected responses."""
        abstract = str(context.abstract_syntax)
        refusal = None if command.is_response else self._refusal(context, abstract, command)
        if command.field == C_STORE_RQ and refusal is None:
            syntax = str(context.transfer_syntax[0])
            send = partial(self._send, context_id)
            return self._stores.begin(command, abstract, syntax, send)
        # Answers keep the order of the requests.
        self._stores.flush()
        if command.field == C_STORE_RSP and context.as_scu and self._stored is not None:
            return StoreResponseOperation(partial(self._stored, context_id, command))
        if command.is_response:
            # Only the services send requests of our own, and check what answers them.
            if abstract not in self._services:
                raise InvalidMessage(f"an unexpected response {command.field:04X}")
        elif command.field == C_CANCEL_RQ and C_CANCEL_RQ not in operations(abstract, self._services):
            return NoOperation()
        elif refusal:
            return self._refuse(context_id, command, *refusal)
        return self._serve(context_id, command)

    def _serve(self, context_id: int, command: Command) -> Operation:
        return ServiceOperation(
            partial(self._deliver, context_id, command), partial(self._refuse, context_id, command)
        )

    def _refuse(self, context_id: int, command: Command, status: int, comment: str) -> Operation:
        return RefusedOperation(command, status, comment, self._record, partial(self._send, context_id))

    def _refusal(
        self, context: PresentationContext, abstract: str, command: Command
    ) -> tuple[int, str] | None:
        """Return status and comment if a command may not be served in its context (PS3.7 Annex C)."""
        if command.field not in operations(abstract, self._services):
            return UNRECOGNIZED_OPERATION, "not an operation of this SOP Class"
        if command.field != C_CANCEL_RQ and not allows_sop_class(
            abstract, command.sop_class_uid, self._services
        ):
            status = NO_SUCH_SOP_CLASS if command.field & _DIMSE_N else SOP_CLASS_NOT_SUPPORTED
            what = "differs from the presentation context's" if command.sop_class_uid else "is missing"
            return status, f"SOP Class {what}"
        if command.field == C_STORE_RQ and not context.as_scp:
            return SOP_CLASS_NOT_SUPPORTED, "this context is for objects from us"
        if command.field == C_STORE_RQ and not command.has_data_set:
            return CANNOT_UNDERSTAND, "C-STORE without a data set"
        return None


def operations(abstract: str, services: Mapping[str, str]) -> frozenset[int]:
    """Return the requests that the service of a SOP Class takes."""
    if abstract in services:
        return _OF_SOP_CLASS.get(abstract) or OPERATIONS.get(services[abstract], frozenset())
    if abstract == VERIFICATION:
        return frozenset({C_ECHO_RQ})
    return frozenset({C_STORE_RQ}) if is_storage(abstract) else frozenset()
