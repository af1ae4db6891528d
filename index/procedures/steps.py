"""Performed procedure steps: created and updated, with their effects on orders and studies."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peewee import SQL, fn

from index.database.connection import Database, tried_again
from index.database.mark_changed import mark_studies_changed, now
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
    PerformedStepStatus,
    check_created,
    instances_of,
    is_wrong_entry,
    merged,
    next_state,
    scheduled_status,
    studies_of,
)
from index.records import Attributes

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Rows of one INSERT, of two values each: SQLite allows 32,766 values.
BATCH = 1000
# DICOM JSON is UTF-8 itself.
_CHARSET = "00080005"


@dataclass(frozen=True, slots=True)
class StepResult:
    """A step after a request: its state, how many scheduled steps and instances it has, its studies."""

    state: PerformedStepStatus
    scheduled: int
    instances: int
    study_uids: tuple[str, ...]


class Procedures:
    """The performed procedure steps of an index; `on_change` is given the studies (row ids) to publish."""

    def __init__(self, database: Database, orders: OrderStore, on_change: Callable[[set[int]], None]) -> None:
        self._database = database
        self._orders = orders
        self._on_change = on_change

    @tried_again
    def create(self, uid: str, sender: str, dataset: "Dataset") -> StepResult:
        """Create a step (N-CREATE). Raises StepFault, NotKept."""
        content = _json(dataset)
        attributes = _attributes(content)
        check_created(attributes, frozenset(element.keyword for element in dataset))
        state = next_state(None, attributes[STATUS])
        with self._database.deciding():
            if self._database.rows(PerformedStep.select(PerformedStep.id).where(PerformedStep.uid == uid)):
                raise DuplicateStep(f"there is a step {uid} already")
            at = now()
            row = PerformedStep.insert(
                uid=uid,
                state=state,
                sender=sender,
                dataset=content,
                attributes=attributes,
                created=at,
                changed=at,
            )
            step = int(self._database.execute(row))
            self._add_rows(PerformedStepStudy, step, "study_uid", studies_of(attributes))
            self._add_rows(PerformedFor, step, "scheduled", scheduled_for(self._database, attributes))
            result = self._apply(step, state, attributes)
        return self._published(result)

    @tried_again
    def update(self, uid: str, dataset: "Dataset") -> StepResult:
        """Update a step (N-SET). Raises StepFault, NotKept."""
        changes = _json(dataset)
        with self._database.deciding():
            query = PerformedStep.select(PerformedStep.id, PerformedStep.state, PerformedStep.dataset)
            rows = self._database.rows(query.where(PerformedStep.uid == uid))
            if not rows:
                raise NoSuchStep(f"there is no step {uid}")
            ((step, before, content),) = rows
            asked = dataset[STATUS].value or "" if STATUS in dataset else None
            state = next_state(PerformedStepStatus(before), asked)
            content = merged(content, changes)
            attributes = _attributes(content)
            columns = {"state": state, "dataset": content, "attributes": attributes, "changed": now()}
            self._database.execute(PerformedStep.update(**columns).where(PerformedStep.id == step))
            result = self._apply(step, state, attributes)
        return self._published(result)

    def get(self, uid: str) -> "Dataset":
        """Return all attributes of a step, as its modality gave them. Raises NoSuchStep, DatabaseFault."""
        from pydicom.dataset import Dataset

        from index.query.charsets import UTF_8, charset_for

        rows = self._database.rows(
            PerformedStep.select(PerformedStep.dataset).where(PerformedStep.uid == uid)
        )
        if not rows:
            raise NoSuchStep(f"there is no step {uid}")
        dataset = Dataset.from_json(rows[0][0])
        if charset := charset_for(dataset, (UTF_8,)):
            dataset.SpecificCharacterSet = charset
        return dataset

    @tried_again
    def link_later_orders(self, uid: str) -> None:
        """Link the steps of a study to later orders. Raises NotKept, DatabaseFault."""
        with self._database.reading():
            unlinked = self._linkable(uid)
        if not unlinked:
            return
        with self._database.deciding():
            for step, state, attributes, scheduled in self._linkable(uid):
                self._add_rows(PerformedFor, step, "scheduled", scheduled)
                self._apply(step, PerformedStepStatus(state), attributes)

    def _linkable(self, uid: str) -> list[tuple[int, str, Attributes, set[int]]]:
        """Return the steps of a study that are linked to no scheduled step, with those that they name now."""
        query = PerformedStep.select(PerformedStep.id, PerformedStep.state, PerformedStep.attributes)
        wanted = PerformedStepStudy.study_uid == uid
        linked = PerformedFor.select(SQL("1")).where(PerformedFor.step == PerformedStep.id)
        wanted &= ~fn.EXISTS(linked)
        rows = self._database.rows(query.join(PerformedStepStudy).where(wanted))
        found = [(*row, scheduled_for(self._database, row[2])) for row in rows]
        return [row for row in found if row[-1]]

    def _add_rows(self, table: Any, step: int, column: str, values: set[Any]) -> None:
        """Add a row of a step for each value."""
        rows = [{"step": step, column: value} for value in sorted(values)]
        for start in range(0, len(rows), BATCH):
            self._database.execute(table.insert_many(rows[start : start + BATCH]))

    def _apply(self, step: int, state: PerformedStepStatus, attributes: Attributes) -> StepResult:
        """Write the effects of a step, in the transaction that writes the step."""
        instances = set(instances_of(attributes))
        self._database.execute(PerformedInstance.delete().where(PerformedInstance.step == step))
        self._add_rows(PerformedInstance, step, "uid", instances)
        scheduled = self._scheduled(step)
        for one in scheduled:
            self._orders.set_step_status(one, scheduled_status(self._performing(one)))
        uids = tuple(sorted(studies_of(attributes)))
        mark_studies_changed(self._database, uids)
        return StepResult(state, len(scheduled), len(instances), uids)

    def _scheduled(self, step: int) -> list[int]:
        """Return the scheduled steps (row ids) that a step performs and that are still in the index."""
        query = ScheduledStep.select(ScheduledStep.id).join(
            PerformedFor, on=(PerformedFor.scheduled == ScheduledStep.id)
        )
        return sorted(row for (row,) in self._database.rows(query.where(PerformedFor.step == step)))

    def _performing(self, scheduled: int) -> list[tuple[PerformedStepStatus, bool]]:
        query = PerformedStep.select(PerformedStep.state, PerformedStep.attributes).join(PerformedFor)
        rows = self._database.rows(query.where(PerformedFor.scheduled == scheduled))
        return [(PerformedStepStatus(state), is_wrong_entry(attributes)) for state, attributes in rows]

    def _published(self, result: StepResult) -> StepResult:
        """Publish the studies of a committed change."""
        rows = self._database.rows(Study.select(Study.id).where(Study.uid.in_(result.study_uids)))
        self._on_change({row for (row,) in rows})
        return result

    def completeness(self, uid: str) -> Completeness:
        """Return how complete a study is by its steps."""
        return completeness(self._database, uid)

    def incomplete(self) -> list[Completeness]:
        """Return the studies with steps in progress or with instances missing."""
        return incomplete(self._database)


def _json(dataset: "Dataset") -> dict[str, Any]:
    """Return a data set as DICOM JSON. Raises BadStepValue where it cannot be read."""
    from index.dicom.value_rules import cut_off

    if name := cut_off(dataset):
        raise BadStepValue(f"{name} ends within its value")
    try:
        dataset.decode()
        content: dict[str, Any] = dataset.to_json_dict()
    except Exception as error:  # pydicom raises many kinds of error for damaged bytes
        raise BadStepValue(f"cannot be read: {type(error).__name__}") from error
    content.pop(_CHARSET, None)
    return content


def _attributes(content: dict[str, Any]) -> dict[str, Any]:
    from pydicom.dataset import Dataset

    from index.orders.dicom import BadItem, attributes_of

    try:
        return attributes_of(Dataset.from_json(content))
    except BadItem as error:
        raise BadStepValue(str(error)) from error


def scheduled_for(database: Database, attributes: Attributes) -> set[int]:
    """Return the scheduled steps (row ids) that a performed step names; none if it was not scheduled.

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
