"""Messages for pynetdicom's services on the blocking upper layer: put together, and waited for by reading."""

from collections.abc import Callable
from time import monotonic
from typing import Any, cast

from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_CANCEL
from pynetdicom.pdu_primitives import P_DATA

from scp.association import ServedAssociation
from scp.inbox import COMMAND, LAST, Disorder

# Requests that wait in memory while a service runs; further ones wait in the socket.
WAITING = 16


class Messages(DIMSEServiceProvider):
    """The DIMSE service provider: waits by reading, takes no request for a response, starts no threads.

    `pump` reads until a deadline (False: too late), `pump_what_is_there` without waiting.
    """

    def __init__(
        self,
        assoc: ServedAssociation,
        pump: Callable[[float], bool],
        pump_what_is_there: Callable[[], None],
    ) -> None:
        super().__init__(assoc)
        self._timeouts = assoc.desk.dicom.timeouts
        self._pump = pump
        self._pump_what_is_there = pump_what_is_there

    def get_msg(self, block: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Return the next request, or when blocking the next response (context id, primitive)."""
        if not block:
            return super().get_msg(block=False)
        deadline = monotonic() + self._timeouts.pdu
        while True:
            for item in list(self.msg_queue.queue):
                if item[1] is None or item[1].MessageIDBeingRespondedTo is not None:
                    self.msg_queue.queue.remove(item)
                    return item
            if not self.dul.is_alive() or not self._pump(deadline):
                return None, None

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """Send a message, and take in what has arrived meanwhile."""
        super().send_msg(primitive, context_id)
        self._pump_what_is_there()

    def deliver(self, context_id: int, command: bytes, data: bytes) -> None:
        """Take a whole message for pynetdicom's services. Raises Disorder when pynetdicom cannot read it."""
        fragments = P_DATA()
        fragments.presentation_data_value_list.append((context_id, bytes([COMMAND | LAST]) + command))
        if data:
            fragments.presentation_data_value_list.append((context_id, bytes([LAST]) + data))
        message = DIMSEMessage()
        try:
            message.decode_msg(fragments, self.assoc)
            primitive: Any = message.message_to_primitive()
        except Exception as error:
            # pynetdicom raises whatever its decoders happen to meet.
            raise Disorder("a message that cannot be read") from error
        if isinstance(primitive, C_CANCEL):
            if len(self.cancel_req) < WAITING:
                self.cancel_req[cast("int", primitive.MessageIDBeingRespondedTo)] = primitive
        else:
            self.msg_queue.put((context_id, primitive))
