"""The outbox of a target: it follows the change feed by a position, one row for each study that has changed.

A row says that something has changed, not what: when it is sent, the resources are read as they are then. So
changes of a study that waits coalesce, and the latest version wins.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from peewee import JOIN, SQL, Case, fn

from index.database.connection import Database
from index.database.tables import Change, Resource, Study, StudyResource
from index.database.target_tables import PublishedAtTarget, PublishOutbox, PublishState, PublishTarget
from index.publication.feed import PAGE, pruned
from index.publication.targets.settings import TargetSettings

# Resources that were there before the target are taken up so many at a time, while fewer than so many wait.
FILLED, MOST_FILLED = 500, 1000
IMAGING_STUDY = "ImagingStudy"
# `due` of what an operator wants to be tried, whatever the server has asked for.
RETRIED = -1


@dataclass(frozen=True, slots=True)
class Pending:
    """Something that is to be published: mostly an ImagingStudy. `created` in ms since 1970."""

    id: int
    type: str
    name: str
    number: int
    state: str
    attempts: int
    created: int


def now() -> int:
    """Return the time, in ms since 1970."""
    return time.time_ns() // 1_000_000


class TargetOutbox:
    """The outbox of one target, for one thread at a time."""

    def __init__(self, database: Database, settings: TargetSettings) -> None:
        self._database = database
        self._settings = settings
        self.target = settings.name
        self._is_known = False
        # Whether studies that were there before this target are still to be taken up.
        self.is_filling = False

    def open(self) -> None:
        """Begin where an earlier process left off. A new target, or one at another address, begins anew.

        So does one whose position the feed no longer has. Raises NotKept.
        """
        row = PublishTarget
        wanted = {"url": self._settings.url, "fhir": self._settings.version}
        query = row.select(row.url, row.fhir, row.position, row.position_at).where(row.name == self.target)
        found = self._database.rows(query)
        is_same = bool(found) and found[0][:2] == tuple(wanted.values())
        if not is_same or not self._is_entry(*found[0][2:]):
            last = Change.select(Change.id, Change.changed).order_by(Change.id.desc()).limit(1)
            ((position, at),) = self._database.rows(last) or [(pruned(self._database), 0)]
            with self._database.writing():
                execute = self._database.execute
                execute(row.delete().where(row.name == self.target))
                execute(row.insert(name=self.target, position=position, position_at=at, filled=0, **wanted))
                for table in () if is_same else (PublishOutbox, PublishedAtTarget):
                    execute(table.delete().where(table.target == self.target))
        self._is_known = True

    def _is_entry(self, position: int, at: int) -> bool:
        if position == 0:
            return pruned(self._database) == 0
        query = Change.select(Change.id).where((Change.id == position) & (Change.changed == at))
        return bool(self._database.rows(query)) or position == pruned(self._database)

    def advance(self) -> bool:
        """Take up what has changed; return whether there was anything. Raises NotKept."""
        if not self._is_known:
            self.open()
        row = PublishTarget
        query = row.select(row.position, row.filled).where(row.name == self.target)
        ((position, filled),) = self._database.rows(query)
        if pruned(self._database) > position:
            self._is_known = False
            return self.advance()
        self.is_filling = filled is not None
        entries = self._entries(position)
        if entries:
            self._follow(entries)
        elif filled is None or self._count() >= MOST_FILLED:
            return False
        else:
            self._fill(filled)
        return True

    def _entries(self, position: int) -> list[tuple[Any, ...]]:
        columns = Change.id, Change.changed, Resource.id, Resource.fhir, Resource.type, Resource.name
        query = Change.select(*columns, Resource.deleted).join(Resource).where(Change.id > position)
        return self._database.rows(query.order_by(Change.id).limit(PAGE))

    def _follow(self, entries: Sequence[tuple[Any, ...]]) -> None:
        mine = [entry for entry in entries if entry[3] == self._settings.version]
        studies = self._studies({entry[2] for entry in mine if entry[4] != IMAGING_STUDY and not entry[6]})
        added: dict[tuple[str, str], tuple[int, int]] = {}
        for number, at, resource, _, kind, name, deleted in mine:
            if kind != IMAGING_STUDY and not deleted:
                kind, name = IMAGING_STUDY, studies.get(resource, "")  # noqa: PLW2901  the study brings it
            if name:
                added[kind, name] = (number, added.get((kind, name), (0, at))[1])
        last = entries[-1]
        with self._database.writing(durable=False):
            self._add(added)
            changed = PublishTarget.update(position=last[0], position_at=last[1])
            self._database.execute(changed.where(PublishTarget.name == self.target))

    def _studies(self, resources: set[int]) -> dict[int, str]:
        """Return for each of these resources a study that refers to it, and so brings it along."""
        if not resources:
            return {}
        query = StudyResource.select(StudyResource.resource, fn.MIN(Study.uid)).join(Study)
        of_these = query.where(StudyResource.resource.in_(list(resources)))
        return dict(self._database.rows(of_these.group_by(StudyResource.resource)))

    def _fill(self, after: int) -> None:
        """Take up some of the studies that were there before this target."""
        sent = PublishedAtTarget
        query = Resource.select(Resource.id, Resource.name, Resource.changed, Resource.deleted, sent.sha256)
        is_mine = (sent.target == self.target) & (sent.type == Resource.type) & (sent.name == Resource.name)
        query = query.join(sent, JOIN.LEFT_OUTER, on=is_mine)
        which = (Resource.fhir == self._settings.version) & (Resource.type == IMAGING_STUDY)
        rows = self._database.rows(
            query.where(which, Resource.id > after).order_by(Resource.id).limit(FILLED)
        )
        missing = {
            (IMAGING_STUDY, name): (0, at) for _, name, at, deleted, sent in rows if sent or not deleted
        }
        filled = rows[-1][0] if len(rows) == FILLED else None
        with self._database.writing(durable=False):
            self._add(missing)
            changed = PublishTarget.update(filled=filled)
            self._database.execute(changed.where(PublishTarget.name == self.target))

    def add_studies(self, names: Sequence[str]) -> None:
        """Let these studies be sent again; inside a transaction."""
        self._add({(IMAGING_STUDY, name): (0, now()) for name in names})

    def _add(self, added: dict[tuple[str, str], tuple[int, int]]) -> None:
        row = PublishOutbox
        is_dead = row.state == PublishState.DEAD
        values = [
            {"target": self.target, "type": kind, "name": name, "number": number, "created": at}
            | {"state": PublishState.WAITING, "attempts": 0, "due": 0, "error": "", "outcome": ""}
            for (kind, name), (number, at) in added.items()
        ]
        for one in values:
            # A dead letter that has changed may be taken now. What waits after a failure goes on to wait.
            update = {
                row.number: one["number"],
                row.attempts: Case(None, [(is_dead, 0)], row.attempts),
                row.due: Case(None, [((row.state != PublishState.WAITING), 0)], row.due),
                row.state: PublishState.WAITING.value,
            }
            insert = row.insert(**one).on_conflict(
                conflict_target=[row.target, row.type, row.name], update=update
            )
            self._database.execute(insert)

    def due(self, at: int, without: Iterable[int], count: int, offset: int = 0) -> list[Pending]:
        """Return what is due at a time, at most so many: the oldest first, after them what has failed."""
        row = PublishOutbox
        columns = row.id, row.type, row.name, row.number, row.state, row.attempts, row.created
        query = row.select(*columns).where(*self._waiting(), row.due <= at)
        if taken := list(without):
            query = query.where(row.id.not_in(taken))
        return [
            Pending(*one)
            for one in self._database.rows(query.order_by(row.due, row.id).limit(count).offset(offset))
        ]

    def is_before_studies(self, pending: Pending) -> bool:
        """Return whether studies that changed before this wait: they may still refer to it."""
        row = PublishOutbox
        query = row.select(row.id).where(*self._waiting(), row.type == IMAGING_STUDY)
        return bool(self._database.rows(query.where(row.number < pending.number).limit(1)))

    def take_retried(self) -> bool:
        """Return whether an operator has said since the last call that something is to be tried now."""
        row = PublishOutbox
        is_retried = (row.target == self.target) & (row.due == RETRIED)
        if not self._database.rows(row.select(row.id).where(is_retried).limit(1)):
            return False
        with self._database.writing(durable=False):
            self._database.execute(row.update(due=0).where(is_retried))
        return True

    def next_due(self, at: int) -> float | None:
        """Return when the first will be due after a time, in seconds since 1970; None: nothing will."""
        row = PublishOutbox
        rows = self._database.rows(row.select(fn.MIN(row.due)).where(*self._waiting(), row.due > at))
        return None if rows[0][0] is None else rows[0][0] / 1000

    def _count(self) -> int:
        query = PublishOutbox.select(fn.COUNT(SQL("*"))).where(*self._waiting())
        return int(self._database.rows(query)[0][0])

    def _waiting(self) -> tuple[Any, ...]:
        row = PublishOutbox
        return row.target == self.target, row.state.in_([PublishState.WAITING, PublishState.HELD])

    def done(self, pending: Pending) -> None:
        """It has been sent. What has changed since stays, and is sent again."""
        row = PublishOutbox
        self._database.execute(row.delete().where((row.id == pending.id) & (row.number == pending.number)))
        changed = row.update(state=PublishState.WAITING, attempts=0, due=0, error="", outcome="")
        self._database.execute(changed.where(row.id == pending.id))

    def postpone(self, pending: Pending, seconds: float, error: str, outcome: str, *, attempts: int) -> None:
        """Note a failure: it is tried again after so many seconds."""
        self._note(pending, error, outcome, attempts=attempts, due=now() + int(seconds * 1000))

    def hold(self, pending: Pending, seconds: float, error: str) -> None:
        """Hold it back until the server has what it needs; it is looked again after so many seconds."""
        due = now() + int(seconds * 1000)
        self._note(pending, error, "", state=PublishState.HELD, attempts=pending.attempts + 1, due=due)

    def hold_again(self, pending: Pending, seconds: float, error: str) -> None:
        """Look again after so many seconds at what was sent without something, unless it has changed."""
        row = PublishOutbox
        values = {"number": pending.number, "created": pending.created, "state": PublishState.HELD}
        values |= {"attempts": pending.attempts + 1, "due": now() + int(seconds * 1000), "error": error}
        insert = row.insert(target=self.target, type=pending.type, name=pending.name, outcome="", **values)
        self._database.execute(insert.on_conflict_ignore())

    def give_up(self, pending: Pending, error: str, outcome: str) -> None:
        """Make it a dead letter, unless it has changed meanwhile."""
        row = PublishOutbox
        state = Case(None, [(row.number == pending.number, PublishState.DEAD.value)], row.state)
        self._note(pending, error, outcome, state=state, attempts=pending.attempts + 1)

    def _note(self, pending: Pending, error: str, outcome: str, **changes: Any) -> None:
        texts = {"error": error.replace("\0", ""), "outcome": outcome.replace("\0", "")}
        with self._database.writing(durable=False):
            changed = PublishOutbox.update(**texts, **changes)
            self._database.execute(changed.where(PublishOutbox.id == pending.id))
