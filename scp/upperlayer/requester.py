"""The peer of a C-MOVE or C-GET on its own association: what is sent to it, and its C-CANCEL."""

from collections.abc import Callable
from functools import cached_property
from time import monotonic

from pynetdicom.association import Association

from scp.association.client import RESPONSE_SECONDS
from scp.association.store_association import AssociationLost, MessageIds, StoreResponse
from scp.observing.association_record import AssociationRecord
from scp.upperlayer.dul import UpperLayer
from scp.wire.command_set import Command, response_status
from scp.wire.pdus import BytesSource, DataSource, InvalidMessage

ENDED = "the requester's association has ended"


class Requester(MessageIds):
    """A `scp.services.retrieve.RetrieveRequester`; used by the association's thread, but for `interrupt`."""

    def __init__(self, association: Association, dul: UpperLayer, record: AssociationRecord) -> None:
        super().__init__()
        self._association = association
        self._dul = dul
        self.record = record
        self._expected: tuple[int, int] | None = None
        self._response: StoreResponse | None = None
        self._interrupted = False
        self.on_interrupt: Callable[[], None] | None = None

    @cached_property  # it is the same from the negotiation on
    def contexts(self) -> dict[str, dict[str, int]]:
        """The contexts in which the peer is the SCP of storage (PS3.7 Section D.3.3.4)."""
        found: dict[str, dict[str, int]] = {}
        for context in self._association.accepted_contexts:
            if context.as_scu and context.context_id is not None:
                syntaxes = found.setdefault(str(context.abstract_syntax), {})
                syntaxes.setdefault(str(context.transfer_syntax[0]), context.context_id)
        return found

    def is_gone(self) -> bool:
        """Read what has arrived, without waiting; return whether the association has ended or is to end."""
        self._dul.pump_available()
        has_ended = self._dul.peek_next_pdu() is not None or not self._dul.is_alive()
        return self._interrupted or has_ended or not self._association.is_established

    def is_cancelled(self, message_id: int) -> bool:
        """Whether a C-CANCEL for this request has been read (PS3.7 Section 9.3.2.3)."""
        return message_id in self._association.dimse.cancel_req

    def respond(self, context_id: int, encoded: bytes, identifier: bytes = b"") -> None:
        """Send a response; nothing where the association has ended."""
        data = BytesSource(identifier) if identifier else None
        self._dul.send_message(context_id, encoded, data)

    def store(self, context_id: int, message_id: int, request: bytes, data: DataSource) -> StoreResponse:
        """See StoreChannel."""
        self._expected, self._response = (context_id, message_id), None
        try:
            if not self._dul.send_message(context_id, request, data):
                raise AssociationLost(ENDED)
            return self._wait()
        finally:
            self._expected = None

    def _wait(self) -> StoreResponse:
        deadline = monotonic() + RESPONSE_SECONDS
        while not self.is_gone():
            if self._response is not None:
                return self._response
            if not self._dul.pump(deadline):
                self.record.set_outcome("aborted", "no response to a C-STORE in time")
                self._association.abort()
        if self._response is not None:
            return self._response
        raise AssociationLost(ENDED)

    def stored(self, context_id: int, command: Command) -> None:
        """Take the response to a C-STORE. Raises InvalidMessage where none is expected."""
        if self._expected != (context_id, command.message_id):
            raise InvalidMessage(f"an unexpected response {command.field:04X}")
        self._expected = None
        self._response = StoreResponse(*response_status(command))

    def interrupt(self) -> None:
        """End the retrieval that runs. Called from any thread, any number of times."""
        self._interrupted = True
        if on_interrupt := self.on_interrupt:
            on_interrupt()
