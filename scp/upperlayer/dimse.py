"""Messages for pynetdicom's services: put together, and waited for by reading."""

from collections.abc import Callable
from time import monotonic
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.pdu_primitives import P_DATA

from scp.wire.command_set import C_CANCEL_RQ, Command
from scp.wire.pdus import COMMAND, LAST, Disorder
from scp.wire.status import IDENTIFIER_DOES_NOT_MATCH, MISTYPED_ARGUMENT

# PS3.7 Section E.1: Priority.
MEDIUM = 0

# Requests that wait in memory while a service runs; further ones wait in the socket.
WAITING = 16


# What is missing from a request decides on its status (PS3.7 Annex C; PS3.4 Table K.4-1).
MISSING = {
    "ModificationList": 0x0120,
    "ActionTypeID": 0x0123,
    "RequestedSOPInstanceUID": 0x0117,
    "Identifier": IDENTIFIER_DOES_NOT_MATCH,
}


class Incomplete(ValueError):
    """A request without something that it needs; `status` says so."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"{missing} is missing")
        self.status = MISSING.get(missing, MISTYPED_ARGUMENT)


class Messages(DIMSEServiceProvider):
    """The DIMSE service provider: waits by reading, takes no request for a response, starts no threads.

    A response of the peer may take `seconds`. `pump` reads until a deadline (False: too late),
    `pump_what_is_there` without waiting.
    """

    def __init__(
        self,
        assoc: Association,
        seconds: float,
        pump: Callable[[float], bool],
        pump_what_is_there: Callable[[], None],
    ) -> None:
        super().__init__(assoc)
        self._seconds = seconds
        self._pump = pump
        self._pump_what_is_there = pump_what_is_there
        # Requests of our own that have no response yet: presentation context and message id.
        self._waiting: set[tuple[int, int]] = set()

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
        """Send a message, and take in what has arrived meanwhile."""
        if primitive.MessageIDBeingRespondedTo is None:
            self._waiting.add((context_id, primitive.MessageID))
        super().send_msg(primitive, context_id)
        self._pump_what_is_there()

    def deliver(self, context_id: int, command: Command, data: bytes) -> None:
        """Take a whole message for pynetdicom's services.

        Raises Disorder when pynetdicom cannot read it or nobody waits for it, and Incomplete.
        """
        fragments = P_DATA()
        fragments.presentation_data_value_list.append((context_id, bytes([COMMAND | LAST]) + command.encoded))
        if data:
            fragments.presentation_data_value_list.append((context_id, bytes([LAST]) + data))
        message = DIMSEMessage()
        try:
            message.decode_msg(fragments, self.assoc)
            primitive: Any = message.message_to_primitive()
            _name(primitive, command)
        except Exception as error:
            # pynetdicom raises whatever its decoders happen to meet.
            raise Disorder("a message that cannot be read") from error
        if isinstance(primitive, C_CANCEL):
            if len(self.cancel_req) < WAITING:
                self.cancel_req[cast("int", primitive.MessageIDBeingRespondedTo)] = primitive
        else:
            self._check(context_id, command, primitive)
            self.msg_queue.put((context_id, primitive))

    def _check(self, context_id: int, command: Command, primitive: Any) -> None:
        """See that a message is awaited, or will be answered: what else comes pynetdicom only drops."""
        if command.is_response:
            if (context_id, command.message_id) not in self._waiting:
                raise Disorder(f"a response {command.field:04X} that nobody waits for")
            self._waiting.discard((context_id, command.message_id))
            return
        if "Priority" in primitive.REQUEST_KEYWORDS and primitive.Priority is None:
            primitive.Priority = MEDIUM  # nothing depends on it
        for keyword in primitive.REQUEST_KEYWORDS:
            is_data_set = keyword in ("Identifier", "ModificationList")
            if getattr(primitive, keyword) is None or (is_data_set and not command.has_data_set):
                raise Incomplete(keyword)


def _name(primitive: Any, command: Command) -> None:
    """Give a request the UIDs that were checked: pynetdicom goes by the first SOP Class that it finds."""
    if not command.is_response and command.field != C_CANCEL_RQ:
        primitive.AffectedSOPClassUID = None
        setattr(primitive, f"{command.kind}SOPClassUID", command.sop_class_uid)
        if command.sop_instance_uid:
            setattr(primitive, f"{command.kind}SOPInstanceUID", command.sop_instance_uid)
