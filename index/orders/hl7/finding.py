"""Which order that is known already a message means: by its numbers, and what must not contradict them.

Two orders may share a placer number, and one order may be told of by two senders.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from index.database.connection import Database
from index.database.tables import ImagingOrder, ScheduledStep
from index.orders.hl7.controls import ENDING, Action
from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.requests import Request
from index.orders.patients.identities import is_same, rows_of
from index.orders.records import ENDED, Source, Status, short_id
from index.records import Attributes

# Orders that are read by one statement.
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class KnownOrder:
    """An order that stands in the index. `procedure` and `step_ids` are those that its source named."""

    id: int
    sender: str
    identity: str
    placer: str
    filler: str
    accession: str
    procedure: str
    study_uid: str
    step_ids: frozenset[str]
    patient: int
    patient_attributes: Attributes
    attributes: Attributes

    @property
    def namespace(self) -> str:
        """Who gave the placer number."""
        items = self.attributes.get("OrderPlacerIdentifierSequence")
        return _namespace(items)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """What is read first of every order that shares a number: one that everybody uses costs little then."""

    id: int
    source: str
    sender: str
    placer: str
    filler: str
    accession: str


class Finder:
    """Finds orders for requests of a sender."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, request: Request, sender: str) -> list[KnownOrder]:
        """Return the orders that are meant: none for a new one. Raises BadMessage where that cannot be told.

        What ends may be several orders of one number; what changes is one.
        """
        own = self._own(request, sender)
        if request.action is Action.NEW:
            return self._repeated(request, own)
        found = self._meant(request, own) or self._corrected(request, sender) or self._shared(request, sender)
        if len(found) > 1 and request.action not in ENDING:
            raise BadMessage(
                Code.UNKNOWN_KEY,
                "ORC-2",
                f"{len(found)} orders have this number; filler, accession or step must tell which",
                number=request.place,
            )
        if found or request.action is Action.CONFIRMED:
            return found
        if request.action is Action.CHANGE and request.status not in ENDED and request.has_detail:
            return []
        if request.action is Action.STATUS and request.has_detail and request.status in _TO_COME:
            return []
        raise BadMessage(
            Code.UNKNOWN_KEY,
            "ORC-2",
            "no order has this placer, filler or accession number",
            number=request.place,
        )

    def _own(self, request: Request, sender: str) -> list[KnownOrder]:
        """Return the sender's orders that share a number with a request and contradict none."""
        table = ImagingOrder
        told = [(column, value) for column, value in _numbers(request) if value]
        keys: list[tuple[Any, str]] = [*told]
        if request.study_uid and request.action is not Action.NEW:
            keys.append((table.study_uid, request.study_uid))
        if not keys:
            keys = [(table.procedure_id, short_id(request.procedure))]
        found = self._known(keys, lambda one: one.sender == sender and _contradicts_none(request, one))
        return [one for one in found if _agree(short_id(request.procedure), one.procedure)]

    def _known(
        self, keys: Sequence[tuple[Any, str]], is_wanted: Callable[["_Numbers"], bool]
    ) -> list[KnownOrder]:
        """Return orders of HL7 that have one of these numbers, and are wanted by their numbers."""
        table = ImagingOrder
        # By these columns alone: with source and sender SQLite reads all orders of a sender.
        columns = (table.id, table.source, table.sender, table.placer, table.filler, table.accession)
        query = table.select(*columns).where(_any([column == value for column, value in keys]))
        told = [_Numbers(*row) for row in self._database.rows(query)]
        wanted = sorted(one.id for one in told if one.source == Source.HL7 and is_wanted(one))
        return [
            known
            for start in range(0, len(wanted), _AT_ONCE)
            for known in self._read(wanted[start:][:_AT_ONCE])
        ]

    def _read(self, wanted: Sequence[int]) -> list[KnownOrder]:
        table = ImagingOrder
        query = table.select(
            table.id,
            table.key,
            table.sender,
            table.identity,
            table.placer,
            table.filler,
            table.accession,
            table.procedure_id,
            table.study_uid,
            table.patient,
            table.patient_attributes,
            table.attributes,
        )
        rows = self._database.rows(query.where(table.id.in_(wanted)).order_by(table.id))
        steps: dict[int, set[str]] = {}
        own = ScheduledStep.select(ScheduledStep.order, ScheduledStep.step_id)
        for order, step in self._database.rows(own.where(ScheduledStep.order.in_(wanted))):
            # A step that its source does not name is named after its order by us.
            if not step.startswith(f"{order}-"):
                steps.setdefault(order, set()).add(step)
        made = []
        for row, key, sender, identity, placer, filler, accession, procedure, uid, *rest in rows:
            ours = {short_id(number) for number in (accession, filler, placer, key)}
            named = "" if procedure in ours else procedure
            ids = frozenset(steps.get(row, ()))
            made.append(KnownOrder(row, sender, identity, placer, filler, accession, named, uid, ids, *rest))
        return made

    def _repeated(self, request: Request, own: Sequence[KnownOrder]) -> list[KnownOrder]:
        """Return the order that is told of once more: of the same patient, and with a step of its own."""
        found = [one for one in own if _shares_step(request, one) and self._is_patient(request, one)]
        told = (request.placer, request.filler, request.accession)
        exact = [one for one in found if (one.placer, one.filler, one.accession) == told]
        return exact[:1] if exact else found if len(found) == 1 else []

    def _meant(self, request: Request, own: Sequence[KnownOrder]) -> list[KnownOrder]:
        """Return those that a change or an end means; a placer number alone does not move it to a patient."""
        own = [
            one
            for one in own
            if one.study_uid == request.study_uid
            or (one.filler and one.filler == request.filler)
            or (one.accession and one.accession == request.accession)
            or self._is_patient(request, one)
        ]
        if request.action in ENDING:
            own = [one for one in own if _shares_step(request, one)]
        own = _narrowed(own, lambda one: bool(_shorts(request) & one.step_ids))
        return _narrowed(own, lambda one: self._is_patient(request, one))

    def _corrected(self, request: Request, sender: str) -> list[KnownOrder]:
        """Return the order whose accession number a change corrects: of the same placer and filler number."""
        if request.action not in (Action.CHANGE, Action.CONFIRMED) or not (request.placer and request.filler):
            return []
        return self._known(
            [(ImagingOrder.filler, request.filler)],
            lambda one: one.sender == sender and one.placer == request.placer,
        )

    def _shared(self, request: Request, sender: str) -> list[KnownOrder]:
        """Return other senders' orders: by placer number and namespace, study, or accession and patient."""
        keys = [(column, value) for column, value in _numbers(request) if column is not ImagingOrder.filler]
        keys.append((ImagingOrder.study_uid, request.study_uid))
        keys = [(column, value) for column, value in keys if value]
        if not keys:
            return []
        found = self._known(
            keys, lambda one: one.sender != sender and _agree(request.accession, one.accession)
        )
        return [one for one in found if _shares_step(request, one) and self._is_shared(request, one)]

    def _is_shared(self, request: Request, one: KnownOrder) -> bool:
        if request.study_uid == one.study_uid:
            return True
        if request.accession and request.accession == one.accession and self._is_patient(request, one):
            return True
        if not request.placer or request.placer != one.placer or not _agree(request.filler, one.filler):
            return False
        namespace = _namespace(request.attributes.get("OrderPlacerIdentifierSequence"))
        # Without a namespace a number is anybody's: the patient has to confirm it.
        return namespace == one.namespace and (bool(namespace) or self._is_patient(request, one))

    def _is_patient(self, request: Request, one: KnownOrder) -> bool:
        return is_patient(self._database, request, one)


_TO_COME = (Status.SCHEDULED, Status.STARTED)


def is_patient(database: Database, request: Request, one: KnownOrder) -> bool:
    """Whether PID names the patient of an order, by any identifier, merges included."""
    if any(is_same(identity, one.patient_attributes) for identity in request.identities):
        return True
    return one.patient in rows_of(database, request.identities)


def _shares_step(request: Request, one: KnownOrder) -> bool:
    """Whether two have a step in common, or one of them names none."""
    return not request.step_ids or not one.step_ids or bool(_shorts(request) & one.step_ids)


def _shorts(request: Request) -> frozenset[str]:
    return frozenset(short_id(step) for step in request.step_ids)


def _narrowed(found: Sequence[KnownOrder], fits: Callable[[KnownOrder], bool]) -> list[KnownOrder]:
    """Return those that fit, or all where none does."""
    return [one for one in found if fits(one)] or list(found)


def _agree(one: str, other: str) -> bool:
    return not one or not other or one == other


def _contradicts_none(request: Request, one: _Numbers) -> bool:
    return (
        _agree(request.placer, one.placer)
        and _agree(request.filler, one.filler)
        and _agree(request.accession, one.accession)
    )


def _numbers(request: Request) -> list[tuple[Any, str]]:
    table = ImagingOrder
    return [
        (table.placer, request.placer),
        (table.filler, request.filler),
        (table.accession, request.accession),
    ]


def _namespace(items: Any) -> str:
    issuer: Attributes = next(iter(items or ()), {})
    return str(issuer.get("UniversalEntityID") or issuer.get("LocalNamespaceEntityID") or "")


def _any(conditions: Sequence[Any]) -> Any:
    made = conditions[0]
    for condition in conditions[1:]:
        made |= condition
    return made
