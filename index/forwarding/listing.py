"""What an operator sees and does of the outbox: it is counted and listed, dead letters retried or dropped."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from peewee import JOIN, SQL, fn

from index.database.connection import Database
from index.database.node import numbered
from index.database.tables import Instance, OutboxKind, OutboxRow, OutboxState, Series, Study

# Rows in memory at one time.
PAGE = 500


@dataclass(frozen=True, slots=True)
class OutboxFilter:
    """Which rows: of one peer, and of one study, series or instance by its UID. Empty: of all."""

    peer: str = ""
    uid: str = ""


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An instance, or a notification of a study, for a peer. `due` is 0 where it may be tried at once.

    Times are in ms since 1970. `study_uid` is empty where the instance has been deleted.
    """

    kind: str
    peer: str
    uid: str
    study_uid: str
    state: str
    attempts: int
    created: int
    due: int
    error: str


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How much waits for a peer, since when the first does, in ms since 1970, and why still.

    `silent`: how much of it only a node can send that is not served now, by its host and path.
    """

    peer: str
    waiting: int
    dead: int
    oldest: int | None
    error: str
    silent: dict[str, int]


class OutboxListing:
    """The outbox of all nodes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def entries(self, wanted: OutboxFilter, *, waiting: bool = False) -> Iterator[OutboxEntry]:
        """Yield the dead letters, or also those that wait, in the order of arrival."""
        row, last = OutboxRow, 0
        columns = row.kind, row.peer, row.uid, Study.uid, row.state, row.attempts, row.created, row.due
        query = row.select(row.id, *columns, row.error).join(
            Instance, JOIN.LEFT_OUTER, on=(Instance.uid == row.uid)
        )
        query = query.join(Series, JOIN.LEFT_OUTER).join(Study, JOIN.LEFT_OUTER).order_by(row.id)
        which = self._which(wanted, waiting=waiting)
        while rows := self._database.rows(query.where(which, row.id > last).limit(PAGE)):
            last = rows[-1][0]
            for _, kind, peer, uid, study_uid, *others in rows:
                study = uid if kind == OutboxKind.NOTIFICATION else study_uid or ""
                yield OutboxEntry(kind, peer, uid, study, *others)

    def status(self) -> list[OutboxStatus]:
        """Return the state for each peer for whom there is anything."""
        row = OutboxRow
        is_dead = row.state == OutboxState.DEAD
        counts: dict[str, list[int]] = {}
        silent: dict[str, dict[str, int]] = {}
        places = self._silent_places()
        group = row.peer, row.state, row.node
        query = row.select(*group, fn.COUNT(SQL("*"))).group_by(*group)
        for peer, state, node, count in self._database.rows(query.order_by(*group)):
            counts.setdefault(peer, [0, 0])[state == OutboxState.DEAD] += count
            if node in places and state != OutboxState.DEAD:
                silent.setdefault(peer, {})[places[node]] = count
        found = []
        for peer, (waiting, dead) in counts.items():
            first = row.select(row.created, row.error).where(row.peer == peer, ~is_dead).order_by(row.id)
            oldest, error = next(iter(self._database.rows(first.limit(1))), (None, ""))
            found.append(OutboxStatus(peer, waiting, dead, oldest, error, silent.get(peer, {})))
        return found

    def _silent_places(self) -> dict[str, str]:
        """Return host and path of each node that is silent, by what the outbox calls it."""
        if self._database.is_sqlite:
            return {}
        found = numbered(self._database)
        return {
            str(number or ""): f"{node.host}:{node.path}" for number, node in found.items() if node.is_silent
        }

    def retry(self, wanted: OutboxFilter) -> int:
        """Let dead letters, and what waits for its next attempt, be tried at once; return how many."""
        row = OutboxRow
        which = self._which(wanted, waiting=True) & ((row.state == OutboxState.DEAD) | (row.due > 0))
        with self._database.writing():
            return int(
                self._database.execute(row.update(state=OutboxState.WAITING, attempts=0, due=0).where(which))
            )

    def drop(self, wanted: OutboxFilter, *, waiting: bool = False) -> int:
        """Delete dead letters, or also what waits, without sending it; return how many."""
        with self._database.writing():
            which = self._which(wanted, waiting=waiting)
            return int(self._database.execute(OutboxRow.delete().where(which)))

    def _which(self, wanted: OutboxFilter, *, waiting: bool) -> Any:
        row = OutboxRow
        which = row.state.in_(list(OutboxState) if waiting else [OutboxState.DEAD])
        if wanted.peer:
            which &= row.peer == wanted.peer.strip()
        if wanted.uid:
            below = Instance.select(Instance.uid).join(Series).join(Study)
            below = below.where((Study.uid == wanted.uid) | (Series.uid == wanted.uid))
            which &= (row.uid == wanted.uid) | row.uid.in_(below)
        return which
