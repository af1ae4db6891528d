"""The performed steps of studies, and whether all instances that they name are in the index."""

from dataclasses import dataclass
from typing import Any

from peewee import JOIN

from index.database.connection import Database
from index.database.tables import Instance, PerformedInstance, PerformedStep, PerformedStepStudy, Study
from index.procedures.rules import PerformedStepStatus
from index.records import Attributes, ProcedureStep


@dataclass(frozen=True, slots=True)
class Completeness:
    """The steps of a study: how many, how many in progress, the instances that they name, those missing."""

    uid: str
    steps: int
    in_progress: int
    expected: int
    missing: tuple[str, ...]


def steps_of(database: Database, uid: str) -> tuple[ProcedureStep, ...]:
    """Return the performed steps of a study, in order of their UIDs."""
    query = PerformedStep.select(PerformedStep.uid, PerformedStep.state, PerformedStep.attributes)
    of_study = query.join(PerformedStepStudy).where(PerformedStepStudy.study_uid == uid)
    return tuple(ProcedureStep(*row) for row in database.rows(of_study.order_by(PerformedStep.uid)))


def announced(database: Database) -> dict[str, list[Attributes]]:
    """Return the attributes of the steps of studies without instances, by Study Instance UID."""
    query = PerformedStepStudy.select(PerformedStepStudy.study_uid, PerformedStep.attributes)
    arrived = Study.select(Study.uid).where(Study.instance_count > 0)
    rows = database.rows(query.join(PerformedStep).where(PerformedStepStudy.study_uid.not_in(arrived)))
    found: dict[str, list[Attributes]] = {}
    for uid, attributes in rows:
        found.setdefault(uid, []).append(attributes)
    return found


def completeness(database: Database, uid: str) -> Completeness:
    """Return how complete a study is by its steps."""
    query = PerformedStep.select(PerformedStep.id, PerformedStep.state).join(PerformedStepStudy)
    steps = database.rows(query.where(PerformedStepStudy.study_uid == uid))
    table = PerformedInstance
    named = table.select(table.uid, Instance.id).join(
        Instance, JOIN.LEFT_OUTER, on=(Instance.uid == table.uid)
    )
    rows = database.rows(named.where(table.step.in_([row for row, _ in steps])))
    return Completeness(
        uid,
        len(steps),
        sum(state == PerformedStepStatus.IN_PROGRESS for _, state in steps),
        len({one for one, _ in rows}),
        tuple(sorted({one for one, stored in rows if stored is None})),
    )


def incomplete(database: Database) -> list[Completeness]:
    """Return the studies with steps in progress or with instances missing, by UID.

    Also studies without any instance, but no deleted studies.
    """
    rows = database.rows(incomplete_uids().distinct().order_by(PerformedStepStudy.study_uid))
    return [completeness(database, uid) for (uid,) in rows]


def incomplete_uids() -> Any:
    """Return the query for the UIDs of these studies."""
    table = PerformedInstance
    missing = (
        table.select(table.step)
        .join(Instance, JOIN.LEFT_OUTER, on=(Instance.uid == table.uid))
        .where(Instance.id.is_null())
    )
    query = PerformedStepStudy.select(PerformedStepStudy.study_uid).join(PerformedStep)
    wanted = (PerformedStep.state == PerformedStepStatus.IN_PROGRESS) | PerformedStep.id.in_(missing)
    wanted &= PerformedStepStudy.study_uid.not_in(Study.select(Study.uid).where(Study.withdrawn == 1))
    return query.where(wanted)
