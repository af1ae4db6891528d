"""The orders in the index: added, changed, withdrawn, removed. Each change is one transaction."""

import uuid
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import structlog
from peewee import SQL, Query

from index.database.connection import Database, tried_again
from index.database.instance_rows import digest
from index.database.mark_changed import ensure_study, mark_order_changed, now
from index.database.statements import Placeholder
from index.database.tables import ImagingOrder, ScheduledStep, StudyOrder, canonical
from index.dicom.value_rules import doubts
from index.errors import DatabaseFault, NotFound, NotKept
from index.orders.patients.identities import current_attributes, patient_columns, patient_row
from index.orders.records import (
    ENDED,
    OPEN,
    NewOrder,
    OrderStatus,
    Source,
    issuer_name,
    non_empty,
    order_status,
    progressed,
    short_id,
)
from index.orders.steps import Steps, merged_steps
from index.records import Attributes

log = structlog.get_logger(__name__)

# Orders of one transaction, where many come: other writers wait for it some 50 ms.
AT_ONCE = 100


class OrderStore:
    """The orders of one index."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._steps = Steps(database)

    def put(self, order: NewOrder) -> int:
        """Add or change an order; return its row id.

        A new order without a Study Instance UID gets one, and keeps it until its source names another. A
        change does not set back a state that a modality has set. An order without a date is for now.
        """
        (row,) = self.put_all([order])
        return row

    def is_known(self, order: NewOrder) -> bool:
        """Tell whether the order of this source, sender and identity is there."""
        return self._find(order.source, order.sender, order.identity) is not None

    def put_all(self, orders: Iterable[NewOrder]) -> list[int]:
        """Add or change several orders in one transaction."""
        given = list(orders)
        return self.put_found(lambda: given)

    @tried_again
    def put_found(self, find: Callable[[], Iterable[NewOrder]]) -> list[int]:
        """Add or change the orders that `find` returns, in the transaction in which it looks for them."""
        with self._database.deciding():
            put = [self._put(order) for order in find()]
        for row, order in put:
            steps = {"ScheduledProcedureStepSequence": list(order.steps)}
            if unfit := list(doubts({**order.patient, **order.attributes, **steps})):
                log.warning("order_doubts", order=row, doubts=unfit)
        return [row for row, _ in put]

    def put_each(self, orders: Sequence[NewOrder]) -> list[Exception | None]:
        """Add or change orders, in one transaction where none of them is bad; return the fault of each.

        Raises NotKept, DatabaseFault: then some of the orders may be in the index.
        """
        try:
            self.put_all(orders)
        except (NotKept, DatabaseFault):
            raise
        except Exception:  # noqa: BLE001  one of them is bad: each by itself shows which
            return [self._fault(order) for order in orders]
        return [None] * len(orders)

    def _fault(self, order: NewOrder) -> Exception | None:
        try:
            self.put(order)
        except (NotKept, DatabaseFault):
            raise
        except Exception as error:  # noqa: BLE001  it is returned
            return error
        return None

    def _put(self, order: NewOrder) -> tuple[int, NewOrder]:
        """Put an order in the caller's transaction; return its row id, and the order as it is kept."""
        before = self._find(order.source, order.sender, order.identity)
        order = self._merged(order, before[0] if before and order.partial else None)
        key = key_of(order)
        order = replace(order, attributes=_with_procedure_id(order.attributes, key))
        uid = str(order.attributes.get("StudyInstanceUID") or (before[1] if before else self._new_uid(order)))
        status = order.status
        if before:
            status = progressed(OrderStatus(before[2]), order.status, by_modality=False, firm=order.firm)
        patient = patient_row(self._database, order.patient, uid)
        columns = {
            "patient": patient,
            **_of_patient(current_attributes(self._database, patient, order.patient)),
            "told_patient": canonical(order.patient),
            **_order_columns(order.attributes),
            "charset": order.charset,
            "stamp": order.stamp,
            "study_uid": uid,
            "status": status.value,
            "changed": now(),
        }
        if before:
            row = before[0]
            mark_order_changed(self._database, row, before[1])
            self._database.prepared(_update_order).run(id=row, **columns)
        else:
            identity = {"source": order.source.value, "sender": order.sender, "identity": order.identity}
            added = self._database.prepared(_add_order)
            row = int(added.one(key=key, created=columns["changed"], **identity, **columns)[0])
        if order.firm or order.status is OrderStatus.COMPLETED:
            is_completed = order.status is OrderStatus.COMPLETED
            completed = ImagingOrder.update(is_completed=int(is_completed))
            self._database.execute(completed.where(ImagingOrder.id == row))
        self._steps.put(row, order)
        self._follow_steps(row)
        ensure_study(self._database, uid)
        mark_order_changed(self._database, row, uid)
        return row, order

    def _new_uid(self, order: NewOrder) -> str:
        """Return a new Study Instance UID, or that of another order of the same requested procedure."""
        if order.source is Source.HL7 and order.patient.get("PatientID"):
            table = ImagingOrder
            wanted = (order.source, order.sender, str(order.attributes.get("AccessionNumber", "")))
            # Without source and sender in the query: SQLite would read all orders of a sender.
            patient = patient_row(self._database, order.patient)
            query = table.select(table.study_uid, table.source, table.sender, table.accession).where(
                (table.patient == patient) & (table.procedure_id == order.attributes["RequestedProcedureID"])
            )
            for uid, *numbers in self._database.rows(query.order_by(table.id)):
                if tuple(numbers) == wanted:
                    return str(uid)
        # A UID derived from a random UUID (PS3.5 Section B.2).
        return f"2.25.{uuid.uuid4().int}"

    def _merged(self, order: NewOrder, known: int | None) -> NewOrder:
        """Return an order merged into the known one (row id), without empty attributes."""
        if known is None:
            steps = tuple(non_empty(step) for step in order.steps) or ({},)
            return replace(
                order, patient=non_empty(order.patient), attributes=non_empty(order.attributes), steps=steps
            )
        query = ImagingOrder.select(ImagingOrder.patient_attributes, ImagingOrder.attributes)
        ((patient, attributes),) = self._database.rows(query.where(ImagingOrder.id == known))
        if order.patient.get("PatientID") != patient.get("PatientID"):
            patient = {}
        return replace(
            order,
            patient=non_empty({**patient, **order.patient}),
            attributes=non_empty({**attributes, **order.attributes}),
            steps=tuple(non_empty(step) for step in merged_steps(order, self._steps.of(known))),
        )

    def has(self, source: Source, sender: str, identity: str) -> bool:
        """Whether there is an order of this identity."""
        return self._find(source, sender, identity) is not None

    def is_done(self, order: int, steps: Collection[str] = ()) -> bool:
        """Whether modalities have completed an order (row id), or the named steps of it."""
        found = [step for step_id, step in self._steps.of(order).items() if not steps or step_id in steps]
        return bool(found) and all(
            step.by_modality and step.status is OrderStatus.COMPLETED for step in found
        )

    def _find(self, source: Source, sender: str, identity: str) -> tuple[int, str, str] | None:
        find = self._database.prepared(_find_order)
        with self._database.connection():
            found = find.one(source=source.value, sender=sender, identity=identity)
        return (int(found[0]), found[1], found[2]) if found else None

    def set_step_status(self, step: int, status: OrderStatus) -> None:
        """Set the state that a modality gives a scheduled step (row id), in the caller's transaction.

        The order's state follows. Raises NotFound.
        """
        rows = self._database.rows(ScheduledStep.select(ScheduledStep.order).where(ScheduledStep.id == step))
        if not rows:
            raise NotFound(f"scheduled step {step} is not in the index")
        ((order,),) = rows
        self._steps.set_status(step, status, by_modality=True)
        self._follow_steps(order)
        mark_order_changed(self._database, order, self._study_of(order))

    def _follow_steps(self, order: int) -> None:
        steps = [step.status for step in self._steps.of(order).values()]
        if steps:
            status = order_status(steps).value
            self._database.prepared(_set_status).run(id=order, status=status, changed=now())

    def stamps(self, source: Source, sender: str) -> dict[str, str]:
        """Return the stamps of the orders of a sender, by identity."""
        query = ImagingOrder.select(ImagingOrder.identity, ImagingOrder.stamp)
        return dict(
            self._database.rows(
                query.where((ImagingOrder.source == source) & (ImagingOrder.sender == sender))
            )
        )

    @tried_again
    def withdraw(self, source: Source, sender: str, identity: str) -> None:
        """Follow a source that no longer has an order: it is no longer on the worklist.

        An order that has not begun is deleted. One that a modality began or a study is matched to stays in
        the index, as completed unless it has ended otherwise.
        """
        with self._database.deciding():
            found = self._find(source, sender, identity)
            if found is None:
                return
            order, uid, status = found
            mark_order_changed(self._database, order, uid)
            matched = self._database.rows(StudyOrder.select(StudyOrder.id).where(StudyOrder.order == order))
            if OrderStatus(status) in OPEN and not matched:
                self._delete(order)
            elif OrderStatus(status) not in ENDED:
                changes = {"status": OrderStatus.COMPLETED, "changed": now(), "stamp": ""}
                self._database.execute(ImagingOrder.update(**changes).where(ImagingOrder.id == order))
                self._steps.end(order, OrderStatus.COMPLETED)

    @tried_again
    def remove(self, order: int) -> None:
        """Delete an order and every match to it. Raises NotFound."""
        with self._database.deciding():
            mark_order_changed(self._database, order, self._study_of(order))
            self._delete(order)

    def _delete(self, order: int) -> None:
        for table in (StudyOrder, ScheduledStep):
            self._database.execute(table.delete().where(table.order == order))
        self._database.execute(ImagingOrder.delete().where(ImagingOrder.id == order))

    def _study_of(self, order: int) -> str:
        rows = self._database.rows(
            ImagingOrder.select(ImagingOrder.study_uid).where(ImagingOrder.id == order)
        )
        if not rows:
            raise NotFound(f"order {order} is not in the index")
        return str(rows[0][0])


def _with_procedure_id(attributes: Attributes, key: str) -> dict[str, Any]:
    """Return attributes with a RequestedProcedureID, which a worklist must answer (PS3.4 Table K.6-1)."""
    keywords = (
        "RequestedProcedureID",
        "AccessionNumber",
        "FillerOrderNumberImagingServiceRequest",
        "PlacerOrderNumberImagingServiceRequest",
    )
    number = next((str(attributes[k]) for k in keywords if attributes.get(k)), key)
    return {**attributes, "RequestedProcedureID": short_id(number)}


# Columns that each change of an order writes.
_CHANGED = (
    *("patient", "patient_number", "patient_name", "patient_attributes", "told_patient", "attributes"),
    *("charset", "stamp", "placer", "filler", "accession", "accession_issuer", "procedure_id"),
    *("study_uid", "status", "changed"),
)


def key_of(order: NewOrder) -> str:
    """Return the key of an order, of which its resource has its id."""
    return digest("order", order.source, order.sender, order.identity)


def _find_order(p: Placeholder) -> Query:
    table = ImagingOrder
    same = (table.source == p("source")) & (table.sender == p("sender")) & (table.identity == p("identity"))
    return table.select(table.id, table.study_uid, table.status).where(same)


def _add_order(p: Placeholder) -> Query:
    columns = ("key", "created", "source", "sender", "identity", *_CHANGED)
    row = ImagingOrder.insert(**{name: p(name) for name in columns}, is_completed=SQL("0"))
    return row.returning(ImagingOrder.id)


def _update_order(p: Placeholder) -> Query:
    return ImagingOrder.update(**{name: p(name) for name in _CHANGED}).where(ImagingOrder.id == p("id"))


def _set_status(p: Placeholder) -> Query:
    changes = {"status": p("status"), "changed": p("changed")}
    return ImagingOrder.update(**changes).where(ImagingOrder.id == p("id"))


def _of_patient(patient: Attributes) -> dict[str, Any]:
    """Return the column values of an order for its patient."""
    columns = patient_columns(patient)
    return {**columns, "patient_attributes": canonical(columns["patient_attributes"])}


def _order_columns(attributes: Attributes) -> dict[str, Any]:
    """Return the column values of the attributes of an order."""
    elsewhere = ("StudyInstanceUID", "ScheduledProcedureStepSequence")
    return {
        "attributes": canonical({k: v for k, v in attributes.items() if k not in elsewhere}),
        "placer": str(attributes.get("PlacerOrderNumberImagingServiceRequest", "")),
        "filler": str(attributes.get("FillerOrderNumberImagingServiceRequest", "")),
        "accession": str(attributes.get("AccessionNumber", "")),
        "accession_issuer": issuer_name(attributes.get("IssuerOfAccessionNumberSequence")),
        "procedure_id": str(attributes.get("RequestedProcedureID", "")),
    }
