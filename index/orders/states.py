"""The states of orders and scheduled steps: how they go together, and what may follow upon what."""

from collections.abc import Sequence

from index.dicom.value_rules import valid_value
from index.orders.records import OPEN, Status
from index.records import Attributes

STEP_STATUS = "ScheduledProcedureStepStatus"


def order_status(steps: Sequence[Status]) -> Status:
    """Return the state of an order whose steps are in these states: cancelled ones count where all are."""
    steps = [step for step in steps if step is not Status.CANCELLED] or steps
    if any(step is Status.STARTED for step in steps):
        return Status.STARTED
    still_open = [step for step in steps if step in OPEN]
    if still_open:
        return Status.STARTED if len(still_open) < len(steps) else Status.SCHEDULED
    return Status.COMPLETED if Status.COMPLETED in steps else steps[0]


def step_status(item: Attributes) -> Status:
    """Return the state that an item of ScheduledProcedureStepSequence says it is in."""
    said = valid_value(item, STEP_STATUS)
    return Status(said) if said in set(Status) else Status.SCHEDULED


def progressed(before: Status, asked: Status, *, by_modality: bool, firm: bool) -> Status:
    """Return the state after a change of the order.

    What a modality began or ended is not undone. What the order's source began or completed is only where
    that is what it says (`firm`), not by any other change; what it cancelled comes back with the next one.
    """
    if by_modality:
        is_kept = before in (Status.COMPLETED, Status.DISCONTINUED) or (
            before is Status.STARTED and asked in OPEN
        )
    else:
        is_kept = not firm and before in (Status.STARTED, Status.COMPLETED) and asked in OPEN
    return before if is_kept else asked
