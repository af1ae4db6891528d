"""The rows that a worklist query can mean, chosen by SQL; the exact matching of its keys comes after."""

from typing import Any

from index.database import Database
from index.orders.models import ImagingOrder, ScheduledStep
from index.orders.records import OPEN, Candidate, Status

# What one answer may hold before the peer had better ask for less; also what one query reads at most.
LIMIT = 10_000

Dates = tuple[str | None, str | None]


def candidates(
    database: Database,
    *,
    station: str | None = None,
    dates: Dates | None = None,
    modality: str | None = None,
    patient_id: str | None = None,
    name: str | None = None,
    accession: str | None = None,
    study_uid: str | None = None,
    scheduled_only: bool = True,
    limit: int = LIMIT,
) -> list[Candidate]:
    """Return a superset of the worklist items that a query means, by date, time and row.

    Values are exact, without wildcards; `dates` is a range of DA, open where None; `name` is any part of
    PatientName, in any case. Steps without a station or with several come for any: the caller decides.
    """
    order, step = ImagingOrder, ScheduledStep
    wanted: list[Any] = [step.status.in_(OPEN)] if scheduled_only else []
    if station:
        wanted.append(step.station.in_(("", station)))
    if dates:
        first, last = dates
        wanted += [step.start_date != ""]
        wanted += [step.start_date >= first] if first else []
        wanted += [step.start_date <= last] if last else []
    if modality:
        wanted.append(step.modality == modality)
    if name:
        wanted.append(order.patient_name.contains(name.casefold()))
    for column, value in (
        (order.patient_number, patient_id),
        (order.accession, accession),
        (order.study_uid, study_uid),
    ):
        if value:
            wanted.append(column == value)
    query = (
        step.select(
            order.id,
            step.id,
            step.step_id,
            step.status,
            order.patient_attributes,
            order.attributes,
            order.study_uid,
            step.attributes,
            order.charset,
        )
        .join(order)
        .order_by(step.start_date, step.start_time, step.id)
        .limit(limit)
    )
    rows = database.rows(query.where(*wanted) if wanted else query)
    return [_candidate(*row) for row in rows]


def _candidate(
    order: int,
    step: int,
    step_id: str,
    status: str,
    patient: dict[str, Any],
    attributes: dict[str, Any],
    study_uid: str,
    item: dict[str, Any],
    charset: str,
) -> Candidate:
    own = {"StudyInstanceUID": study_uid, "ScheduledProcedureStepSequence": [item]}
    return Candidate(order, step, step_id, Status(status), {**patient, **attributes, **own}, charset)
