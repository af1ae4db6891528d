"""What an operator sees and does of the outboxes of targets: see index/forwarding/listing.py."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from peewee import SQL, fn

from index.database.connection import Database
from index.database.tables import Change
from index.database.target_tables import PublishOutbox, PublishState, PublishTarget
from index.publication.targets.outbox import RETRIED

# Rows in memory at one time.
PAGE = 500


@dataclass(frozen=True, slots=True)
class TargetFilter:
    """Which rows: of one target, and of one study by its UID. Empty: of all."""

    target: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True)
class TargetEntry:
    """Something for a target. Times in ms since 1970; `due` is 0 where it may be tried at once.

    `outcome`: the server's OperationOutcome, as JSON, or what it said instead.
    """

    target: str
    type: str
    name: str
    state: str
    attempts: int
    created: int
    due: int
    error: str
    outcome: str

    @property
    def issues(self) -> list[str]:
        """What the server's OperationOutcome says."""
        try:
            return issues(orjson.loads(self.outcome))
        except ValueError:
            return [self.outcome] if self.outcome else []


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """How much waits for a target, is held back, and is dead; `oldest`: since when, in ms since 1970.

    `behind`: entries of the change feed that are not in its outbox yet. `is_filling`: studies that were there
    before it are still taken up.
    """

    target: str
    waiting: int
    held: int
    dead: int
    oldest: int | None
    behind: int
    is_filling: bool
    error: str


class TargetListing:
    """The outboxes of all targets; `names` returns those of the configuration."""

    def __init__(self, database: Database, names: Callable[[], Sequence[str]]) -> None:
        self._database = database
        self._names = names

    def entries(self, wanted: TargetFilter, *, waiting: bool = False) -> Iterator[TargetEntry]:
        """Yield the dead letters, or also what waits, in the order in which it changed."""
        row, last = PublishOutbox, 0
        columns = row.target, row.type, row.name, row.state, row.attempts, row.created, row.due, row.error
        query = row.select(row.id, *columns, row.outcome).order_by(row.id)
        which = self._which(wanted, waiting=waiting)
        while rows := self._database.rows(query.where(which, row.id > last).limit(PAGE)):
            last = rows[-1][0]
            for _, *values in rows:
                yield TargetEntry(*values)

    def status(self) -> list[TargetStatus]:
        """Return the state of each target that is configured or has something left."""
        row = PublishOutbox
        # First, since what is taken up meanwhile is then counted twice, and not left out.
        behind = self._behind()
        query = row.select(row.target, row.state, fn.COUNT(SQL("*"))).group_by(row.target, row.state)
        counts: dict[str, dict[str, int]] = {name: {} for name in self._names()}
        for target, state, count in self._database.rows(query.order_by(row.target)):
            counts.setdefault(target, {})[state] = count
        return [
            self._status(target, by_state, *behind.get(target, (0, True)))
            for target, by_state in counts.items()
        ]

    def _behind(self) -> dict[str, tuple[int, bool]]:
        """Return for each target how far it is behind the feed, and whether it is filled yet."""
        row = PublishTarget
        last = self._database.rows(Change.select(fn.MAX(Change.id)))[0][0] or 0
        rows = self._database.rows(row.select(row.name, row.position, row.filled))
        return {name: (max(0, last - position), filled is not None) for name, position, filled in rows}

    def _status(self, target: str, counts: dict[str, int], behind: int, is_filling: bool) -> TargetStatus:  # noqa: FBT001
        row = PublishOutbox
        waiting = (row.target == target) & (row.state == PublishState.WAITING)
        first = row.select(row.created, row.error).where(waiting).order_by(row.id).limit(1)
        ((oldest, error),) = self._database.rows(first) or [(None, "")]
        return TargetStatus(
            target,
            counts.get(PublishState.WAITING, 0),
            counts.get(PublishState.HELD, 0),
            counts.get(PublishState.DEAD, 0),
            oldest,
            behind,
            is_filling,
            error,
        )

    def retry(self, wanted: TargetFilter) -> int:
        """Let dead letters, and what waits for its next attempt, be tried at once; return how many."""
        row = PublishOutbox
        is_idle = (row.state != PublishState.WAITING) | (row.due > 0)
        again = row.update(state=PublishState.WAITING, attempts=0, due=RETRIED)
        with self._database.writing():
            return int(self._database.execute(again.where(self._which(wanted, waiting=True) & is_idle)))

    def drop(self, wanted: TargetFilter, *, waiting: bool = False) -> int:
        """Delete dead letters, or also what waits, without sending it; return how many."""
        with self._database.writing():
            which = self._which(wanted, waiting=waiting)
            return int(self._database.execute(PublishOutbox.delete().where(which)))

    def _which(self, wanted: TargetFilter, *, waiting: bool) -> Any:
        row = PublishOutbox
        which = row.state.in_(list(PublishState) if waiting else [PublishState.DEAD])
        if wanted.target:
            which &= row.target == wanted.target
        if wanted.uid:
            which &= row.name == wanted.uid
        return which


def issues(outcome: Any) -> list[str]:
    """Return what the issues of an OperationOutcome say (FHIR operationoutcome.html)."""
    found = []
    for issue in outcome.get("issue") or () if isinstance(outcome, dict) else ():
        if isinstance(issue, dict):
            details = issue.get("details")
            text = issue.get("diagnostics") or (details.get("text") if isinstance(details, dict) else "")
            at = issue.get("expression") or issue.get("location") or ()
            where = ", ".join(map(str, at)) if isinstance(at, list) else ""
            said = str(text or issue.get("code") or "")
            found.append(f"{where}: {said}" if where else said)
    return found
