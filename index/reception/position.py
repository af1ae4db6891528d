"""How far the journal of a node is indexed, and how far its instances are durable without it.

Commits of the indexer do not wait for the disk. A server that crashes, or is replaced by a replica, may lose
the last of them while the daemon goes on: then its row tells of fewer records than the daemon has committed.
"""

from index.database.connection import Database
from index.database.tables import JournalPosition
from index.errors import CommitsLost
from index.storage.object_store import ObjectStore


class Position:
    """The row of a node; SQLite has one. Its setters are called in a write transaction."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects

    def read(self) -> tuple[int, int]:
        """Return the number of the last record that is indexed, and of the last that is settled."""
        row = JournalPosition
        query = row.select(row.number, row.settled).where(row.node == self._objects.node)
        found = self._database.rows(query)
        return found[0] if found else (0, 0)

    def advance(self, known: int, **numbers: int) -> None:
        """Set the same where the records up to `known` are still indexed. Raises CommitsLost."""
        row = JournalPosition
        mine = (row.node == self._objects.node) & (row.number >= known)
        if not self._database.execute(row.update(**numbers).where(mine)):
            raise CommitsLost(f"database: has lost commits: record {known} of the journal is indexed anew")

    def set(self, **numbers: int) -> None:
        """Set `number`, which is the last record that is indexed, or `settled`, or both."""
        row = JournalPosition
        if not self._database.execute(row.update(**numbers).where(row.node == self._objects.node)):
            # The first row was made with id 1, by a migration; no sequence has counted it.
            node = self._objects.node
            self._database.execute(
                row.insert(**{"number": 0, "settled": 0, **numbers}, id=node + 1, node=node)
            )
