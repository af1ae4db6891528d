"""In what situation a study is, as an operator asks for it: each is a query for the row ids of studies."""

import time
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

from index.database.connection import Database
from index.database.tables import Conflict, Instance, OutboxRow, OutboxState, Series, Study, StudyOrder
from index.procedures.completeness import incomplete_uids

# A sender that still sends pauses for less, in seconds: most modalities send an instance every few seconds.
ARRIVING_SECONDS = 60


class Situation(StrEnum):
    """What may be asked for. A study may be in several of them."""

    ARRIVING = "arriving"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"
    UNMATCHED = "unmatched"
    CONFLICT = "in conflict"
    UNPUBLISHED = "unpublished"
    DEAD_LETTERS = "not forwarded"


def in_situation(situation: Situation) -> Any:
    """Return the query for the row ids of the studies in a situation."""
    return Study.select(Study.id).where((Study.instance_count > 0) & _CONDITIONS[situation]())


def situations(database: Database, studies: Iterable[int]) -> dict[int, list[Situation]]:
    """Return the situations of some studies."""
    some, found = list(studies), dict[int, list[Situation]]()
    for situation in Situation:
        query = in_situation(situation).where(Study.id.in_(some))
        for (study,) in database.rows(query):
            found.setdefault(study, []).append(situation)
    return found


def _is_arriving() -> Any:
    return Study.last_received > time.time_ns() // 1_000_000 - ARRIVING_SECONDS * 1000


def _is_incomplete() -> Any:
    return Study.uid.in_(incomplete_uids())


def _has_dead_letters() -> Any:
    dead = OutboxRow.select(Series.study).join(Instance, on=(Instance.uid == OutboxRow.uid))
    dead = dead.join(Series, on=(Instance.series == Series.id))
    return Study.id.in_(dead.where(OutboxRow.state == OutboxState.DEAD))


_CONDITIONS: Mapping[Situation, Callable[[], Any]] = {
    Situation.ARRIVING: _is_arriving,
    Situation.COMPLETE: lambda: ~_is_arriving() & ~_is_incomplete(),
    Situation.INCOMPLETE: _is_incomplete,
    Situation.UNMATCHED: lambda: Study.uid.not_in(StudyOrder.select(StudyOrder.study_uid)),
    Situation.CONFLICT: lambda: Study.uid.in_(Conflict.select(Conflict.study_uid)),
    Situation.UNPUBLISHED: lambda: Study.revision != Study.published,
    Situation.DEAD_LETTERS: _has_dead_letters,
}
