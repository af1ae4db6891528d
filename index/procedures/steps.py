"""Performed procedure steps written: created, updated; orders, scheduled steps and studies follow at once."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from index.database.connection import Database
from index.database.mark_changed import now, touch_studies
from index.database.tables import (
    ImagingOrder,
    PerformedFor,
    PerformedInstance,
    PerformedStep,
    PerformedStepStudy,
    ScheduledStep,
    Study,
)
from index.orders.store import OrderStore
from index.procedures.completeness import Completeness, completeness, incomplete
from index.procedures.rules import (
    SCHEDULED,
    STATUS,
    BadStepValue,
    DuplicateStep,
    NoSuchStep,
    State,
    check_created,
    instances_of,
    is_mistaken,
    merged,
    next_state,
    scheduled_status,
    studies_of,
)
from index.records import Attributes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Rows of one INSERT: three values each, far below the 32,766 that SQLite binds.
BATCH = 1000
# DICOM JSON is UTF-8 itself.
_CHARSET = "00080005"


@dataclass(frozen=True, slots=True)
class Performed:
    """What a request came to: the step's state, how many scheduled steps it performs, instances, studies."""

    state: State
    scheduled: int
    instances: int
    study_uids: tuple[str, ...]


class Procedures:
    """The performed procedure steps of an index; `on_change` is given the studies (row ids) to publish."""

    def __init__(self, database: Database, on_change: Callable[[set[int]], None]) -> None:
        self._database = database
        self._orders = OrderStore(database)
        self._on_change = on_change

    def create(self, uid: str, sender: str, dataset: "Dataset") -> Performed:
        """Create a step (N-CREATE). Raises StepFault, NotKept."""
        told = _json(dataset)
        attributes = _attributes(told)
        check_created(attributes, frozenset(element.keyword for element in dataset))
        state = next_state(None, attributes[STATUS])
        with self._database.writing():
            if self._database.rows(PerformedStep.select(PerformedStep.id).where(PerformedStep.uid == uid)):
                raise DuplicateStep(f"there is a step {uid} already")
            at = now()
            row = PerformedStep.insert(
                uid=uid,
                state=state,
                sender=sender,
                dataset=told,
                attributes=attributes,
                created=at,
                changed=at,
            )
            step = int(self._database.execute(row))
            self._add(
                PerformedStepStudy,
                ({"step": step, "study_uid": one} for one in sorted(studies_of(attributes))),
            )
            found = scheduled_for(self._database, attributes)
            self._add(PerformedFor, ({"step": step, "scheduled": one} for one in sorted(found)))
            done = self._followed(step, state, attributes)
        return self._told(done)

    def update(self, uid: str, dataset: "Dataset") -> Performed:
        """Update a step (N-SET). Raises StepFault, NotKept."""
        told = _json(dataset)
        with self._database.writing():
            query = PerformedStep.select(PerformedStep.id, PerformedStep.state, PerformedStep.dataset)
            rows = self._database.rows(query.where(PerformedStep.uid == uid))
            if not rows:
                raise NoSuchStep(f"there is no step {uid}")
            ((step, before, known),) = rows
            asked = str(dataset[STATUS].value or "") if STATUS in dataset else None
            state = next_state(State(before), asked)
            whole = merged(known, told)
            attributes = _attributes(whole)
            changes = {"state": state, "dataset": whole, "attributes": attributes, "changed": now()}
            self._database.execute(PerformedStep.update(**changes).where(PerformedStep.id == step))
            done = self._followed(step, state, attributes)
        return self._told(done)

    def catch_up(self, uid: str) -> None:
        """Link the steps of a study whose order has come after them. Raises NotKept, DatabaseFault."""
        with self._database.reading():
            late = any(scheduled for *_, scheduled in self._late(uid))
        if not late:
            return
        with self._database.writing():
            for step, state, attributes, scheduled in self._late(uid):
                if scheduled:
                    self._add(PerformedFor, ({"step": step, "scheduled": one} for one in sorted(scheduled)))
                    self._followed(step, State(state), attributes)

    def _late(self, uid: str) -> list[tuple[int, str, Attributes, set[int]]]:
        """Return the steps of a study that perform no scheduled one yet, with those that they name now."""
        query = PerformedStep.select(PerformedStep.id, PerformedStep.state, PerformedStep.attributes)
        mine = query.join(PerformedStepStudy).where(PerformedStepStudy.study_uid == uid)
        rows = self._database.rows(
            mine.where(PerformedStep.id.not_in(PerformedFor.select(PerformedFor.step)))
        )
        return [(*row, scheduled_for(self._database, row[2])) for row in rows]

    def _add(self, table: Any, rows: Iterable[dict[str, Any]]) -> None:
        several = list(rows)
        for start in range(0, len(several), BATCH):
            self._database.execute(table.insert_many(several[start : start + BATCH]))

    def _followed(self, step: int, state: State, attributes: Attributes) -> Performed:
        """Write what follows from a step's attributes, in the transaction that wrote them."""
        instances = sorted(set(instances_of(attributes)))
        self._database.execute(PerformedInstance.delete().where(PerformedInstance.step == step))
        self._add(PerformedInstance, ({"step": step, "uid": uid} for uid in instances))
        scheduled = self._scheduled(step)
        for one in scheduled:
            self._orders.follow(one, scheduled_status(self._performing(one)))
        uids = tuple(sorted(studies_of(attributes)))
        touch_studies(self._database, uids)
        return Performed(state, len(scheduled), len(instances), uids)

    def _scheduled(self, step: int) -> list[int]:
        """Return the scheduled steps that a step performs, as far as they are still there."""
        query = ScheduledStep.select(ScheduledStep.id).join(
            PerformedFor, on=(PerformedFor.scheduled == ScheduledStep.id)
        )
        return sorted(row for (row,) in self._database.rows(query.where(PerformedFor.step == step)))

    def _performing(self, scheduled: int) -> list[tuple[State, bool]]:
        query = PerformedStep.select(PerformedStep.state, PerformedStep.attributes).join(PerformedFor)
        rows = self._database.rows(query.where(PerformedFor.scheduled == scheduled))
        return [(State(state), is_mistaken(attributes)) for state, attributes in rows]

    def _told(self, done: Performed) -> Performed:
        """Have the studies published that a committed change concerns."""
        rows = self._database.rows(Study.select(Study.id).where(Study.uid.in_(done.study_uids)))
        self._on_change({row for (row,) in rows})
        return done

    def completeness(self, uid: str) -> Completeness:
        """Tell whether what the steps of a study say they made is here."""
        return completeness(self._database, uid)

    def incomplete(self) -> list[Completeness]:
        """Return the studies with steps in progress or with instances missing."""
        return incomplete(self._database)


def _json(dataset: "Dataset") -> dict[str, Any]:
    """Return a data set as DICOM JSON. Raises BadStepValue where it cannot be read."""
    try:
        dataset.decode()
        made: dict[str, Any] = dataset.to_json_dict()
    except Exception as error:  # pydicom raises whatever the bytes bring up
        raise BadStepValue(f"cannot be read: {type(error).__name__}") from error
    made.pop(_CHARSET, None)
    return made


def _attributes(told: dict[str, Any]) -> dict[str, Any]:
    from pydicom.dataset import Dataset

    from index.orders.dicom import BadItem, attributes_of

    try:
        return attributes_of(Dataset.from_json(told))
    except BadItem as error:
        raise BadStepValue(str(error)) from error


def scheduled_for(database: Database, attributes: Attributes) -> set[int]:
    """Return the scheduled steps (row ids) that a performed one names; none where it was not scheduled.

    By Study Instance UID and step id; else by step id, patient, and accession number or requested procedure.
    """
    found: set[int] = set()
    for item in attributes.get(SCHEDULED) or ():
        step_id = str(item.get("ScheduledProcedureStepID") or "")
        query = ScheduledStep.select(ScheduledStep.id, ScheduledStep.step_id).join(ImagingOrder)
        rows = database.rows(query.where(ImagingOrder.study_uid == item.get("StudyInstanceUID")))
        if step_id:
            named = {row for row, one in rows if one == step_id}
            found |= named or _by_numbers(database, step_id, item, attributes)
        elif len(rows) == 1:
            found |= {row for row, _ in rows}
    return found


def _by_numbers(database: Database, step_id: str, item: Attributes, attributes: Attributes) -> set[int]:
    accession, procedure = item.get("AccessionNumber"), item.get("RequestedProcedureID")
    if not (accession or procedure) or not attributes.get("PatientID"):
        return set()
    query = ScheduledStep.select(ScheduledStep.id).join(ImagingOrder)
    wanted = (ScheduledStep.step_id == step_id) & (ImagingOrder.patient_number == attributes["PatientID"])
    for column, value in ((ImagingOrder.accession, accession), (ImagingOrder.procedure_id, procedure)):
        if value:
            wanted &= column == value
    rows = database.rows(query.where(wanted))
    return {row for (row,) in rows} if len(rows) == 1 else set()
