"""The scheduled steps that a query may match: selected by SQL, before the identifier is matched exactly."""

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peewee import Case

from index.database.connection import Database
from index.database.tables import ImagingOrder, ScheduledStep
from index.dicom.person_names import folded, name_groups
from index.dicom.value_rules import texts
from index.orders.records import OPEN
from index.query.identifiers import Identifier
from index.query.value_matching import checked, range_of
from index.query.worklist_keys import SCHEDULED_STEPS
from index.records import Attributes

# Steps that one query reads. More are open only where no step is ever ended.
LIMIT = 100_000
# Steps that are in memory at one time.
BATCH = 500
# A step of yesterday may still be done today.
RECENT_DAYS = 1

_DATE = "ScheduledProcedureStepStartDate"
# Columns that hold the one value of a key.
_ORDER_COLUMNS = {
    "PatientID": ImagingOrder.patient_number,
    "AccessionNumber": ImagingOrder.accession,
    "StudyInstanceUID": ImagingOrder.study_uid,
    "RequestedProcedureID": ImagingOrder.procedure_id,
    "PlacerOrderNumberImagingServiceRequest": ImagingOrder.placer,
    "FillerOrderNumberImagingServiceRequest": ImagingOrder.filler,
}
_STEP_COLUMNS = {
    "ScheduledProcedureStepID": ScheduledStep.step_id,
    "ScheduledProcedureStepStatus": ScheduledStep.status,
}
# Columns that are empty for a step without a value or with several: such a step may match any value.
_STEP_COLUMNS_OR_EMPTY = {
    "ScheduledStationAETitle": ScheduledStep.station,
    "Modality": ScheduledStep.modality,
}


@dataclass(frozen=True, slots=True)
class WorklistItem:
    """A scheduled step with its order, by keyword; ScheduledProcedureStepSequence has one item."""

    attributes: Attributes
    charset: str


class Selection:
    """All worklist items that a query may match, and perhaps others; read while they are iterated.

    First come those from yesterday on, by date and time, then older ones, newest first, then those without a
    date. `is_cut_short`: there are more than LIMIT, and the last of them are left out.
    """

    def __init__(
        self, database: Database, identifier: Identifier, since: str = "", *, ignore_accents: bool = False
    ) -> None:
        """Prepare the selection; no steps of days before `since`. Raises BadIdentifier."""
        self._database = database
        self._conditions = conditions(identifier, since, ignore_accents=ignore_accents)
        self.is_cut_short = False

    def __iter__(self) -> Iterator[WorklistItem]:
        """Yield the items; those removed since they were selected are left out."""
        order, step = ImagingOrder, ScheduledStep
        query = step.select(step.id).join(order)
        query = query.where(*self._conditions) if self._conditions else query
        rows = self._database.rows(query.order_by(*_order()).limit(LIMIT + 1))
        self.is_cut_short = len(rows) > LIMIT
        columns = (step.id, order.patient_attributes, order.attributes, order.study_uid, step.attributes)
        query = step.select(*columns, order.charset).join(order)
        for start in range(0, min(len(rows), LIMIT), BATCH):
            steps = [row for (row,) in rows[:LIMIT][start : start + BATCH]]
            found = self._database.rows(query.where(step.id.in_(steps)))
            items = {row: _item(*values) for row, *values in found}
            yield from (items[row] for row in steps if row in items)


def _item(
    patient: dict[str, Any], attributes: dict[str, Any], study_uid: str, step: dict[str, Any], charset: str
) -> WorklistItem:
    given = {"StudyInstanceUID": study_uid, SCHEDULED_STEPS: [step]}
    return WorklistItem({**patient, **attributes, **given}, charset)


def _order() -> list[Any]:
    today = dt.datetime.now().astimezone().date()
    first = (today - dt.timedelta(days=RECENT_DAYS)).strftime("%Y%m%d")
    step = ScheduledStep
    is_recent = step.start_date >= first
    start = step.start_date.concat(step.start_time)
    by_time = Case(None, [(is_recent, start)], "")
    return [Case(None, [(is_recent, 0)], 1), by_time, start.desc(), step.id]


def conditions(identifier: Identifier, since: str = "", *, ignore_accents: bool = False) -> list[Any]:
    """Return the conditions of SQL for keys with one exact value, for days, and for a part of the name.

    SQL knows names with their accents only. Only steps that have not begun are selected, unless the query has
    a ScheduledProcedureStepStatus. Raises BadIdentifier.
    """
    steps = identifier.get(SCHEDULED_STEPS)
    item = steps[0] if isinstance(steps, list) and steps else {}
    table = ScheduledStep
    made: list[Any] = []
    for level, columns in ((identifier, _ORDER_COLUMNS), (item, _STEP_COLUMNS)):
        made += [column == value for keyword, column in columns.items() if (value := _exact(level, keyword))]
    for keyword, column in _STEP_COLUMNS_OR_EMPTY.items():
        if value := _exact(item, keyword):
            made.append(column.in_(("", value)))
    if not texts(item.get("ScheduledProcedureStepStatus")):
        made.append(table.status.in_(OPEN))
    if since:
        made.append((table.start_date == "") | (table.start_date >= since))
    if (part := _name_part(identifier)) and not ignore_accents:
        made.append(ImagingOrder.patient_name.contains(part))
    return made + _date_conditions(item)


def _date_conditions(item: Attributes) -> list[Any]:
    dates = texts(item.get(_DATE))
    if len(dates) != 1:
        for date in dates:
            checked(_DATE, "DA", date)
        return []
    column = ScheduledStep.start_date
    first, last = range_of(_DATE, "DA", dates[0])
    made = [column != ""]
    made += [column >= first] if first else []
    made += [column <= last] if last else []
    return made


def _exact(level: Attributes, keyword: str) -> str:
    """Return the value of a key that has one, without wildcards; else an empty text."""
    values = texts(level.get(keyword))
    return values[0] if len(values) == 1 and not set("*?") & set(values[0]) else ""


def _name_part(identifier: Identifier) -> str | None:
    """Return the longest part of PatientName that every matching name contains."""
    names = texts(identifier.get("PatientName"))
    if len(names) != 1:
        return None
    parts = "".join(
        c if c.isalnum() and c.isascii() else " " for c in name_groups(folded(names[0]))[0]
    ).split()
    return max(parts, key=len, default=None)
