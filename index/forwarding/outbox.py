"""The outbox: instances that wait to be sent to a peer, in the order of their arrival.

Its rows are added in the transaction that adds an instance, and deleted when the peer has it.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from peewee import JOIN, SQL, Query, fn

from index.database.claims import Work
from index.database.connection import Database
from index.database.instance_rows import StoredObject
from index.database.mark_changed import now
from index.database.node import numbered
from index.database.tables import Instance, OutboxRow, OutboxState
from index.forwarding.listing import OutboxListing
from index.forwarding.rules import Routes
from index.forwarding.settings import RouteSettings
from index.records import StoredInstance
from index.storage.object_store import ObjectStore

# Rows that one statement deletes, far below the 32,766 values that SQLite binds.
BATCH = 500


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An instance that is to be sent. `created`: when it was indexed, in ms since 1970."""

    id: int
    attempts: int
    created: int
    instance: StoredInstance


class Outbox:
    """The outbox of one node, which keeps the objects. Safe to use from many threads."""

    def __init__(
        self, database: Database, objects: ObjectStore, routes: Sequence[RouteSettings] = ()
    ) -> None:
        self._database = database
        self._objects = objects
        self._routes = Routes(routes)
        self._insert = database.compile(_insert)
        # What an operator sees and does: of all nodes.
        self.listing = OutboxListing(database)
        # Called with the peers for whom a transaction has added something, in the thread that did.
        self.on_added: Callable[[Iterable[str]], None] = lambda _: None

    def use(self, routes: Sequence[RouteSettings]) -> None:
        """From now on, instances are forwarded by these routes. What waits is sent as before."""
        self._routes = Routes(routes)

    def add(self, batch: Sequence[StoredObject]) -> list[str]:
        """Add what is to be sent of new instances, in their transaction; return the peers."""
        routes = self._routes
        if not routes:
            return []
        created = now()
        rows: list[dict[str, Any]] = [
            {"node": self._node, "peer": peer, "uid": stored.header.sop_instance_uid, "created": created}
            for stored in batch
            for peer in routes.peers_for(stored)
        ]
        if rows:
            self._insert.run_many(rows)
        return list({row["peer"]: None for row in rows})

    @property
    def _node(self) -> str:
        return str(self._objects.node or "")

    @property
    def routed(self) -> Sequence[str]:
        """The peers to whom any route leads."""
        return self._routes.peers

    def take_over(self) -> int:
        """Take over what silent nodes have left, where this one finds their objects; return how much.

        Raises NotKept.
        """
        if self._database.is_sqlite or not self._objects.is_shared:
            return 0
        silent = [str(number or "") for number, node in numbered(self._database).items() if node.is_silent]
        left = OutboxRow.node.in_([name for name in silent if name != self._node])
        if not self._database.rows(OutboxRow.select(OutboxRow.id).where(left).limit(1)):
            return 0
        with self._database.claims.claimed(Work.OUTBOX) as claim:
            if claim is None:
                return 0
            with self._database.writing():
                return int(self._database.execute(OutboxRow.update(node=self._node).where(left)))

    def counts(self) -> list[tuple[str, OutboxState, int]]:
        """Return how many instances there are for each peer in each state."""
        row = OutboxRow
        query = row.select(row.peer, row.state, fn.COUNT(SQL("*"))).where(row.node == self._node)
        return self._database.rows(query.group_by(row.peer, row.state))

    def oldest(self, peer: str) -> int | None:
        """Return when the oldest that waits for a peer was indexed, in ms since 1970."""
        query = OutboxRow.select(OutboxRow.created).where(*self._waiting(peer)).order_by(OutboxRow.id)
        rows = self._database.rows(query.limit(1))
        return int(rows[0][0]) if rows else None

    def peers(self) -> list[str]:
        """Return the peers for whom there is anything."""
        found: list[str] = []
        row = OutboxRow
        query = row.select(row.peer).where(row.node == self._node).order_by(row.peer).limit(1)
        while rows := self._database.rows(query.where(row.peer > found[-1]) if found else query):
            found += rows[0]
        return found

    def due(self, peer: str, count: int) -> list[Outgoing]:
        """Return what is to be sent to a peer now, in the order of arrival; at most so many.

        What has been deleted meanwhile is left out, and is no longer in the outbox.
        """
        row, instance = OutboxRow, Instance
        columns = (
            instance.uid,
            instance.sop_class_uid,
            instance.transfer_syntax,
            instance.path,
            instance.size,
        )
        query = row.select(row.id, row.attempts, row.created, *columns)
        query = query.join(instance, JOIN.LEFT_OUTER, on=(instance.uid == row.uid))
        query = query.where(*self._waiting(peer), row.due <= now()).order_by(row.id).limit(count)
        while rows := self._database.rows(query):
            gone = [row_id for row_id, _, _, uid, *_ in rows if uid is None]
            if gone:
                self.remove(gone)
            found = [
                Outgoing(row_id, attempts, created, StoredInstance(*stored))
                for row_id, attempts, created, *stored in rows
                if stored[0] is not None
            ]
            if found:
                return found
        return []

    def next_due(self, peer: str) -> int | None:
        """Return when the next is due, in ms since 1970; None where nothing waits for this peer."""
        rows = self._database.rows(OutboxRow.select(fn.MIN(OutboxRow.due)).where(*self._waiting(peer)))
        return None if rows[0][0] is None else int(rows[0][0])

    def remove(self, rows: Sequence[int]) -> None:
        """Delete these rows: the peer has the instances, or nobody has them any more."""
        # A power cut may bring rows back: the peer then gets the instance once more.
        with self._database.writing(durable=False):
            for start in range(0, len(rows), BATCH):
                some = list(rows[start : start + BATCH])
                self._database.execute(OutboxRow.delete().where(OutboxRow.id.in_(some)))

    def postpone(self, outgoing: Outgoing, seconds: float, error: str) -> None:
        """Note an attempt that failed; the next one is made after so many seconds."""
        self._note(outgoing, error, due=now() + int(seconds * 1000) if seconds else 0)

    def note_peer(self, outgoing: Outgoing, error: str) -> None:
        """Note why its peer cannot be reached, where `forward status` finds it."""
        with self._database.writing(durable=False):
            self._database.execute(OutboxRow.update(error=error).where(OutboxRow.id == outgoing.id))

    def give_up(self, outgoing: Outgoing, error: str) -> None:
        """Make it a dead letter."""
        self._note(outgoing, error, state=OutboxState.DEAD)

    def _note(self, outgoing: Outgoing, error: str, **changes: object) -> None:
        with self._database.writing(durable=False):
            self._database.execute(
                OutboxRow.update(
                    attempts=outgoing.attempts + 1, error=error.replace("\0", ""), **changes
                ).where(OutboxRow.id == outgoing.id)
            )

    def _waiting(self, peer: str) -> tuple[object, ...]:
        row = OutboxRow
        return row.node == self._node, row.peer == peer, row.state == OutboxState.WAITING


def _insert(p: Callable[[str], SQL]) -> Query:
    zero = SQL("0")
    values = {"state": SQL("'waiting'"), "attempts": zero, "due": zero, "error": SQL("''")}
    row = OutboxRow.insert(node=p("node"), peer=p("peer"), uid=p("uid"), created=p("created"), **values)
    # An instance that was deleted has left no row; should one be there, it counts for the new instance.
    return row.on_conflict(
        conflict_target=[OutboxRow.uid, OutboxRow.peer],
        update={getattr(OutboxRow, name): value for name, value in values.items()},
    )
