"""The scheduled steps of an order, as its source and the modalities change them."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from peewee import Query

from index.database.connection import Database
from index.database.statements import Placeholder
from index.database.tables import ScheduledStep, canonical
from index.dicom.value_rules import valid_value
from index.orders.records import (
    ENDED,
    OPEN,
    STEP_STATUS,
    NewOrder,
    OrderStatus,
    date_and_time_now,
    progressed,
    short_id,
    step_status,
)
from index.records import Attributes

_ID = "ScheduledProcedureStepID"
_DATE, _TIME = "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"
_CODES = "ScheduledProtocolCodeSequence"


@dataclass(frozen=True, slots=True)
class KnownStep:
    """A step in the index. `by_modality`: a modality has set its state."""

    status: OrderStatus
    by_modality: bool
    attributes: Attributes


class Steps:
    """The steps of orders (row ids), written in the caller's transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, order: int) -> dict[str, KnownStep]:
        """Return the steps of an order by their ids, oldest first."""
        with self._database.connection():
            rows = self._database.prepared(_steps_of).run(order=order).fetchall()
        return {
            step: KnownStep(OrderStatus(status), bool(by), orjson.loads(item))
            for step, status, by, item in rows
        }

    def put(self, order: int, given: NewOrder) -> None:
        """Write the steps of an order; delete its other steps that have not begun.

        A change that ends steps leaves the other steps as they are.
        """
        before = self.of(order)
        if not given.steps and given.status in ENDED:
            self.end(order, given.status)
        items = _by_id(order, given.steps)
        for step_id, item in items.items():
            self._put(order, step_id, item, given, before.get(step_id))
        if items and not (given.partial and given.status in ENDED):
            gone = [step for step, known in before.items() if step not in items and known.status in OPEN]
            if gone:
                not_given = (ScheduledStep.order == order) & ScheduledStep.step_id.in_(gone)
                self._database.execute(ScheduledStep.delete().where(not_given))

    def _put(
        self, order: int, step_id: str, item: Attributes, given: NewOrder, known: KnownStep | None
    ) -> None:
        asked = step_status(item) if given.status not in ENDED and STEP_STATUS in item else given.status
        state, by_modality = asked, False
        if known:
            state = progressed(known.status, asked, by_modality=known.by_modality, firm=given.firm)
            by_modality = known.by_modality and state is known.status
        dated = _dated(item, {} if known is None or given.partial else known.attributes)
        columns = {**_columns(dated, step_id, state), "by_modality": int(by_modality)}
        self._database.prepared(_put_step).run(order=order, step_id=step_id, **columns)

    def end(self, order: int, status: OrderStatus) -> None:
        """End the steps of an order that have not ended."""
        table = ScheduledStep
        query = table.select(table.id).where((table.order == order) & table.status.not_in(ENDED))
        for (row,) in self._database.rows(query):
            self.set_status(row, status, by_modality=False)

    def set_status(self, step: int, status: OrderStatus, *, by_modality: bool) -> None:
        """Set the state of a step (row id)."""
        query = ScheduledStep.select(ScheduledStep.attributes).where(ScheduledStep.id == step)
        ((item,),) = self._database.rows(query)
        changes = {
            "status": status,
            "by_modality": by_modality,
            "attributes": {**item, STEP_STATUS: str(status)},
        }
        self._database.execute(ScheduledStep.update(**changes).where(ScheduledStep.id == step))


def _columns(item: Attributes, step_id: str, status: OrderStatus) -> dict[str, Any]:
    """Return the column values of an item of ScheduledProcedureStepSequence."""
    return {
        "station": valid_value(item, "ScheduledStationAETitle"),
        "modality": valid_value(item, "Modality"),
        "start_date": valid_value(item, _DATE),
        "start_time": valid_value(item, _TIME),
        "status": status.value,
        "attributes": canonical({**item, _ID: step_id, STEP_STATUS: status.value}),
    }


def _steps_of(p: Placeholder) -> Query:
    table = ScheduledStep
    query = table.select(table.step_id, table.status, table.by_modality, table.attributes)
    return query.where(table.order == p("order")).order_by(table.id)


def _put_step(p: Placeholder) -> Query:
    table = ScheduledStep
    columns = ("station", "modality", "start_date", "start_time", "status", "attributes", "by_modality")
    values = {name: p(name) for name in columns}
    row = table.insert(order=p("order"), step_id=p("step_id"), **values)
    same = [table.order, table.step_id]
    return row.on_conflict(
        conflict_target=same, update={getattr(table, name): value for name, value in values.items()}
    )


def merged_steps(given: NewOrder, known: Mapping[str, KnownStep]) -> list[dict[str, Any]]:
    """Return the steps of a change, each merged into the known step that it changes.

    A change that ends an order and names none of its steps is for all of them.
    """
    steps: Collection[Attributes] = given.steps
    if given.status in ENDED:
        steps = [step for step in steps if short_id(str(step.get(_ID) or "")) in known]
    merged = []
    for number, step in enumerate(steps or [{} for _ in known]):
        before = {k: v for k, v in _counterpart(step, number, known).items() if k != STEP_STATUS}
        merged.append({**before, **step})
    return merged


def _counterpart(step: Attributes, number: int, known: Mapping[str, KnownStep]) -> Attributes:
    """Return the known step that a step changes: of the same id or, without an id, of the same number."""
    if step_id := step.get(_ID):
        found = known.get(short_id(str(step_id)))
    else:
        found = list(known.values())[number] if number < len(known) else None
    return found.attributes if found else {}


def _by_id(order: int, steps: Iterable[Attributes]) -> dict[str, Attributes]:
    """Return items by step id. Several items of one id are one step with the protocol codes of all."""
    by_id: dict[str, dict[str, Any]] = {}
    for number, item in enumerate(steps, start=1):
        step_id = short_id(str(item.get(_ID) or f"{order}-{number}"))
        first = by_id.setdefault(step_id, {})
        codes = [*first.get(_CODES, ()), *item.get(_CODES, ())]
        first |= {keyword: value for keyword, value in item.items() if keyword not in first}
        if codes:
            first[_CODES] = [code for n, code in enumerate(codes) if code not in codes[:n]]
    return dict(by_id)


def _dated(item: Attributes, known: Attributes) -> Attributes:
    """Return an item with a date, the present if none is known: worklists are queried by date."""
    if item.get(_DATE):
        return item
    if known.get(_DATE):
        return {**item, **{k: known[k] for k in (_DATE, _TIME) if known.get(k)}}
    return {**item, **dict(zip((_DATE, _TIME), date_and_time_now(), strict=True))}
