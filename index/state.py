"""The state of an index, for health and metrics: also while its database is away."""

from index.database.connection import Database
from index.database.node import NODE_STATES, nodes
from index.errors import NotKept
from index.hooks import State
from index.publication.publisher import Publisher
from index.reception.reception import Reception
from index.storage.object_store import ObjectStore


class StateReader:
    """Reads the state of one index."""

    def __init__(
        self, database: Database, objects: ObjectStore, reception: Reception, publisher: Publisher
    ) -> None:
        self._database = database
        self._objects = objects
        self._reception = reception
        self._publisher = publisher

    def read(self) -> State:
        """Return how it stands now. Raises DatabaseFault, OSError."""
        free = self._objects.room.look()
        conflicts, away, known = None, "", []
        try:
            conflicts = self._reception.conflicts()
            known = [] if self._database.is_sqlite else nodes(self._database)
        except NotKept as error:
            away = str(error)
        return State(
            self._reception.waiting(),
            self._reception.fill(),
            self._reception.is_failing(),
            self._publisher.waiting(),
            self._publisher.failing(),
            self._publisher.lag(),
            conflicts,
            free.bytes,
            self._objects.room.watermark,
            free.inodes,
            free.shortage,
            away,
            self._reception.takes(),
            {state: sum(node.state == state for node in known) for state in NODE_STATES},
            tuple(node.place for node in known if node.has_vanished),
            self._objects.away,
        )
