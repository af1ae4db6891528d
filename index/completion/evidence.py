"""What says that a study is complete: its performed steps, its orders."""

from enum import StrEnum

from peewee import JOIN, SQL, fn

from index.database.connection import Database
from index.database.tables import (
    ImagingOrder,
    Instance,
    PerformedInstance,
    PerformedStep,
    PerformedStepStudy,
    ScheduledStep,
    StudyOrder,
)
from index.orders.records import ENDED, OrderStatus
from index.procedures.rules import PerformedStepStatus


class Reason(StrEnum):
    """Why a study is said to be complete."""

    # Every instance that its performed procedure steps (MPPS) name is here, and no step is in progress.
    MPPS = "mpps"
    # A storage commitment for every instance of it has been reported.
    COMMITMENT = "commitment"
    # The source of its order has said that the order is completed.
    ORDER = "order"
    # Nothing has come for `[publish] quiet` seconds.
    QUIET = "quiet"
    # It was here before this was told at all. It is not in the change feed.
    EARLIER = "earlier"


def last_change_of_steps(database: Database, study_uid: str, *, in_progress: bool = False) -> int | None:
    """Return when a step, or a step in progress, last changed, in ms since 1970; None where there is none."""
    query = PerformedStep.select(fn.MAX(PerformedStep.changed)).join(PerformedStepStudy)
    query = query.where(PerformedStepStudy.study_uid == study_uid)
    if in_progress:
        query = query.where(PerformedStep.state == PerformedStepStatus.IN_PROGRESS)
    rows = database.rows(query)
    return None if rows[0][0] is None else int(rows[0][0])


def is_complete_by_mpps(database: Database, study_uid: str) -> bool:
    """Whether every instance that the steps of a study name is here, and no step is still to be performed."""
    steps = PerformedStepStudy.select(PerformedStepStudy.step).where(
        PerformedStepStudy.study_uid == study_uid
    )
    named = PerformedInstance.step.in_(steps)
    one = SQL("1")
    if not database.rows(PerformedInstance.select(one).where(named).limit(1)):
        return False
    missing = PerformedInstance.select(one).join(
        Instance, JOIN.LEFT_OUTER, on=(Instance.uid == PerformedInstance.uid)
    )
    if database.rows(missing.where(named, Instance.id.is_null()).limit(1)):
        return False
    scheduled = ScheduledStep.select(one).join(StudyOrder, on=(StudyOrder.order == ScheduledStep.order))
    to_perform = scheduled.where(StudyOrder.study_uid == study_uid, ScheduledStep.status.not_in(ENDED))
    return not database.rows(to_perform.limit(1))


def is_complete_by_order(database: Database, study_uid: str) -> bool:
    """Whether the sources of all orders of a study have said that these are completed.

    What modalities say of steps does not count: with `[worklist] without_mpps`, the first image ends a step.
    """
    query = StudyOrder.select(ImagingOrder.is_completed).join(ImagingOrder)
    open_or_done = ImagingOrder.status.not_in((OrderStatus.CANCELLED, OrderStatus.DISCONTINUED))
    rows = database.rows(query.where(StudyOrder.study_uid == study_uid, open_or_done))
    return bool(rows) and all(completed for (completed,) in rows)
