"""Orders written: told, changed, ended, removed. Each change is one transaction."""

import uuid
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import structlog

from index.database.connection import Database
from index.database.instance_rows import digest
from index.database.mark_changed import ensure_study, mark_order_changed, now
from index.database.tables import ImagingOrder, ScheduledStep, StudyOrder
from index.dicom.value_rules import doubts
from index.errors import NotFound
from index.orders.matching.study_identity import accession_issuer
from index.orders.patients.identities import known_as, patient_columns, patient_row
from index.orders.records import ENDED, OPEN, NewOrder, Source, Status, short_id
from index.orders.states import order_status, progressed
from index.orders.steps import Steps, completed
from index.records import Attributes

log = structlog.get_logger(__name__)


class OrderStore:
    """The orders of one index."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._steps = Steps(database)

    def put(self, order: NewOrder) -> int:
        """Take an order over, new or changed; return its row id.

        An order keeps the Study Instance UID that it was given first by us, until its source names one. A
        state that came from a modality is not set back to SCHEDULED by a change of the order. An order
        without a date is one of now.
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
        uid = str(order.attributes.get("StudyInstanceUID") or (before[1] if before else self._new_uid(order)))
        status = order.status
        if before:
            status = progressed(Status(before[2]), order.status, by_modality=False, firm=order.firm)
        patient = patient_row(self._database, order.patient, uid)
        columns = {
            "patient": patient,
            **patient_columns(known_as(self._database, patient, order.patient)),
            "told_patient": dict(order.patient),
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
        self._steps.put(row, order)
        self._follow_steps(row)
        ensure_study(self._database, uid)
        self._touch(row, uid)
        steps = {"ScheduledProcedureStepSequence": list(order.steps)}
        if unfit := list(doubts({**order.patient, **order.attributes, **steps})):
            log.warning("order_doubts", order=row, doubts=unfit)
        return row

    def _new_uid(self, order: NewOrder) -> str:
        """Return a Study Instance UID: that of the same requested procedure where it is told of in parts."""
        if order.source is Source.HL7 and order.patient.get("PatientID"):
            table, columns = ImagingOrder, order_columns(order.attributes)
            wanted = (order.source, order.sender, columns["accession"])
            # By these columns alone: with source and sender SQLite reads all orders of a sender.
            patient = patient_row(self._database, order.patient)
            query = table.select(table.study_uid, table.source, table.sender, table.accession).where(
                (table.patient == patient) & (table.procedure_id == columns["procedure_id"])
            )
            for uid, *numbers in self._database.rows(query.order_by(table.id)):
                if tuple(numbers) == wanted:
                    return str(uid)
        return new_study_uid()

    def _completed(self, order: NewOrder, known: int | None) -> NewOrder:
        """Return an order without what is to go, and with what it leaves unsaid of the one that is known."""
        if known is None:
            steps = tuple(_said(step) for step in order.steps) or ({},)
            return replace(
                order, patient=_said(order.patient), attributes=_said(order.attributes), steps=steps
            )
        query = ImagingOrder.select(ImagingOrder.patient_attributes, ImagingOrder.attributes)
        ((patient, attributes),) = self._database.rows(query.where(ImagingOrder.id == known))
        if order.patient.get("PatientID") != patient.get("PatientID"):
            patient = {}
        return replace(
            order,
            patient=_said({**patient, **order.patient}),
            attributes=_said({**attributes, **order.attributes}),
            steps=tuple(_said(step) for step in completed(order, self._steps.of(known))),
        )

    def has(self, source: Source, sender: str, identity: str) -> bool:
        """Whether a source has an order of this name."""
        return self._find(source, sender, identity) is not None

    def is_done(self, order: int, steps: Collection[str] = ()) -> bool:
        """Whether modalities have completed an order, or those of its steps that are named."""
        found = [step for step_id, step in self._steps.of(order).items() if not steps or step_id in steps]
        return bool(found) and all(step.by_modality and step.status is Status.COMPLETED for step in found)

    def _find(self, source: Source, sender: str, identity: str) -> tuple[int, str, str] | None:
        query = ImagingOrder.select(ImagingOrder.id, ImagingOrder.study_uid, ImagingOrder.status).where(
            (ImagingOrder.source == source)
            & (ImagingOrder.sender == sender)
            & (ImagingOrder.identity == identity)
        )
        rows = self._database.rows(query)
        return (int(rows[0][0]), rows[0][1], rows[0][2]) if rows else None

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
        self._steps.end(order, status)

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
        self._steps.set_status(step, status, by_modality=True)
        self._follow_steps(order)
        self._touch(order, self._study_of(order))

    def _follow_steps(self, order: int) -> None:
        steps = [step.status for step in self._steps.of(order).values()]
        if steps:
            self._database.execute(
                ImagingOrder.update(status=order_status(steps), changed=now()).where(ImagingOrder.id == order)
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
        mark_order_changed(self._database, order, uid)


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
    return {**attributes, "RequestedProcedureID": short_id(number)}


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
