"""Steps read: those of a study for its resource, and whether what they say they made has come."""

from dataclasses import dataclass

from peewee import JOIN

from index.database.connection import Database
from index.database.tables import Instance, PerformedInstance, PerformedStep, PerformedStepStudy, Study
from index.procedures.rules import State
from index.records import Attributes, ProcedureStep


@dataclass(frozen=True, slots=True)
class Completeness:
    """What the steps of a study say: how many, how many go on, what they made, what of it is missing."""

    uid: str
    steps: int
    in_progress: int
    expected: int
    missing: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether there are steps, all have ended, and all that they made is here."""
        return bool(self.steps) and not self.in_progress and not self.missing


def steps_of(database: Database, uid: str) -> tuple[ProcedureStep, ...]:
    """Return the performed steps of a study, in order of their UIDs."""
    query = PerformedStep.select(PerformedStep.uid, PerformedStep.state, PerformedStep.attributes)
    mine = query.join(PerformedStepStudy).where(PerformedStepStudy.study_uid == uid)
    return tuple(ProcedureStep(*row) for row in database.rows(mine.order_by(PerformedStep.uid)))


def announced(database: Database) -> dict[str, list[Attributes]]:
    """Return what the steps of studies say that have no instance, by Study Instance UID."""
    query = PerformedStepStudy.select(PerformedStepStudy.study_uid, PerformedStep.attributes)
    here = Study.select(Study.uid).where(Study.instance_count > 0)
    rows = database.rows(query.join(PerformedStep).where(PerformedStepStudy.study_uid.not_in(here)))
    found: dict[str, list[Attributes]] = {}
    for uid, attributes in rows:
        found.setdefault(uid, []).append(attributes)
    return found


def completeness(database: Database, uid: str) -> Completeness:
    """Tell whether what the steps of a study say they made is here."""
    query = PerformedStep.select(PerformedStep.id, PerformedStep.state).join(PerformedStepStudy)
    steps = database.rows(query.where(PerformedStepStudy.study_uid == uid))
    table = PerformedInstance
    made = table.select(table.uid, Instance.id).join(
        Instance, JOIN.LEFT_OUTER, on=(Instance.uid == table.uid)
    )
    rows = database.rows(made.where(table.step.in_([row for row, _ in steps])))
    return Completeness(
        uid,
        len(steps),
        sum(state == State.IN_PROGRESS for _, state in steps),
        len({one for one, _ in rows}),
        tuple(sorted({one for one, stored in rows if stored is None})),
    )


def incomplete(database: Database) -> list[Completeness]:
    """Return the studies with steps in progress or with instances missing, by UID.

    Also those of which nothing has arrived, but not those that were deleted since.
    """
    table = PerformedInstance
    missing = (
        table.select(table.step)
        .join(Instance, JOIN.LEFT_OUTER, on=(Instance.uid == table.uid))
        .where(Instance.id.is_null())
    )
    query = PerformedStepStudy.select(PerformedStepStudy.study_uid).join(PerformedStep)
    wanted = (PerformedStep.state == State.IN_PROGRESS) | PerformedStep.id.in_(missing)
    wanted &= PerformedStepStudy.study_uid.not_in(Study.select(Study.uid).where(Study.withdrawn == 1))
    rows = database.rows(query.where(wanted).distinct().order_by(PerformedStepStudy.study_uid))
    return [completeness(database, uid) for (uid,) in rows]
