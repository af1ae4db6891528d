"""Which known orders a message is for: by their numbers, if no other number contradicts.

Two orders may share a placer number, and one order may come from two senders.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

from index.database.connection import Database
from index.database.tables import ImagingOrder, ScheduledStep
from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.requests import ENDING, Action, OrderRequest
from index.orders.patients.identities import is_same, rows_of
from index.orders.records import ENDED, OrderStatus, Source, agree, issuer_name, short_id
from index.records import Attributes

# Orders that one statement reads.
_BATCH = 500
_NOT_ENDED = (OrderStatus.SCHEDULED, OrderStatus.STARTED)
_PLACER, _FILLER, _ACCESSION = ImagingOrder.placer, ImagingOrder.filler, ImagingOrder.accession


@dataclass(frozen=True, slots=True)
class KnownOrder:
    """An order in the index. `procedure` and `step_ids` are empty where its source has not named them."""

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
    def numbers(self) -> tuple[str, str, str]:
        """Placer, filler and accession number."""
        return self.placer, self.filler, self.accession


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The columns read first, of all orders that share a number: many may share a common one."""

    id: int
    source: str
    sender: str
    placer: str
    filler: str
    accession: str

    def agree_with(self, request: OrderRequest) -> bool:
        return all(map(agree, request.numbers, (self.placer, self.filler, self.accession)))


class KnownOrders:
    """The orders of HL7 senders in an index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, request: OrderRequest, sender: str) -> list[KnownOrder]:
        """Return the orders that a request is for; none: it is a new order. Raises BadMessage.

        A request that ends orders may be for several with one number; any other is for one.
        """
        own = self._own(request, sender)
        if request.action is Action.NEW:
            return self._repeated(request, own)
        found = (
            self._of_sender(request, own)
            or self._corrected(request, sender)
            or self._of_other_senders(request, sender)
        )
        text = "no order has this placer, filler or accession number"
        if len(found) > 1 and request.action not in ENDING:
            text = f"{len(found)} orders have this number; filler, accession or step must tell which"
        elif found or request.action is Action.CONFIRMED:
            return found
        elif request.has_detail and (
            (request.action is Action.CHANGE and request.status not in ENDED)
            or (request.action is Action.STATUS and request.status in _NOT_ENDED)
        ):
            return []
        raise BadMessage(Code.UNKNOWN_KEY, "ORC-2", text, number=request.group)

    def is_patient(self, request: OrderRequest, order: KnownOrder) -> bool:
        """Whether PID names the patient of an order, by any identifier, merges included."""
        if any(is_same(identity, order.patient_attributes) for identity in request.identities):
            return True
        return order.patient in rows_of(self._database, request.identities)

    def _own(self, request: OrderRequest, sender: str) -> list[KnownOrder]:
        """Return the sender's orders that share a number with a request, and contradict none."""
        keys = list(zip((_PLACER, _FILLER, _ACCESSION), request.numbers, strict=True))
        if request.action is not Action.NEW:
            keys.append((ImagingOrder.study_uid, request.study_uid))
        if not any(value for _, value in keys):
            keys = [(ImagingOrder.procedure_id, short_id(request.procedure))]
        found = self._read(keys, lambda one: one.sender == sender and one.agree_with(request))
        return [one for one in found if agree(short_id(request.procedure), one.procedure)]

    def _read(
        self, keys: Iterable[tuple[Any, str]], is_wanted: Callable[[_Numbers], bool]
    ) -> list[KnownOrder]:
        """Return the orders that have one of these values, and are wanted by their numbers."""
        conditions = [column == value for column, value in keys if value]
        if not conditions:
            return []
        table = ImagingOrder
        # Without source and sender in the query: SQLite would read all orders of a sender.
        columns = (table.id, table.source, table.sender, table.placer, table.filler, table.accession)
        rows = self._database.rows(table.select(*columns).where(reduce(or_, conditions)))
        numbers = (_Numbers(*row) for row in rows)
        wanted = sorted(one.id for one in numbers if one.source == Source.HL7 and is_wanted(one))
        batches = (wanted[start : start + _BATCH] for start in range(0, len(wanted), _BATCH))
        return [order for batch in batches for order in self._read_batch(batch)]

    def _read_batch(self, ids: Sequence[int]) -> list[KnownOrder]:
        table, step = ImagingOrder, ScheduledStep
        numbers = (table.placer, table.filler, table.accession, table.procedure_id)
        patient = (table.patient, table.patient_attributes)
        columns = (table.id, table.key, table.sender, table.identity, *numbers, table.study_uid, *patient)
        query = table.select(*columns, table.attributes)
        rows = self._database.rows(query.where(table.id.in_(ids)).order_by(table.id))
        steps: defaultdict[int, set[str]] = defaultdict(set)
        of_orders = step.select(step.order, step.step_id).where(step.order.in_(ids))
        for order, step_id in self._database.rows(of_orders):
            # A step without an id from its source has one made from its order's row id.
            if not step_id.startswith(f"{order}-"):
                steps[order].add(step_id)
        orders = []
        for row, key, sender, identity, placer, filler, accession, procedure, uid, *rest in rows:
            made_from = {short_id(number) for number in (accession, filler, placer, key)}
            given = "" if procedure in made_from else procedure
            known = (row, sender, identity, placer, filler, accession, given)
            orders.append(KnownOrder(*known, uid, frozenset(steps[row]), *rest))
        return orders

    def _repeated(self, request: OrderRequest, own: Sequence[KnownOrder]) -> list[KnownOrder]:
        """Return the order that a new order repeats: of the same patient, and with one of its steps."""
        found = [one for one in own if _shares_step(request, one) and self.is_patient(request, one)]
        exact = [one for one in found if one.numbers == request.numbers]
        return exact[:1] if exact else found if len(found) == 1 else []

    def _of_sender(self, request: OrderRequest, own: Sequence[KnownOrder]) -> list[KnownOrder]:
        """Return the sender's orders to change or end; by a placer number only those of the same patient."""
        own = [
            one
            for one in own
            if one.study_uid == request.study_uid
            or (one.filler and one.filler == request.filler)
            or (one.accession and one.accession == request.accession)
            or self.is_patient(request, one)
        ]
        if request.action in ENDING:
            own = [one for one in own if _shares_step(request, one)]
        own = [one for one in own if request.short_step_ids & one.step_ids] or own
        return [one for one in own if self.is_patient(request, one)] or own

    def _corrected(self, request: OrderRequest, sender: str) -> list[KnownOrder]:
        """Return the order of the same placer and filler number, of which a change corrects the accession."""
        if request.action not in (Action.CHANGE, Action.CONFIRMED) or not (request.placer and request.filler):
            return []
        return self._read(
            [(_FILLER, request.filler)], lambda one: one.sender == sender and one.placer == request.placer
        )

    def _of_other_senders(self, request: OrderRequest, sender: str) -> list[KnownOrder]:
        """Return other senders' orders: by placer number and issuer, study, or accession and patient."""
        keys = [(_PLACER, request.placer), (_ACCESSION, request.accession)]
        keys.append((ImagingOrder.study_uid, request.study_uid))
        found = self._read(keys, lambda one: one.sender != sender and agree(request.accession, one.accession))
        return [one for one in found if _shares_step(request, one) and self._is_shared(request, one)]

    def _is_shared(self, request: OrderRequest, one: KnownOrder) -> bool:
        if request.study_uid == one.study_uid:
            return True
        if request.accession and request.accession == one.accession and self.is_patient(request, one):
            return True
        if not request.placer or request.placer != one.placer or not agree(request.filler, one.filler):
            return False
        issuer = issuer_name(request.attributes.get("OrderPlacerIdentifierSequence"))
        # Without an issuer, other orders may have the same number: the patient must be the same.
        same_issuer = issuer == issuer_name(one.attributes.get("OrderPlacerIdentifierSequence"))
        return same_issuer and (bool(issuer) or self.is_patient(request, one))


def _shares_step(request: OrderRequest, one: KnownOrder) -> bool:
    """Whether two have a step in common, or one of them names none."""
    return not request.step_ids or not one.step_ids or bool(request.short_step_ids & one.step_ids)
