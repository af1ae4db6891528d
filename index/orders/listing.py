"""Orders as `worklist list` shows them."""

from collections.abc import Iterable
from typing import Any

from index.database.connection import Database
from index.database.tables import ImagingOrder, ScheduledStep, StudyOrder
from index.orders.records import Listed, Source, Status


def listed(database: Database, order: int | None = None) -> list[Listed]:
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
    rows = database.rows(query.where(table.id == order) if order is not None else query)
    steps = _grouped(
        database.rows(
            ScheduledStep.select(ScheduledStep.order, ScheduledStep.attributes).order_by(
                ScheduledStep.start_date, ScheduledStep.start_time, ScheduledStep.id
            )
        )
    )
    studies = _grouped(
        database.rows(
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
