"""The outbox: instances that wait to be sent to a peer, in the order of their arrival.

Its rows are added in the transaction that adds an instance, and deleted when the peer has it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from peewee import JOIN

from index.database.claims import Work
from index.database.connection import Database
from index.database.instance_rows import StoredObject
from index.database.mark_changed import now
from index.database.node import numbered
from index.database.tables import Instance, OutboxKind, OutboxRow
from index.forwarding.listing import OutboxListing
from index.forwarding.queue import Queue, Waiting, insert_row
from index.forwarding.rules import Routes
from index.forwarding.settings import RouteSettings
from index.records import StoredInstance
from index.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Outgoing(Waiting):
    """An instance that is to be sent."""

    instance: StoredInstance

    @property
    def size(self) -> int:
        """See Waiting."""
        return self.instance.size


class Outbox(Queue[Outgoing]):
    """The instances that one node sends: it keeps their objects."""

    kind = OutboxKind.INSTANCE

    def __init__(
        self, database: Database, objects: ObjectStore, routes: Sequence[RouteSettings] = ()
    ) -> None:
        super().__init__(database, objects)
        self._routes = Routes(routes)
        self._insert = database.compile(insert_row)
        # What an operator sees and does: of all nodes.
        self.listing = OutboxListing(database)

    def use(self, routes: Sequence[RouteSettings]) -> None:
        """From now on, instances are forwarded by these routes. What waits is sent as before."""
        self._routes = Routes(routes)

    def add(self, batch: Sequence[StoredObject]) -> list[str]:
        """Add what is to be sent of new instances, in their transaction; return the peers."""
        routes = self._routes
        if not routes:
            return []
        same: dict[str, Any] = {"node": self.node, "kind": self.kind.value, "created": now()}
        rows: list[dict[str, Any]] = [
            {**same, "peer": peer, "uid": stored.header.sop_instance_uid}
            for stored in batch
            for peer in routes.peers_for(stored)
        ]
        if rows:
            self._insert.run_many(rows)
        return list({row["peer"]: None for row in rows})

    @property
    def wanted_by(self) -> Sequence[str]:
        """The peers to whom any route leads."""
        return self._routes.peers

    def take_over(self) -> int:
        """Take over what silent nodes have left, where this one finds their objects; return how much.

        Raises NotKept.
        """
        if self._database.is_sqlite or not self._objects.sees_all:
            return 0
        silent = [str(number or "") for number, node in numbered(self._database).items() if node.is_silent]
        left = OutboxRow.node.in_([name for name in silent if name != self.node])
        if not self._database.rows(OutboxRow.select(OutboxRow.id).where(left).limit(1)):
            return 0
        with self._database.claims.claimed(Work.OUTBOX) as claim:
            if claim is None:
                return 0
            with self._database.writing():
                return int(self._database.execute(OutboxRow.update(node=self.node).where(left)))

    def look(self) -> list[str]:
        """See Queue. What silent nodes have left is taken over first."""
        if taken := self.take_over():
            log.warning("forwarding_taken_over", instances=taken)
        return self.peers()

    def due(self, peer: str, count: int) -> list[Outgoing]:
        """See Queue. Instances are in the order of their arrival.

        What has been deleted meanwhile is left out, and is no longer in the outbox.
        """
        row, instance = OutboxRow, Instance
        columns = instance.sop_class_uid, instance.transfer_syntax, instance.path, instance.size
        query = row.select(row.id, row.attempts, row.created, row.uid, *columns)
        query = query.join(instance, JOIN.LEFT_OUTER, on=(instance.uid == row.uid))
        query = query.where(*self.waiting(peer), row.due <= now()).order_by(row.id).limit(count)
        while rows := self._database.rows(query):
            gone = [row_id for row_id, *_, path, _ in rows if path is None]
            if gone:
                self.remove(gone)
            found = [
                Outgoing(row_id, attempts, created, uid, StoredInstance(uid, *stored))
                for row_id, attempts, created, uid, *stored in rows
                if stored[0] is not None
            ]
            if found:
                return found
        return []
