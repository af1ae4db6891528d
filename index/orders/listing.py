"""Orders as `worklist list` shows them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from index.database.connection import Database
from index.database.tables import ImagingOrder, ScheduledStep, StudyOrder
from index.dicom.value_rules import doubts
from index.orders.records import OrderStatus, Source


@dataclass(frozen=True, slots=True)
class ListedOrder:
    """An order with the attributes of its worklist items, and the studies matched to it."""

    id: int
    key: str
    source: Source
    sender: str
    status: OrderStatus
    study_uid: str
    attributes: Mapping[str, Any]
    studies: tuple[str, ...]

    @property
    def doubts(self) -> list[str]:
        """The attributes that the worklist answers changed or not at all, because of their VR."""
        return list(doubts(self.attributes))


def list_orders(database: Database, order: int | None = None) -> list[ListedOrder]:
    """Return all orders, or one of them (row id), oldest first."""
    table, step, match = ImagingOrder, ScheduledStep, StudyOrder
    columns = (table.id, table.key, table.source, table.sender, table.status, table.study_uid)
    query = table.select(*columns, table.patient_attributes, table.attributes).order_by(table.id)
    rows = database.rows(query.where(table.id == order) if order is not None else query)
    by_start = step.select(step.order, step.attributes).order_by(step.start_date, step.start_time, step.id)
    by_uid = match.select(match.order, match.study_uid).order_by(match.study_uid)
    if order is not None:
        by_start, by_uid = by_start.where(step.order == order), by_uid.where(match.order == order)
    steps, studies = _grouped(database.rows(by_start)), _grouped(database.rows(by_uid))
    return [
        ListedOrder(
            row,
            key,
            Source(source),
            sender,
            OrderStatus(status),
            uid,
            {**patient, **attributes, "StudyInstanceUID": uid, "ScheduledProcedureStepSequence": steps[row]},
            tuple(studies[row]),
        )
        for row, key, source, sender, status, uid, patient, attributes in rows
    ]


def _grouped(rows: Iterable[tuple[int, Any]]) -> defaultdict[int, list[Any]]:
    groups: defaultdict[int, list[Any]] = defaultdict(list)
    for order, value in rows:
        groups[order].append(value)
    return groups
