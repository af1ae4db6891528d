"""Mark the studies of an order or a patient changed, so that they are published again."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from peewee import SQL, Query

from index.database.connection import Database
from index.database.tables import ImagingOrder, ScheduledStep, Study, StudyKey, StudyOrder, StudyVariant

Key = tuple[str, str]


def now() -> int:
    """Return milliseconds since 1970 in UTC."""
    return time.time_ns() // 1_000_000


def ensure_study(database: Database, uid: str) -> None:
    """Insert the study of an order if it has no row, and mark it changed."""
    database.prepared(_ensure_study).run(uid=uid, at=now())


def _ensure_study(p: Callable[[str], SQL]) -> Query:
    zero, one = SQL("0"), SQL("1")
    row = Study.insert(
        uid=p("uid"),
        attributes=SQL("'{}'"),
        series_count=zero,
        instance_count=zero,
        first_received=p("at"),
        last_received=p("at"),
        revision=one,
        published=zero,
        withdrawn=zero,
    )
    return row.on_conflict(conflict_target=[Study.uid], update={Study.revision: Study.revision + one})


def mark_studies_changed(database: Database, uids: Iterable[str]) -> None:
    """Mark studies changed, by their UIDs."""
    database.execute(Study.update(revision=Study.revision + 1).where(Study.uid.in_(list(uids))))


def mark_patients_changed(database: Database, patients: Sequence[int]) -> None:
    """Mark the studies changed that have instances or an order of these patients (row ids)."""
    stored = StudyVariant.select(StudyVariant.study).where(StudyVariant.patient.in_(patients))
    ordered = Study.select(Study.id).join(ImagingOrder, on=(ImagingOrder.study_uid == Study.uid))
    matched = Study.select(Study.id).join(StudyOrder, on=(StudyOrder.study_uid == Study.uid))
    matched = matched.join(ImagingOrder, on=(ImagingOrder.id == StudyOrder.order))
    theirs = ImagingOrder.patient.in_(patients)
    # One list of studies: for alternatives PostgreSQL would read all of them.
    concerned = stored | ordered.where(theirs) | matched.where(theirs)
    database.execute(Study.update(revision=Study.revision + 1).where(Study.id.in_(concerned)))


def mark_order_changed(database: Database, order: int, uid: str) -> None:
    """Mark the studies changed that an order names (`uid`), is matched to, or could be matched to.

    It could be matched by its Accession Number, and to studies of its patient (row or PatientID) by the ids
    of procedure and step: many studies share such ids ("1").
    """
    database.prepared(_mark_order).run(order=order, uid=uid)


def _mark_order(p: Callable[[str], SQL]) -> Query:
    mine = ImagingOrder.id == p("order")
    matched = StudyOrder.select(StudyOrder.study_uid).where(StudyOrder.order == p("order"))
    accession = _with_key("accession", ImagingOrder.accession).where(mine)
    of_row = Study.select(Study.uid.alias("uid")).join(StudyVariant)
    of_row = of_row.join(ImagingOrder, on=(ImagingOrder.patient == StudyVariant.patient)).where(mine)
    of_patient = (of_row | _with_key("patient", ImagingOrder.patient_number).where(mine)).alias("of_patient")
    procedure = ImagingOrder.select(ImagingOrder.procedure_id).where(mine)
    step = ScheduledStep.select(ScheduledStep.step_id).where(ScheduledStep.order == p("order"))
    # The patient has few studies; many share the id.
    shared = StudyKey.select(StudyKey.study_uid).join(of_patient, on=(StudyKey.study_uid == of_patient.c.uid))
    has_procedure = (StudyKey.kind == SQL("'procedure'")) & StudyKey.value.in_(procedure)
    shared = shared.where(has_procedure | ((StudyKey.kind == SQL("'step'")) & StudyKey.value.in_(step)))
    asked = Study.select(Study.uid).where(Study.uid == p("uid"))
    wanted = Study.uid.in_(matched | accession | shared | asked)
    return Study.update(revision=Study.revision + SQL("1")).where(wanted)


def _with_key(kind: str, column: Any) -> Any:
    """Select the studies with a key that equals an order's column."""
    query = StudyKey.select(StudyKey.study_uid).join(ImagingOrder, on=(column == StudyKey.value))
    return query.where((StudyKey.kind == SQL(f"'{kind}'")) & (column != SQL("''")))
