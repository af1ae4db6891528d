"""How far the journal of a node is indexed, and how far its instances are durable without it."""

from index.database.connection import Database
from index.database.tables import JournalPosition
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

    def set(self, **numbers: int) -> None:
        """Set `number`, which is the last record that is indexed, or `settled`, or both."""
        row = JournalPosition
        if not self._database.execute(row.update(**numbers).where(row.node == self._objects.node)):
            values = {"number": 0, "settled": 0, **numbers}
            self._database.execute(row.insert(node=self._objects.node, **values))
