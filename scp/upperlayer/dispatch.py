"""What becomes of each message: storage is served here, all else by pynetdicom's services."""

from collections.abc import Callable, Mapping
from functools import partial

from pynetdicom.presentation import PresentationContext

from scp.association.contexts import VERIFICATION, fits, is_storage
from scp.observing.association_record import AssociationRecord
from scp.services.store import Reception, StoreService
from scp.upperlayer.dimse import Incomplete
from scp.upperlayer.message_assembler import Operation
from scp.wire.command_set import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_FIND_RQ,
    C_GET_RQ,
    C_MOVE_RQ,
    C_STORE_RQ,
    N_ACTION_RQ,
    N_CREATE_RQ,
    N_SET_RQ,
    Command,
    response,
)
from scp.wire.pdus import Disorder
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

# What each service answers, by its name in [[peers]]; the standard's other operations of its SOP Classes, and
# those of other ones, are unrecognized (PS3.4 Sections C.1, F.7.1, J.3.1, K.1.2).
OPERATIONS = {
    "worklist": frozenset({C_FIND_RQ, C_CANCEL_RQ}),
    "query": frozenset({C_FIND_RQ, C_CANCEL_RQ}),
    "retrieve": frozenset({C_MOVE_RQ, C_GET_RQ, C_CANCEL_RQ}),
    "mpps": frozenset({N_CREATE_RQ, N_SET_RQ}),
    "commitment": frozenset({N_ACTION_RQ}),
}

# Command fields of DIMSE-N, whose refusal has a status of its own (PS3.7 Section C.5.18).
_DIMSE_N = 0x0100

Send = Callable[[bytes], None]


class Storing:
    """A C-STORE: its data set goes to the store service as it comes."""

    def __init__(self, command: Command, reception: Reception, record: AssociationRecord, send: Send) -> None:
        self._command = command
        self._reception = reception
        self._record = record
        self._send = send
        # The store service's method itself, since this is called for every few kilobytes.
        self.write = reception.write

    def end(self) -> None:
        """Keep the object, and answer when it is kept."""
        answer = self._reception.finish()
        self._record.did("stores", answer.size)
        self._send(response(self._command, answer.status, answer.comment))

    def discard(self, reason: str) -> None:
        """Forget the object."""
        self._reception.discard(reason)


class Refused:
    """A request that is not served: its data set is thrown away, and then it is answered."""

    def __init__(
        self, command: Command, status: int, comment: str, record: AssociationRecord, send: Send
    ) -> None:
        self._answer = response(command, status, comment)
        self._record = record
        self._send = send
        self._event = {"command": f"{command.field:04X}", "status": f"{status:04X}", "why": comment}

    def write(self, fragment: memoryview) -> None:
        """Throw the bytes away."""

    def end(self) -> None:
        """Answer."""
        self._record.log.warning("operation_refused", **self._event)
        self._record.did("refused")
        self._send(self._answer)

    def discard(self, reason: str) -> None:
        """Nothing is to be undone."""


class Ignored:
    """A message that has no answer and no meaning here: a C-CANCEL for nothing."""

    def write(self, fragment: memoryview) -> None:
        """Throw the bytes away."""

    def end(self) -> None:
        """Do nothing."""

    def discard(self, reason: str) -> None:
        """Do nothing."""


class Delivered:
    """A message for pynetdicom's services, put together in memory."""

    def __init__(self, deliver: Send, refuse: Callable[[int, str], Operation]) -> None:
        self._deliver = deliver
        self._refuse = refuse
        self._data = bytearray()
        self._full = False

    def write(self, fragment: memoryview) -> None:
        """Keep the bytes, up to the limit."""
        self._full = self._full or len(self._data) + len(fragment) > MESSAGE_LENGTH
        if self._full:
            self._data.clear()
        else:
            self._data += fragment

    def end(self) -> None:
        """Hand the message over, or answer why not."""
        if self._full:
            self._refuse(RESOURCE_LIMITATION, "the data set is too long").end()
            return
        try:
            self._deliver(bytes(self._data))
        except Incomplete as error:
            self._refuse(error.status, str(error)).end()

    def discard(self, reason: str) -> None:
        """Nothing is to be undone."""


class Dispatcher:
    """Decides what becomes of the messages of one association.

    `send` is given a presentation context's id and an encoded command set, `deliver` these, the command and
    the data set of a message for pynetdicom's services.
    """

    def __init__(
        self,
        store: StoreService,
        record: AssociationRecord,
        services: Mapping[str, str],
        send: Callable[[int, bytes], None],
        deliver: Callable[[int, Command, bytes], None],
    ) -> None:
        self._store = store
        self._record = record
        self._services = services
        self._send = send
        self._deliver = deliver

    def begin(self, context_id: int, context: PresentationContext, command: Command) -> Operation:
        """Return the operation that a command begins. Raises Disorder for responses nobody waits for."""
        abstract = str(context.abstract_syntax)
        if command.is_response:
            # Only services request anything, and they know what they wait for.
            if abstract not in self._services:
                raise Disorder(f"a response {command.field:04X} that nobody waits for")
            return self._delivered(context_id, command)
        if command.field == C_CANCEL_RQ and C_CANCEL_RQ not in _operations(abstract, self._services):
            return Ignored()
        if why := self._refusal(context, abstract, command):
            return self._refused(context_id, command, *why)
        if command.field == C_STORE_RQ:
            syntax = str(context.transfer_syntax[0])
            info = self._record.info
            reception = self._store.begin(info, abstract, command.sop_instance_uid, syntax)
            return Storing(command, reception, self._record, partial(self._send, context_id))
        return self._delivered(context_id, command)

    def _delivered(self, context_id: int, command: Command) -> Operation:
        return Delivered(
            partial(self._deliver, context_id, command), partial(self._refused, context_id, command)
        )

    def _refused(self, context_id: int, command: Command, status: int, comment: str) -> Operation:
        return Refused(command, status, comment, self._record, partial(self._send, context_id))

    def _refusal(
        self, context: PresentationContext, abstract: str, command: Command
    ) -> tuple[int, str] | None:
        """Return status and comment if a command may not be served in its context (PS3.7 Annex C)."""
        if command.field not in _operations(abstract, self._services):
            return UNRECOGNIZED_OPERATION, "not an operation of this SOP Class"
        if command.field != C_CANCEL_RQ and not fits(abstract, command.sop_class_uid, self._services):
            status = NO_SUCH_SOP_CLASS if command.field & _DIMSE_N else SOP_CLASS_NOT_SUPPORTED
            what = "differs from the presentation context's" if command.sop_class_uid else "is missing"
            return status, f"SOP Class {what}"
        if command.field == C_STORE_RQ and not context.as_scp:
            return SOP_CLASS_NOT_SUPPORTED, "this context is for objects from us"
        if command.field == C_STORE_RQ and not command.has_data_set:
            return CANNOT_UNDERSTAND, "C-STORE without a data set"
        return None


def _operations(abstract: str, services: Mapping[str, str]) -> frozenset[int]:
    """Return the requests that a SOP Class knows."""
    if abstract in services:
        return OPERATIONS.get(services[abstract], frozenset())
    if abstract == VERIFICATION:
        return frozenset({C_ECHO_RQ})
    return frozenset({C_STORE_RQ}) if is_storage(abstract) else frozenset()
