"""What is done with a message: orders kept, patients updated and merged, and the answer to it."""

import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import structlog

from index.database.connection import Database
from index.errors import DatabaseFault, NotKept
from index.orders.hl7 import adt
from index.orders.hl7.acknowledging import acknowledge, header_of
from index.orders.hl7.controls import ENDING, EVENTS, Action, Event
from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.finding import Finder, KnownOrder, is_patient
from index.orders.hl7.mapping import Overrides
from index.orders.hl7.message import Message, path
from index.orders.hl7.requests import Request, requests
from index.orders.hl7.settings import Hl7Sender
from index.orders.patients.identities import IDENTITY
from index.orders.patients.merges import Ambiguous, Patients
from index.orders.records import NewOrder, Source, short_id
from index.orders.store import OrderStore

log = structlog.get_logger(__name__)

# Between two orders of one message: who waits for the lock gets it.
_TURN_SECONDS = 0.001
# Characters of MSH-10 in the log; the standard has 20 (HL7 v2.5.1 Section 2.15.9.10).
_LOGGED = 80

ORDERS = ("ORM^O01", "OMI^O23", "OMG^O19")


class Handler:
    """Takes messages one at a time: what one asks for is understood as a whole before any of it is done."""

    def __init__(
        self, database: Database, store: OrderStore, patients: Patients, senders: Sequence[Hl7Sender] = ()
    ) -> None:
        self._database = database
        self._store = store
        self._patients = patients
        self._senders = senders
        self._finder = Finder(database)
        # What an order is called must not change between being looked up and being written. Held for one
        # order, so that no message keeps other feeds waiting.
        self._one_at_a_time = threading.Lock()

    def handle(self, content: bytes) -> tuple[str, bytes]:
        """Do what a message asks for; return the acknowledgement code and message. Raises DatabaseFault."""
        message: Message | None = None
        fault: BadMessage | None = None
        try:
            message = self._parse(content)
            self._do(message)
        except BadMessage as error:
            fault = error
            message = message or header_of(content)
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
            facts |= {"control_id": message.value(msh, 10)[:_LOGGED], "sender": _sender(message)}
        if fault:
            log.warning("hl7", **facts, segment=fault.segment, field=fault.field, error=str(fault.code))
        else:
            log.info("hl7", **facts)

    def _parse(self, content: bytes) -> Message:
        """Take a message apart, with the character set that is configured for its sender, if any."""
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
        if kind == "ADT":
            self._follow(message, event, overrides)
        else:
            self._put(message, overrides)

    def _follow(self, message: Message, event: str, overrides: Overrides) -> None:
        wanted = EVENTS.get(event)
        if wanted is None:
            raise BadMessage(
                Code.EVENT,
                "MSH-9",
                f"ADT event {event!r} is none of {', '.join(sorted(EVENTS))}",
                reject=True,
            )
        if wanted is Event.UNABLE:
            raise BadMessage(Code.EVENT, "MSH-9", f"ADT event {event} cannot be followed")
        local = self._patients.local
        try:
            if wanted is Event.UPDATE:
                self._patients.update(adt.update_of(message, overrides, local))
            elif wanted is Event.MERGE:
                self._patients.merge_all(adt.merges(message, local))
            elif wanted is Event.UNLINK:
                self._patients.unlink(*adt.unlinked(message, overrides, local))
        except Ambiguous as error:
            place = "MRG-1" if wanted is Event.MERGE else "PID-3"
            raise BadMessage(Code.UNKNOWN_KEY, place, str(error)) from error

    def _put(self, message: Message, overrides: Overrides) -> None:
        sender = _sender(message)
        told = requests(message, overrides, self._patients.local)
        for request in told:
            self._check(request, self._finder.find(request, sender))
        for request in told:
            with self._one_at_a_time:
                found = self._finder.find(request, sender)
                self._check(request, found)
                self._store.put_all(self._orders(request, found, sender, message.charset))
            if request is not told[-1]:
                time.sleep(_TURN_SECONDS)

    def _check(self, request: Request, found: Sequence[KnownOrder]) -> None:
        """Raise BadMessage where a modality has done what is to be cancelled."""
        steps = {short_id(step) for step in request.step_ids}
        if (
            request.action in ENDING
            and found
            and all(self._store.is_done(one.id, steps & one.step_ids) for one in found)
        ):
            raise BadMessage(
                Code.UNKNOWN_KEY, "ORC-1", "the modality has completed this order", number=request.place
            )

    def _orders(
        self, request: Request, found: Sequence[KnownOrder], sender: str, charset: str
    ) -> list[NewOrder]:
        """Return what is to be kept: of orders that are known a change of each."""
        order = NewOrder(
            Source.HL7,
            sender,
            "",
            request.patient,
            request.attributes,
            request.steps,
            request.status,
            charset,
            firm=request.firm,
        )
        if not found:
            new = request.action is not Action.CONFIRMED
            return [replace(order, identity=self._unused(request, sender))] if new else []
        return [
            replace(
                order,
                sender=one.sender,
                identity=one.identity,
                patient=self._patient(request, one, sender),
                attributes=_attributes(request, one, sender),
                partial=True,
            )
            for one in found
        ]

    def _patient(self, request: Request, known: KnownOrder, sender: str) -> dict[str, Any]:
        """Return an order's patient; in another sender's order it is called what its own sender calls it."""
        if known.sender == sender:
            return request.patient
        mine = {k: known.patient_attributes[k] for k in IDENTITY if known.patient_attributes.get(k)}
        if is_patient(self._database, request, known):
            return {**{k: v for k, v in request.patient.items() if k not in IDENTITY}, **mine}
        return mine

    def _unused(self, request: Request, sender: str) -> str:
        """Return what a new order is called: its numbers and patient, and one more where that is taken."""
        numbers = (request.placer, request.filler, request.accession, request.procedure)
        patient = str(request.patient["PatientID"])
        identity = "|".join((*numbers, patient, *sorted(request.step_ids)))
        names = itertools.chain((identity,), (f"{identity}#{number}" for number in itertools.count(2)))
        return next(name for name in names if not self._store.has(Source.HL7, sender, name))


def _attributes(request: Request, known: KnownOrder, sender: str) -> dict[str, Any]:
    """Return what a change says of an order; another sender's keeps the numbers by which that one asks."""
    if known.sender == sender:
        return request.attributes
    numbers = {
        "PlacerOrderNumberImagingServiceRequest": known.placer,
        "OrderPlacerIdentifierSequence": known.placer,
        "FillerOrderNumberImagingServiceRequest": known.filler,
        "OrderFillerIdentifierSequence": known.filler,
        "RequestedProcedureID": known.procedure,
    }
    return {keyword: value for keyword, value in request.attributes.items() if not numbers.get(keyword)}


def _sender(message: Message) -> str:
    msh = message.first("MSH")
    return f"{message.value(msh, 3, 1)}|{message.value(msh, 4, 1)}"
