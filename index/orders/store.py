"""Orders written and read: told, changed, ended, removed, listed. Each change is one transaction."""

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import structlog

from index.database import Database
from index.errors import NotFound
from index.orders.facts import accession_issuer
from index.orders.models import ImagingOrder, ScheduledStep, StudyOrder
from index.orders.patients import known_as, patient_columns, patient_row
from index.orders.records import ENDED, OPEN, Listed, NewOrder, Source, Status
from index.orders.touching import ensure_study, now, touch_order
from index.orders.vr import doubts, fitting
from index.records import Attributes
from index.rows import digest

log = structlog.get_logger(__name__)

_STEP_STATUS = "ScheduledProcedureStepStatus"
# SH holds 16 characters (PS3.5 Table 6.2-1).
_SH = 16


class OrderStore:
    """The orders of one index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def put(self, order: NewOrder) -> int:
        """Take an order over, new or changed; return its row id.

        An order keeps the Study Instance UID that it was given first by us, until its source names one. A
        state that came from a modality is not set back to SCHEDULED by a change of the order.
        """
        with self._database.writing():
            return self._put(order)

    def put_all(self, orders: Iterable[NewOrder]) -> list[int]:
        """Take several over in one transaction."""
        with self._database.writing():
            return [self._put(order) for order in orders]

    def _put(self, order: NewOrder) -> int:
        before = self._find(order.source, order.sender, order.identity)
        order = self._completed(order, before[0] if before and order.partial else None)
        key = digest("order", order.source, order.sender, order.identity)
        order = replace(order, attributes=_with_procedure_id(order.attributes, key))
        uid = str(order.attributes.get("StudyInstanceUID") or (before[1] if before else new_study_uid()))
        status = _progressed(Status(before[2]), order.status) if before else order.status
        patient = patient_row(self._database, order.patient, uid)
        columns = {
            "patient": patient,
            **patient_columns(known_as(self._database, patient, order.patient)),
            **order_columns(order.attributes),
            "charset": order.charset,
            "stamp": order.stamp,
            "study_uid": uid,
            "status": status,
            "changed": now(),
        }
        if before:
            row = before[0]
            self._touch(row, before[1])
            self._database.execute(ImagingOrder.update(**columns).where(ImagingOrder.id == row))
        else:
            identity = {"source": order.source, "sender": order.sender, "identity": order.identity}
            row = int(
                self._database.execute(
                    ImagingOrder.insert(key=key, created=columns["changed"], **identity, **columns)
                )
            )
        self._put_steps(row, order, status)
        ensure_study(self._database, uid)
        self._touch(row, uid)
        steps = {"ScheduledProcedureStepSequence": list(order.steps)}
        if unfit := list(doubts({**order.patient, **order.attributes, **steps})):
            log.warning("order_doubts", order=row, doubts=unfit)
        return row

    def _completed(self, order: NewOrder, known: int | None) -> NewOrder:
        """Return an order without what is to go, and with what it leaves unsaid of the one that is known."""
        if known is None:
            steps = tuple(_said(step) for step in order.steps)
            return replace(
                order, patient=_said(order.patient), attributes=_said(order.attributes), steps=steps
            )
        query = ImagingOrder.select(ImagingOrder.patient_attributes, ImagingOrder.attributes)
        ((patient, attributes),) = self._database.rows(query.where(ImagingOrder.id == known))
        steps_query = ScheduledStep.select(ScheduledStep.step_id, ScheduledStep.attributes)
        rows = self._database.rows(steps_query.where(ScheduledStep.order == known).order_by(ScheduledStep.id))
        before = {step: {k: v for k, v in item.items() if k != _STEP_STATUS} for step, item in rows}
        if order.patient.get("PatientID") != patient.get("PatientID"):
            patient = {}
        told = order.steps or [{} for _ in rows]
        return replace(
            order,
            patient=_said({**patient, **order.patient}),
            attributes=_said({**attributes, **order.attributes}),
            steps=tuple(_said({**_meant(step, n, before), **step}) for n, step in enumerate(told)),
        )

    def _find(self, source: Source, sender: str, identity: str) -> tuple[int, str, str] | None:
        query = ImagingOrder.select(ImagingOrder.id, ImagingOrder.study_uid, ImagingOrder.status).where(
            (ImagingOrder.source == source)
            & (ImagingOrder.sender == sender)
            & (ImagingOrder.identity == identity)
        )
        rows = self._database.rows(query)
        return (int(rows[0][0]), rows[0][1], rows[0][2]) if rows else None

    def _put_steps(self, order: int, told: NewOrder, status: Status) -> None:
        """Bring the steps in line; those not told any more go, unless a modality has begun them."""
        query = ScheduledStep.select(ScheduledStep.step_id, ScheduledStep.status)
        before = {
            step: Status(state)
            for step, state in self._database.rows(query.where(ScheduledStep.order == order))
        }
        kept = set()
        for number, item in enumerate(told.steps, start=1):
            step_id = str(item.get("ScheduledProcedureStepID") or f"{order}-{number}")[:_SH]
            kept.add(step_id)
            own = told.status not in ENDED and _STEP_STATUS in item
            asked = step_status(item) if own else told.status
            state = _progressed(before[step_id], asked) if step_id in before else asked
            columns = step_columns(item, step_id, state)
            row = ScheduledStep.insert(order=order, step_id=step_id, **columns)
            names = {getattr(ScheduledStep, name): value for name, value in columns.items()}
            self._database.execute(
                row.on_conflict(conflict_target=[ScheduledStep.order, ScheduledStep.step_id], update=names)
            )
        gone = [step for step, state in before.items() if step not in kept and state in OPEN]
        if told.steps:
            self._database.execute(
                ScheduledStep.delete().where((ScheduledStep.order == order) & ScheduledStep.step_id.in_(gone))
            )
        elif status in ENDED:
            self._end_steps(order, status)

    def _end_steps(self, order: int, status: Status) -> None:
        for row, state in self._database.rows(
            ScheduledStep.select(ScheduledStep.id, ScheduledStep.status).where(ScheduledStep.order == order)
        ):
            if Status(state) not in ENDED:
                self._write_step_status(row, status)

    def end(self, order: int, status: Status) -> None:
        """Cancel or discontinue an order with all its steps that have not ended."""
        with self._database.writing():
            uid = self._study_of(order)
            self._end(order, status)
            self._touch(order, uid)

    def _end(self, order: int, status: Status) -> None:
        self._database.execute(
            ImagingOrder.update(status=status, changed=now(), stamp="").where(ImagingOrder.id == order)
        )
        self._end_steps(order, status)

    def set_step_status(self, step: int, status: Status) -> None:
        """Let a scheduled step (row id) and its order follow what a modality does. Raises NotFound."""
        with self._database.writing():
            self.follow(step, status)

    def follow(self, step: int, status: Status) -> None:
        """Do what set_step_status does, in the caller's transaction. Raises NotFound."""
        rows = self._database.rows(ScheduledStep.select(ScheduledStep.order).where(ScheduledStep.id == step))
        if not rows:
            raise NotFound(f"scheduled step {step} is not in the index")
        ((order,),) = rows
        self._write_step_status(step, status)
        query = ScheduledStep.select(ScheduledStep.status).where(ScheduledStep.order == order)
        state = order_status([Status(one) for (one,) in self._database.rows(query)])
        self._database.execute(
            ImagingOrder.update(status=state, changed=now()).where(ImagingOrder.id == order)
        )
        self._touch(order, self._study_of(order))

    def _write_step_status(self, step: int, status: Status) -> None:
        query = ScheduledStep.select(ScheduledStep.attributes).where(ScheduledStep.id == step)
        ((item,),) = self._database.rows(query)
        now_said = {**item, _STEP_STATUS: str(status)}
        self._database.execute(
            ScheduledStep.update(status=status, attributes=now_said).where(ScheduledStep.id == step)
        )

    def stamps(self, source: Source, sender: str) -> dict[str, str]:
        """Return the stamps of the orders of a source, by identity."""
        query = ImagingOrder.select(ImagingOrder.identity, ImagingOrder.stamp)
        return dict(
            self._database.rows(
                query.where((ImagingOrder.source == source) & (ImagingOrder.sender == sender))
            )
        )

    def withdraw(self, source: Source, sender: str, identity: str) -> None:
        """Follow a source that tells of an order no more: the worklist shows it no more.

        An order that nobody has begun is forgotten; one that a modality began or a study is matched to stays,
        and counts as completed unless it has ended otherwise.
        """
        with self._database.writing():
            found = self._find(source, sender, identity)
            if found is None:
                return
            order, uid, status = found
            self._touch(order, uid)
            matched = self._database.rows(StudyOrder.select(StudyOrder.id).where(StudyOrder.order == order))
            if Status(status) in OPEN and not matched:
                self._forget(order)
            elif Status(status) not in ENDED:
                self._end(order, Status.COMPLETED)

    def remove(self, order: int) -> None:
        """Forget an order, and every match to it. Raises NotFound."""
        with self._database.writing():
            uid = self._study_of(order)
            self._touch(order, uid)
            self._forget(order)

    def _forget(self, order: int) -> None:
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

    def _touch(self, order: int, uid: str) -> None:
        touch_order(self._database, order, uid)

    def listed(self, order: int | None = None) -> list[Listed]:
        """Return all orders, or one of them, oldest first."""
        table = ImagingOrder
        query = table.select(
            table.id,
            table.key,
            table.source,
            table.sender,
            table.status,
            table.study_uid,
            table.patient_attributes,
            table.attributes,
        ).order_by(table.id)
        rows = self._database.rows(query.where(table.id == order) if order is not None else query)
        steps = _grouped(
            self._database.rows(
                ScheduledStep.select(ScheduledStep.order, ScheduledStep.attributes).order_by(
                    ScheduledStep.start_date, ScheduledStep.start_time, ScheduledStep.id
                )
            )
        )
        studies = _grouped(
            self._database.rows(
                StudyOrder.select(StudyOrder.order, StudyOrder.study_uid).order_by(StudyOrder.study_uid)
            )
        )
        return [
            Listed(
                row,
                key,
                Source(source),
                sender,
                Status(status),
                uid,
                {
                    **patient,
                    **attributes,
                    "StudyInstanceUID": uid,
                    "ScheduledProcedureStepSequence": steps.get(row, []),
                },
                tuple(studies.get(row, [])),
            )
            for row, key, source, sender, status, uid, patient, attributes in rows
        ]


def _grouped(rows: Iterable[tuple[int, Any]]) -> dict[int, list[Any]]:
    groups: dict[int, list[Any]] = {}
    for first, second in rows:
        groups.setdefault(first, []).append(second)
    return groups


def _said(attributes: Attributes) -> dict[str, Any]:
    return {keyword: value for keyword, value in attributes.items() if value not in (None, "", [])}


def _with_procedure_id(attributes: Attributes, key: str) -> dict[str, Any]:
    """Give an order the RequestedProcedureID that a worklist must answer (PS3.4 Table K.6-1)."""
    own = (
        "RequestedProcedureID",
        "AccessionNumber",
        "FillerOrderNumberImagingServiceRequest",
        "PlacerOrderNumberImagingServiceRequest",
    )
    number = next((str(attributes[k]) for k in own if attributes.get(k)), key)
    return {**attributes, "RequestedProcedureID": number[:_SH]}


def _meant(step: Attributes, number: int, known: Mapping[str, Attributes]) -> Attributes:
    """Return the known step that a told one changes: of the same id, or without an id of the same number."""
    step_id = step.get("ScheduledProcedureStepID")
    if step_id:
        return known.get(str(step_id), {})
    return list(known.values())[number] if number < len(known) else {}


def new_study_uid() -> str:
    """Return a Study Instance UID derived from a random UUID (PS3.5 Section B.2)."""
    return f"2.25.{uuid.uuid4().int}"


def order_columns(attributes: Attributes) -> dict[str, Any]:
    """Return the columns that the attributes of an order fill."""
    kept = {
        k: v for k, v in attributes.items() if k not in ("StudyInstanceUID", "ScheduledProcedureStepSequence")
    }
    return {
        "attributes": kept,
        "placer": str(attributes.get("PlacerOrderNumberImagingServiceRequest", "")),
        "filler": str(attributes.get("FillerOrderNumberImagingServiceRequest", "")),
        "accession": str(attributes.get("AccessionNumber", "")),
        "accession_issuer": accession_issuer(attributes),
        "procedure_id": str(attributes.get("RequestedProcedureID", "")),
    }


def step_columns(item: Attributes, step_id: str, status: Status) -> dict[str, Any]:
    """Return the columns that an item of ScheduledProcedureStepSequence fills."""
    said = {**item, "ScheduledProcedureStepID": step_id, _STEP_STATUS: str(status)}
    return {
        "station": _fitting(item, "ScheduledStationAETitle"),
        "modality": _fitting(item, "Modality"),
        "start_date": _fitting(item, "ScheduledProcedureStepStartDate"),
        "start_time": _fitting(item, "ScheduledProcedureStepStartTime"),
        "status": status,
        "attributes": said,
    }


def _fitting(item: Attributes, keyword: str) -> str:
    """Return the one value of an attribute that a worklist answers, for SQL to choose by."""
    values = fitting(keyword, item.get(keyword))
    return values[0] if len(values) == 1 else ""


def order_status(steps: Sequence[Status]) -> Status:
    """Return the state of an order whose steps are in these states."""
    if any(step is Status.STARTED for step in steps):
        return Status.STARTED
    still_open = [step for step in steps if step in OPEN]
    if still_open:
        return Status.STARTED if len(still_open) < len(steps) else Status.SCHEDULED
    return Status.COMPLETED if Status.COMPLETED in steps else steps[0]


def step_status(item: Attributes) -> Status:
    """Return the state that an item of ScheduledProcedureStepSequence says it is in."""
    said = _fitting(item, _STEP_STATUS)
    return Status(said) if said in set(Status) else Status.SCHEDULED


def _progressed(before: Status, asked: Status) -> Status:
    """Return the state after a change: what a modality began or ended is not undone by its order."""
    if before in (Status.COMPLETED, Status.DISCONTINUED):
        return before
    return before if before is Status.STARTED and asked in OPEN else asked
