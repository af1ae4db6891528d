"""Apply HL7 messages to orders and patients, and acknowledge each message (HL7 v2.5.1 Section 2.9)."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import structlog

from index.database.connection import Database
from index.errors import DatabaseFault, NotKept
from index.orders.hl7 import adt
from index.orders.hl7.acknowledging import acknowledge, header_of
from index.orders.hl7.adt import EVENTS, Event
from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.known_orders import KnownOrder, KnownOrders
from index.orders.hl7.mapping import Overrides
from index.orders.hl7.message import Message, parse_path
from index.orders.hl7.requests import ENDING, Action, OrderRequest, requests
from index.orders.hl7.settings import Hl7Sender
from index.orders.patients.identities import IDENTITY
from index.orders.patients.merges import Ambiguous, Patients
from index.orders.records import NewOrder, Source
from index.orders.store import OrderStore

log = structlog.get_logger(__name__)

# A pause between two orders of one message: other threads that wait for the lock get it.
_TURN_SECONDS = 0.001
# Characters of MSH-10 in the log; the standard has 20 (HL7 v2.5.1 Section 2.15.9.10).
_LOGGED = 80

ORDERS = ("ORM^O01", "OMI^O23", "OMG^O19")


class Handler:
    """Handles HL7 messages of orders (OMI, OMG, ORM) and patients (ADT).

    All orders of a message are checked before the first is written.
    """

    def __init__(
        self, database: Database, store: OrderStore, patients: Patients, senders: Sequence[Hl7Sender] = ()
    ) -> None:
        self._store = store
        self._patients = patients
        self._senders = senders
        self._known = KnownOrders(database)

    def handle(self, content: bytes) -> tuple[str, bytes]:
        """Handle a message; return the acknowledgement code and message. Raises DatabaseFault."""
        message: Message | None = None
        fault: BadMessage | None = None
        try:
            message = self._read(content)
            self._apply(message)
        except BadMessage as error:
            fault = error
            message = message or header_of(content)
        except NotKept as error:
            fault = BadMessage(Code.INTERNAL, "MSH", f"cannot be kept now: {error}")
        except DatabaseFault:
            raise
        except Exception:  # a fault of one message must neither stop the listener nor prevent the answer
            log.exception("hl7_failed")
            fault = BadMessage(Code.INTERNAL, "MSH", "the message caused an internal error")
        answer, acknowledgement = acknowledge(message, fault)
        self._log(message, answer, fault)
        return answer, acknowledgement

    def _log(self, message: Message | None, answer: str, fault: BadMessage | None) -> None:
        msh = message.first("MSH") if message else None
        facts: dict[str, Any] = {"answer": answer}
        if message:
            facts["kind"] = f"{message.value(msh, 9, 1)}^{message.value(msh, 9, 2)}"
            facts |= {"control_id": message.value(msh, 10)[:_LOGGED], "sender": _sender(message)}
        if fault:
            log.warning("hl7", **facts, segment=fault.segment, field=fault.field, error=str(fault.code))
        else:
            log.info("hl7", **facts)

    def _read(self, content: bytes) -> Message:
        """Read a message, with the character set that is configured for its sender, if any."""
        charset = ""
        if any(sender.charset for sender in self._senders):
            charset = self._settings_of(Message(content, header_only=True)).charset
        return Message(content, charset)

    def _settings_of(self, message: Message) -> Hl7Sender:
        msh = message.first("MSH")
        application, facility = message.value(msh, 3, 1), message.value(msh, 4, 1)
        for sender in self._senders:
            if sender.application in ("", application) and sender.facility in ("", facility):
                return sender
        return Hl7Sender()

    def _apply(self, message: Message) -> None:
        msh = message.first("MSH")
        kind, event = message.value(msh, 9, 1), message.value(msh, 9, 2)
        if f"{kind}^{event}" not in ORDERS and kind not in ("ADT", "ORM"):
            text = f"{kind}^{event} is none of {', '.join((*ORDERS, 'ADT'))}"
            raise BadMessage(Code.MESSAGE_TYPE, "MSH-9", text, reject=True)
        overrides = {keyword: parse_path(path) for keyword, path in self._settings_of(message).map.items()}
        if kind == "ADT":
            self._update_patients(message, event, overrides)
        else:
            self._put_orders(message, overrides)

    def _update_patients(self, message: Message, event: str, overrides: Overrides) -> None:
        wanted = EVENTS.get(event)
        if wanted is None:
            text = f"ADT event {event!r} is none of {', '.join(sorted(EVENTS))}"
            raise BadMessage(Code.EVENT, "MSH-9", text, reject=True)
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
            location = "MRG-1" if wanted is Event.MERGE else "PID-3"
            raise BadMessage(Code.UNKNOWN_KEY, location, str(error)) from error

    def _put_orders(self, message: Message, overrides: Overrides) -> None:
        sender = _sender(message)
        found = requests(message, overrides, self._patients.local)
        # A message with one order is checked where it is written.
        for request in found if len(found) > 1 else ():
            self._find(request, sender)
        for request in found:
            # Between being found and being written they must not change.
            self._store.put_found(partial(self._orders, request, sender, message.charset))
            if request is not found[-1]:
                time.sleep(_TURN_SECONDS)

    def _find(self, request: OrderRequest, sender: str) -> list[KnownOrder]:
        """Return the known orders of a request. Raises BadMessage, also for the end of a completed order."""
        known = self._known.find(request, sender)
        if (
            request.action in ENDING
            and known
            and all(self._store.is_done(one.id, request.short_step_ids & one.step_ids) for one in known)
        ):
            text = "the modality has completed this order"
            raise BadMessage(Code.UNKNOWN_KEY, "ORC-1", text, number=request.group)
        return known

    def _orders(self, request: OrderRequest, sender: str, charset: str) -> list[NewOrder]:
        """Return the new order of a request, or a change of each known one. Raises BadMessage."""
        known = self._find(request, sender)
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
        if not known:
            is_new = request.action is not Action.CONFIRMED
            return [replace(order, identity=self._unused_identity(request, sender))] if is_new else []
        return [
            replace(
                order,
                sender=one.sender,
                identity=one.identity,
                patient=self._patient(request, one, sender),
                attributes=_attributes(request, one, sender),
                partial=True,
            )
            for one in known
        ]

    def _patient(self, request: OrderRequest, known: KnownOrder, sender: str) -> dict[str, Any]:
        """Return the patient of a known order; another sender's order keeps its own identifiers."""
        if known.sender == sender:
            return request.patient
        identity = {k: known.patient_attributes[k] for k in IDENTITY if known.patient_attributes.get(k)}
        if self._known.is_patient(request, known):
            return {**{k: v for k, v in request.patient.items() if k not in IDENTITY}, **identity}
        return identity

    def _unused_identity(self, request: OrderRequest, sender: str) -> str:
        """Return the identity of a new order: numbers, patient and steps, and a count if that is taken."""
        patient = str(request.patient["PatientID"])
        names = (*request.numbers, request.procedure, patient, *sorted(request.step_ids))
        identity = "|".join(names)
        identities = itertools.chain((identity,), (f"{identity}#{number}" for number in itertools.count(2)))
        return next(name for name in identities if not self._store.has(Source.HL7, sender, name))


def _attributes(request: OrderRequest, known: KnownOrder, sender: str) -> dict[str, Any]:
    """Return the attributes of a change; another sender's order keeps the numbers of its own sender."""
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
