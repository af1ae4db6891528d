"""The DIMSE service provider: messages for pynetdicom's services."""

from collections.abc import Callable
from time import monotonic
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL, C_FIND
from pynetdicom.pdu_primitives import P_DATA

from scp.wire.command_set import C_CANCEL_RQ, Command, encode_answer
from scp.wire.pdus import COMMAND, LAST, InvalidMessage
from scp.wire.status import (
    IDENTIFIER_DOES_NOT_MATCH,
    INVALID_SOP_INSTANCE,
    MISSING_ATTRIBUTE,
    MISTYPED_ARGUMENT,
    MOVE_DESTINATION_UNKNOWN,
    NO_SUCH_ACTION_TYPE,
)

# PS3.7 Section E.1: Priority.
MEDIUM = 0

# Requests that are held in memory while a service runs; further ones stay in the socket. While we wait for a
# response that may be behind them, one more ends the association: it is outside the window that we grant.
MAX_QUEUED_REQUESTS = 16


# The status of a request by what is missing from it (PS3.7 Annex C; PS3.4 Table K.4-1).
STATUS_OF_MISSING = {
    "ModificationList": MISSING_ATTRIBUTE,
    "ActionTypeID": NO_SUCH_ACTION_TYPE,
    "RequestedSOPInstanceUID": INVALID_SOP_INSTANCE,
    "Identifier": IDENTIFIER_DOES_NOT_MATCH,
    "MoveDestination": MOVE_DESTINATION_UNKNOWN,
}


class MissingParameter(ValueError):
    """Raised when a request has a parameter missing; `status` is its answer."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"{missing} is missing")
        self.status = STATUS_OF_MISSING.get(missing, MISTYPED_ARGUMENT)


class DimseProvider(DIMSEServiceProvider):
    """The DIMSE service provider, without a thread: it reads the socket while it waits for a response.

    The peer may take `seconds` for a response. `pump` reads until a deadline (False: it has passed),
    `pump_available` without waiting. `send_command` sends a command set and a data set.
    """

    def __init__(
        self,
        assoc: Association,
        seconds: float,
        pump: Callable[[float], bool],
        pump_available: Callable[[], None],
        send_command: Callable[[int, bytes, bytes], None],
    ) -> None:
        super().__init__(assoc)
        self._seconds = seconds
        self._pump = pump
        self._pump_available = pump_available
        self._send_command = send_command
        # Requests of our own without a response yet: presentation context and message id.
        self._unanswered: set[tuple[int, int]] = set()

    def get_msg(self, block: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Return the next request, or when blocking the next response (context id, primitive)."""
        if not block:
            return super().get_msg(block=False)
        deadline = monotonic() + self._seconds
        while True:
            for item in list(self.msg_queue.queue):
                if item[1] is None or item[1].MessageIDBeingRespondedTo is not None:
                    self.msg_queue.queue.remove(item)
                    return item
            if not self.dul.is_alive() or not self._pump(deadline):
                return None, None

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message, and read what has arrived meanwhile."""
        request = primitive.MessageIDBeingRespondedTo
        if request is None:
            self._unanswered.add((context_id, primitive.MessageID))
        if isinstance(primitive, C_FIND) and request is not None and primitive.Identifier is not None:
            # One of thousands: pynetdicom takes longer to encode an answer than the index to find it.
            answer = encode_answer(str(primitive.AffectedSOPClassUID), request, primitive.Status or 0)
            self._send_command(context_id, answer, primitive.Identifier.getvalue())
        else:
            super().send_msg(primitive, context_id)
        self._pump_available()

    def deliver(self, context_id: int, command: Command, data: bytes) -> None:
        """Queue a message for pynetdicom's services. Raises InvalidMessage, MissingParameter."""
        is_request = not command.is_response and command.field != C_CANCEL_RQ
        if is_request and self.msg_queue.qsize() >= MAX_QUEUED_REQUESTS:
            raise InvalidMessage(f"more than {MAX_QUEUED_REQUESTS} requests without an answer")
        fragments = P_DATA()
        fragments.presentation_data_value_list.append((context_id, bytes([COMMAND | LAST]) + command.encoded))
        if data:
            fragments.presentation_data_value_list.append((context_id, bytes([LAST]) + data))
        message = DIMSEMessage()
        try:
            message.decode_msg(fragments, self.assoc)
            primitive: Any = message.message_to_primitive()
            _set_uids(primitive, command)
        except Exception as error:
            # pynetdicom may raise anything for invalid bytes.
            raise InvalidMessage("a message that cannot be read") from error
        if isinstance(primitive, C_CANCEL):
            if len(self.cancel_req) < MAX_QUEUED_REQUESTS:
                self.cancel_req[cast("int", primitive.MessageIDBeingRespondedTo)] = primitive
        else:
            self._check(context_id, command, primitive)
            self.msg_queue.put((context_id, primitive))

    def _check(self, context_id: int, command: Command, primitive: Any) -> None:
        """Check a message which pynetdicom would drop without an answer."""
        if command.is_response:
            if (context_id, command.message_id) not in self._unanswered:
                raise InvalidMessage(f"an unexpected response {command.field:04X}")
            self._unanswered.discard((context_id, command.message_id))
            return
        if "Priority" in primitive.REQUEST_KEYWORDS and primitive.Priority is None:
            primitive.Priority = MEDIUM  # it is not used
        for keyword in primitive.REQUEST_KEYWORDS:
            is_data_set = keyword in ("Identifier", "ModificationList")
            if getattr(primitive, keyword) is None or (is_data_set and not command.has_data_set):
                raise MissingParameter(keyword)


def _set_uids(primitive: Any, command: Command) -> None:
    """Give a request the UIDs that were checked: pynetdicom takes the first SOP Class that it finds."""
    if not command.is_response and command.field != C_CANCEL_RQ:
        primitive.AffectedSOPClassUID = None
        setattr(primitive, f"{command.uid_prefix}SOPClassUID", command.sop_class_uid)
        if command.sop_instance_uid:
            setattr(primitive, f"{command.uid_prefix}SOPInstanceUID", command.sop_instance_uid)
