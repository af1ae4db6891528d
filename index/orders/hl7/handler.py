"""What is done with a message: orders kept, patients updated and merged, and the answer to it."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from index.database import Database
from index.errors import DatabaseFault, NotKept
from index.orders.hl7.acknowledging import acknowledge
from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.mapping import Overrides
from index.orders.hl7.message import Message, path
from index.orders.hl7.requests import Request, merges, patient_of, requests
from index.orders.models import ImagingOrder
from index.orders.patients import Patients
from index.orders.records import ENDED, NewOrder, Source
from index.orders.store import OrderStore
from index.settings import Hl7Sender

log = structlog.get_logger(__name__)

ORDERS = ("ORM^O01", "OMI^O23", "OMG^O19")
UPDATES = ("A01", "A04", "A05", "A08", "A28", "A31")
"""ADT events that carry what is known of a patient now. A08 is the update; the others say the same."""
MERGES = ("A18", "A34", "A40")
"""A40, and what it was called before HL7 2.3.1."""


class Handler:
    """Takes messages one at a time, each with everything that it asks for or nothing of it."""

    def __init__(
        self, database: Database, store: OrderStore, patients: Patients, senders: Sequence[Hl7Sender] = ()
    ) -> None:
        self._database = database
        self._store = store
        self._patients = patients
        self._senders = senders
        # What an order was called must not change between being looked up and being written.
        self._one_at_a_time = threading.Lock()

    def handle(self, content: bytes) -> tuple[str, bytes]:
        """Do what a message asks for; return the acknowledgement code and message. Raises DatabaseFault."""
        message: Message | None = None
        fault: BadMessage | None = None
        try:
            message = self._parse(content)
            with self._one_at_a_time:
                self._do(message)
        except BadMessage as error:
            fault = error
            message = message or _header(content)
        except NotKept as error:
            fault = BadMessage(Code.INTERNAL, "MSH", f"cannot be kept now: {error}")
        except DatabaseFault:
            raise
        except Exception:  # whatever one message brings up must neither stop the listener nor lose the answer
            log.exception("hl7_failed")
            fault = BadMessage(Code.INTERNAL, "MSH", "the message brought up an internal error")
        answer, acknowledgement = acknowledge(message, fault)
        self._say(message, answer, fault)
        return answer, acknowledgement

    def _say(self, message: Message | None, answer: str, fault: BadMessage | None) -> None:
        msh = message.first("MSH") if message else None
        facts: dict[str, Any] = {"answer": answer}
        if message:
            facts["kind"] = f"{message.value(msh, 9, 1)}^{message.value(msh, 9, 2)}"
            facts |= {"control_id": message.value(msh, 10), "sender": _sender(message)}
        if fault:
            log.warning("hl7", **facts, segment=fault.segment, field=fault.field, error=str(fault.code))
        else:
            log.info("hl7", **facts)

    def _parse(self, content: bytes) -> Message:
        """Take a message apart, with the character set of its sender where it names none itself."""
        charset = ""
        if any(sender.charset for sender in self._senders):
            charset = self._sender_of(Message(content, header_only=True)).charset
        return Message(content, charset)

    def _sender_of(self, message: Message) -> Hl7Sender:
        msh = message.first("MSH")
        application, facility = message.value(msh, 3, 1), message.value(msh, 4, 1)
        for sender in self._senders:
            if sender.application in ("", application) and sender.facility in ("", facility):
                return sender
        return Hl7Sender()

    def _do(self, message: Message) -> None:
        msh = message.first("MSH")
        kind, event = message.value(msh, 9, 1), message.value(msh, 9, 2)
        if f"{kind}^{event}" not in ORDERS and kind not in ("ADT", "ORM"):
            raise BadMessage(
                Code.MESSAGE_TYPE,
                "MSH-9",
                f"{kind}^{event} is none of {', '.join((*ORDERS, 'ADT'))}",
                reject=True,
            )
        overrides = {keyword: path(place) for keyword, place in self._sender_of(message).map.items()}
        if kind != "ADT":
            self._put(message, overrides)
        elif event in UPDATES:
            self._patients.update(patient_of(message, overrides))
        elif event in MERGES:
            self._patients.merge_all(merges(message))
        else:
            allowed = ", ".join((*UPDATES, *MERGES))
            raise BadMessage(Code.EVENT, "MSH-9", f"ADT event {event!r} is none of {allowed}", reject=True)

    def _put(self, message: Message, overrides: Overrides) -> None:
        sender = _sender(message)
        orders = [self._order(request, sender, message.charset) for request in requests(message, overrides)]
        self._store.put_all(orders)

    def _order(self, request: Request, sender: str, charset: str) -> NewOrder:
        known = self._identity(request, sender)
        if known is None and request.status in ENDED and not request.is_new:
            raise BadMessage(
                Code.UNKNOWN_KEY,
                "ORC-2",
                "no order has this placer, filler or accession number",
                number=request.place,
            )
        placer, filler, procedure = request.numbers
        accession = str(request.attributes.get("AccessionNumber") or "")
        identity = known or "|".join((placer or filler or accession, procedure))
        return NewOrder(
            Source.HL7,
            sender,
            identity,
            request.patient,
            request.attributes,
            request.steps,
            request.status,
            charset,
            partial=known is not None,
        )

    def _identity(self, request: Request, sender: str) -> str | None:
        """Return what an order that a message means was called when it came."""
        placer, filler, procedure = request.numbers
        table = ImagingOrder
        numbers: Mapping[Any, str] = {
            table.placer: placer,
            table.filler: filler,
            table.accession: str(request.attributes.get("AccessionNumber") or ""),
        }
        query = table.select(table.identity).where((table.source == Source.HL7) & (table.sender == sender))
        for column, number in numbers.items():
            rows = self._database.rows(query.where(column == number).order_by(table.id)) if number else []
            for (identity,) in rows:
                told = str(identity).rpartition("|")[2]
                if not procedure or told in ("", procedure):
                    return str(identity)
        return None


def _header(content: bytes) -> Message | None:
    """Return a message as far as an answer needs it, where it cannot be decoded."""
    try:
        return Message(content, header_only=True)
    except BadMessage:
        return None


def _sender(message: Message) -> str:
    msh = message.first("MSH")
    return f"{message.value(msh, 3, 1)}|{message.value(msh, 4, 1)}"
