"""What says that a study is complete: its performed steps, its orders."""

from dataclasses import dataclass
from enum import StrEnum

from peewee import JOIN, SQL, Expression, Query, fn

from index.database.connection import Database
from index.database.statements import Placeholder
from index.database.tables import (
    CompletionRow,
    ImagingOrder,
    Instance,
    PerformedInstance,
    PerformedStep,
    PerformedStepStudy,
    ScheduledStep,
    Study,
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


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a study; times are in ms since 1970.

    `told` to `due` are those of its row of `completion`; `told` None: it has none. `stepped` is when one of
    its steps last changed, `in_progress` the same of those in progress; None: there is none. `orders` counts
    those that it is matched to and that were not cancelled, `completed` those whose source has said so.
    """

    instance_count: int
    received: int
    told: int | None
    reason: str
    instances: int
    later: int
    covered: int
    due: int | None
    stepped: int | None
    in_progress: int | None
    orders: int
    completed: int

    @property
    def is_complete_by_order(self) -> bool:
        """Whether the sources of all its orders have said that these are completed.

        What modalities say of steps does not count: with `[worklist] without_mpps`, the first image ends a
        step.
        """
        return 0 < self.orders == self.completed


def facts_of(database: Database, study_uid: str) -> Facts | None:
    """Return what is known of a study; None where it is not in the index."""
    with database.connection():
        row = database.prepared(_facts).one(uid=study_uid)
    if row is None:
        return None
    count, received, told, reason, instances, later, covered, *others = row
    return Facts(count, received, told, reason or "", instances or 0, later or 0, covered or 0, *others)


def _facts(p: Placeholder) -> Query:
    row, uid = CompletionRow, p("uid")
    columns = row.told, row.reason, row.instances, row.later, row.covered, row.due
    changed = PerformedStep.select(fn.MAX(PerformedStep.changed)).join(PerformedStepStudy)
    changed = changed.where(PerformedStepStudy.study_uid == uid)
    in_progress = changed.where(PerformedStep.state == SQL(f"'{PerformedStepStatus.IN_PROGRESS}'"))
    ended = SQL(f"('{OrderStatus.CANCELLED}', '{OrderStatus.DISCONTINUED}')")
    matched = StudyOrder.select().join(ImagingOrder).where(StudyOrder.study_uid == uid)
    matched = matched.where(Expression(ImagingOrder.status, "NOT IN", ended))
    count = matched.select(fn.COUNT(SQL("*")))
    completed = matched.select(fn.COALESCE(fn.SUM(ImagingOrder.is_completed), SQL("0")))
    query = Study.select(
        Study.instance_count, Study.last_received, *columns, changed, in_progress, count, completed
    )
    return query.join(row, JOIN.LEFT_OUTER, on=(row.study_uid == Study.uid)).where(Study.uid == uid)


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
