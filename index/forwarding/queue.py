"""A queue of the outbox: what waits to be sent to each peer, in the order in which it was added."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from peewee import SQL, Query, fn

from index.database.connection import Database
from index.database.mark_changed import now
from index.database.tables import OutboxKind, OutboxRow, OutboxState
from index.storage.object_store import ObjectStore

# Rows that one statement deletes, far below the 32,766 values that SQLite binds.
BATCH = 500
LOOK_SECONDS = {True: 300.0, False: 10.0}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Something that is to be sent. `uid` names it, `created` is when it was added, in ms since 1970."""

    id: int
    attempts: int
    created: int
    uid: str

    @property
    def size(self) -> int:
        """How many bytes it has; 0 where that is not known."""
        return 0


One = TypeVar("One", bound=Waiting)


class Queue(ABC, Generic[One]):
    """What one node sends, of one kind. Safe to use from many threads."""

    kind: OutboxKind

    @abstractmethod
    def due(self, peer: str, count: int) -> list[One]:
        """Return what is to be sent to a peer now, in the order in which it was added; at most so many."""

    @property
    @abstractmethod
    def wanted_by(self) -> Sequence[str]:
        """The peers for whom something is added, as it is configured now."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects
        # Called with the peers for whom a transaction has added something, in the thread that did.
        self.on_added: Callable[[Iterable[str]], None] = lambda _: None
        # Called where another process may have changed something.
        self.on_look: Callable[[], None] = lambda: None

    @property
    def look_seconds(self) -> float:
        """How soon it is seen what another node has left, in seconds; an SQLite index has one node."""
        return LOOK_SECONDS[self._database.is_sqlite]

    @property
    def node(self) -> str:
        """The node as the rows have it; empty where there is one only."""
        return str(self._objects.node or "")

    def counts(self) -> list[tuple[str, OutboxState, int]]:
        """Return how much there is for each peer in each state."""
        row = OutboxRow
        query = row.select(row.peer, row.state, fn.COUNT(SQL("*"))).where(*self._mine())
        return self._database.rows(query.group_by(row.peer, row.state))

    def oldest(self, peer: str) -> int | None:
        """Return when the oldest that waits for a peer was added, in ms since 1970."""
        query = OutboxRow.select(OutboxRow.created).where(*self.waiting(peer)).order_by(OutboxRow.id)
        rows = self._database.rows(query.limit(1))
        return int(rows[0][0]) if rows else None

    def peers(self) -> list[str]:
        """Return the peers for whom there is anything."""
        found: list[str] = []
        row = OutboxRow
        query = row.select(row.peer).where(*self._mine()).order_by(row.peer).limit(1)
        while rows := self._database.rows(query.where(row.peer > found[-1]) if found else query):
            found += rows[0]
        return found

    def look(self) -> list[str]:
        """Return the peers for whom there is anything to be sent here."""
        return self.peers()

    def next_due(self, peer: str) -> int | None:
        """Return when the next is due, in ms since 1970; None where nothing waits for this peer."""
        rows = self._database.rows(OutboxRow.select(fn.MIN(OutboxRow.due)).where(*self.waiting(peer)))
        return None if rows[0][0] is None else int(rows[0][0])

    def remove(self, rows: Sequence[int]) -> None:
        """Delete these rows: the peer has what they name, or nobody has it any more."""
        # A power cut may bring rows back: the peer then gets it once more.
        with self._database.writing(durable=False):
            for start in range(0, len(rows), BATCH):
                some = list(rows[start : start + BATCH])
                self._database.execute(OutboxRow.delete().where(OutboxRow.id.in_(some)))

    def postpone(self, one: Waiting, seconds: float, error: str) -> None:
        """Note an attempt that failed; the next one is made after so many seconds."""
        self._note(one, error, due=now() + int(seconds * 1000) if seconds else 0)

    def note_peer(self, one: Waiting, error: str) -> None:
        """Note why its peer cannot be reached, where `forward status` finds it."""
        with self._database.writing(durable=False):
            self._database.execute(OutboxRow.update(error=error).where(OutboxRow.id == one.id))

    def give_up(self, one: Waiting, error: str) -> None:
        """Make it a dead letter."""
        self._note(one, error, state=OutboxState.DEAD)

    def _note(self, one: Waiting, error: str, **changes: object) -> None:
        with self._database.writing(durable=False):
            self._database.execute(
                OutboxRow.update(attempts=one.attempts + 1, error=error.replace("\0", ""), **changes).where(
                    OutboxRow.id == one.id
                )
            )

    def _mine(self) -> tuple[object, ...]:
        return OutboxRow.node == self.node, OutboxRow.kind == self.kind

    def waiting(self, peer: str) -> tuple[object, ...]:
        """Return the conditions of the rows that wait for a peer."""
        return *self._mine(), OutboxRow.peer == peer, OutboxRow.state == OutboxState.WAITING


def insert_row(p: Callable[[str], SQL]) -> Query:
    """Add a row; one that is there counts for what is added now, as if it were new."""
    zero = SQL("0")
    values = {"state": SQL("'waiting'"), "attempts": zero, "due": zero, "error": SQL("''")}
    row = OutboxRow.insert(
        node=p("node"), kind=p("kind"), peer=p("peer"), uid=p("uid"), created=p("created"), **values
    )
    return row.on_conflict(
        conflict_target=[OutboxRow.uid, OutboxRow.peer, OutboxRow.kind],
        update={getattr(OutboxRow, name): value for name, value in values.items()},
    )
