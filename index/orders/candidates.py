"""The rows that a worklist query can mean, chosen by SQL; the exact matching of its keys comes after."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

from peewee import Case

from index.database.connection import Database
from index.database.tables import ImagingOrder, ScheduledStep
from index.orders.records import OPEN, Candidate, Status

# How many steps one query looks at: more are open nowhere, but where nothing ever ends a step.
LIMIT = 100_000
# How many of them are in memory at one time.
BATCH = 500
# A step of last night may be about to be done.
RECENT_DAYS = 1

Dates = tuple[str | None, str | None]

_COLUMNS = {
    "patient_id": ImagingOrder.patient_number,
    "accession": ImagingOrder.accession,
    "study_uid": ImagingOrder.study_uid,
    "procedure_id": ImagingOrder.procedure_id,
    "placer": ImagingOrder.placer,
    "filler": ImagingOrder.filler,
    "step_id": ScheduledStep.step_id,
    "status": ScheduledStep.status,
}
"""Columns that hold a key's one exact value."""


class Candidates:
    """A superset of the worklist items that a query means, read as they are iterated.

    The nearest in time come first: from yesterday on by date and time, then the older ones, newest first, and
    those without a date. `is_cut_short`: there are more than LIMIT, and the last of them are left out.
    """

    def __init__(
        self,
        database: Database,
        *,
        station: str | None = None,
        modality: str | None = None,
        dates: Dates | None = None,
        since: str | None = None,
        name: str | None = None,
        scheduled_only: bool = True,
        **exact: str,
    ) -> None:
        """Choose the rows. `exact` values are of _COLUMNS and have no wildcards.

        `dates` is a range of DA, open where None; of steps before the day `since` only those without a date
        come. `name` is any part of PatientName, in any case. Steps without a station or a modality, or
        with several, come for any: the caller decides.
        """
        self._database = database
        step = ScheduledStep
        wanted: list[Any] = [_COLUMNS[name] == value for name, value in exact.items()]
        wanted += [step.status.in_(OPEN)] if scheduled_only else []
        wanted += [step.station.in_(("", station))] if station else []
        wanted += [step.modality.in_(("", modality))] if modality else []
        wanted += [(step.start_date == "") | (step.start_date >= since)] if since else []
        wanted += [ImagingOrder.patient_name.contains(name.casefold())] if name else []
        if dates:
            first, last = dates
            wanted += [step.start_date != ""]
            wanted += [step.start_date >= first] if first else []
            wanted += [step.start_date <= last] if last else []
        query = step.select(step.id).join(ImagingOrder)
        rows = database.rows((query.where(*wanted) if wanted else query).order_by(*_order()).limit(LIMIT + 1))
        self.is_cut_short = len(rows) > LIMIT
        self._steps = [row for (row,) in rows[:LIMIT]]

    def __iter__(self) -> Iterator[Candidate]:
        """Yield the candidates; what has been removed since they were chosen does not come."""
        for start in range(0, len(self._steps), BATCH):
            steps = self._steps[start : start + BATCH]
            found = {row[1]: row for row in self._database.rows(_whole().where(ScheduledStep.id.in_(steps)))}
            yield from (_candidate(*found[step]) for step in steps if step in found)


def _order() -> list[Any]:
    today = dt.datetime.now().astimezone().date()
    first = (today - dt.timedelta(days=RECENT_DAYS)).strftime("%Y%m%d")
    step = ScheduledStep
    is_recent = step.start_date >= first
    moment = step.start_date.concat(step.start_time)
    by_time = Case(None, [(is_recent, moment)], "")
    return [Case(None, [(is_recent, 0)], 1), by_time, moment.desc(), step.id]


def _whole() -> Any:
    order, step = ImagingOrder, ScheduledStep
    columns = (order.id, step.id, step.step_id, step.status, order.patient_attributes, order.attributes)
    return step.select(*columns, order.study_uid, step.attributes, order.charset).join(order)


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
