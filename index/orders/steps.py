"""The scheduled steps of an order, brought in line with what its source tells and what modalities do."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from index.database.connection import Database
from index.database.tables import ScheduledStep
from index.dicom.value_rules import valid_value
from index.orders.records import ENDED, OPEN, NewOrder, Status, short_id
from index.orders.states import STEP_STATUS, progressed, step_status
from index.records import Attributes

_ID = "ScheduledProcedureStepID"
_DATE, _TIME = "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"
_CODES = "ScheduledProtocolCodeSequence"


@dataclass(frozen=True, slots=True)
class KnownStep:
    """A step as it stands."""

    status: Status
    by_modality: bool
    attributes: Attributes


class Steps:
    """The steps of orders (row ids), written inside the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, order: int) -> dict[str, KnownStep]:
        """Return the steps of an order by their ids, in the order that they came in."""
        table = ScheduledStep
        query = table.select(table.step_id, table.status, table.by_modality, table.attributes)
        rows = self._database.rows(query.where(table.order == order).order_by(table.id))
        return {step: KnownStep(Status(status), bool(by), said) for step, status, by, said in rows}

    def put(self, order: int, told: NewOrder) -> None:
        """Bring the steps in line; those not told any more go, unless a modality has begun them.

        A change that ends steps ends those that it tells of, and leaves the others.
        """
        before = self.of(order)
        if not told.steps and told.status in ENDED:
            self.end(order, told.status)
        items = _by_id(order, told.steps)
        for step_id, item in items.items():
            self._put(order, step_id, item, told, before.get(step_id))
        if items and not (told.partial and told.status in ENDED):
            gone = [step for step, known in before.items() if step not in items and known.status in OPEN]
            self._database.execute(
                ScheduledStep.delete().where((ScheduledStep.order == order) & ScheduledStep.step_id.in_(gone))
            )

    def _put(
        self, order: int, step_id: str, item: Attributes, told: NewOrder, known: KnownStep | None
    ) -> None:
        asked = step_status(item) if told.status not in ENDED and STEP_STATUS in item else told.status
        state, by_modality = asked, False
        if known:
            state = progressed(known.status, asked, by_modality=known.by_modality, firm=told.firm)
            by_modality = known.by_modality and state is known.status
        dated = _dated(item, {} if known is None or told.partial else known.attributes)
        columns = {**step_columns(dated, step_id, state), "by_modality": by_modality}
        row = ScheduledStep.insert(order=order, step_id=step_id, **columns)
        names = {getattr(ScheduledStep, name): value for name, value in columns.items()}
        self._database.execute(
            row.on_conflict(conflict_target=[ScheduledStep.order, ScheduledStep.step_id], update=names)
        )

    def end(self, order: int, status: Status) -> None:
        """End the steps that have not ended."""
        table = ScheduledStep
        for row, state in self._database.rows(
            table.select(table.id, table.status).where(table.order == order)
        ):
            if Status(state) not in ENDED:
                self.set_status(row, status, by_modality=False)

    def set_status(self, step: int, status: Status, *, by_modality: bool) -> None:
        """Set the state of a step (row id)."""
        query = ScheduledStep.select(ScheduledStep.attributes).where(ScheduledStep.id == step)
        ((item,),) = self._database.rows(query)
        now_said = {**item, STEP_STATUS: str(status)}
        self._database.execute(
            ScheduledStep.update(status=status, by_modality=by_modality, attributes=now_said).where(
                ScheduledStep.id == step
            )
        )


def step_columns(item: Attributes, step_id: str, status: Status) -> dict[str, Any]:
    """Return the columns that an item of ScheduledProcedureStepSequence fills."""
    said = {**item, _ID: step_id, STEP_STATUS: str(status)}
    return {
        "station": valid_value(item, "ScheduledStationAETitle"),
        "modality": valid_value(item, "Modality"),
        "start_date": valid_value(item, _DATE),
        "start_time": valid_value(item, _TIME),
        "status": status,
        "attributes": said,
    }


def completed(told: NewOrder, known: Mapping[str, KnownStep]) -> list[dict[str, Any]]:
    """Return the steps of a change, each with what it leaves unsaid of the one that is known.

    One that ends an order, and names no step of it, means all of them.
    """
    steps: Collection[Attributes] = told.steps
    if told.status in ENDED:
        steps = [step for step in steps if short_id(str(step.get(_ID) or "")) in known]
    made = []
    for number, step in enumerate(steps or [{} for _ in known]):
        before = {k: v for k, v in _meant(step, number, known).items() if k != STEP_STATUS}
        made.append({**before, **step})
    return made


def _meant(step: Attributes, number: int, known: Mapping[str, KnownStep]) -> Attributes:
    """Return the known step that a told one changes: of the same id, or without an id of the same number."""
    if step_id := step.get(_ID):
        found = known.get(short_id(str(step_id)))
    else:
        found = list(known.values())[number] if number < len(known) else None
    return found.attributes if found else {}


def _by_id(order: int, steps: Iterable[Attributes]) -> dict[str, Attributes]:
    """Return items by their step: several of one are that step with the protocol codes of all."""
    made: dict[str, dict[str, Any]] = {}
    for number, item in enumerate(steps, start=1):
        step_id = short_id(str(item.get(_ID) or f"{order}-{number}"))
        first = made.setdefault(step_id, {})
        codes = [*first.get(_CODES, ()), *item.get(_CODES, ())]
        first |= {keyword: value for keyword, value in item.items() if keyword not in first}
        if codes:
            first[_CODES] = [code for n, code in enumerate(codes) if code not in codes[:n]]
    return dict(made)


def _dated(item: Attributes, known: Attributes) -> Attributes:
    """Return an item with a date: where none is said that of before, or else now, as for `worklist add`.

    A worklist is asked by date: nobody would find it without one.
    """
    if item.get(_DATE):
        return item
    if known.get(_DATE):
        return {**item, **{k: known[k] for k in (_DATE, _TIME) if known.get(k)}}
    now = datetime.now().astimezone()
    return {**item, _DATE: now.strftime("%Y%m%d"), _TIME: now.strftime("%H%M%S")}
