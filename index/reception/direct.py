"""Indexing without a log: a group of arrivals is synced, placed and committed before it is acknowledged."""

import contextlib
from collections.abc import Callable, Sequence

from index.errors import IndexFault, NotKept
from index.reception.arrival import Arrival, Outcome
from index.reception.batching import GroupLeader
from index.reception.indexing import Indexing
from index.reception.reporting import Reporter
from index.storage.object_store import ObjectStore


class DirectIndexing:
    """Indexes arrivals durably, those of all threads that wait at a moment together."""

    def __init__(
        self,
        objects: ObjectStore,
        indexing: Indexing,
        reporter: Reporter,
        unlink_removed: Callable[[], object],
    ) -> None:
        self._objects = objects
        self._indexing = indexing
        self._reporter = reporter
        self._unlink_removed = unlink_removed
        self._groups = GroupLeader(self._act)

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        """Return when these arrivals are durable. One that has an error then must not be relied on."""
        self._groups.submit(*(one for one in arrivals if not self._objects.uploads or self._upload(one)))

    def _upload(self, arrival: Arrival) -> bool:
        """Upload a small object, in the thread that has received it; return whether that was done."""
        if arrival.content is not None:
            try:
                arrival.incoming = self._objects.write_incoming(arrival.content, arrival.stored.path)
            except OSError as error:
                arrival.error = NotKept(f"objects: {error.strerror}")
                return False
            arrival.content = None
        return True

    def _act(self, arrivals: Sequence[Arrival]) -> None:
        self.index(arrivals)
        if any(arrival.outcome is Outcome.REPLACED for arrival in arrivals):
            with contextlib.suppress(IndexFault):  # the next start or deletion finishes it
                self._unlink_removed()
        self._reporter.report([arrival for arrival in arrivals if arrival.is_indexed])

    def index(self, arrivals: Sequence[Arrival]) -> None:
        """Sync and index a group. One that cannot be indexed has an error then, and leaves no file behind."""
        try:
            for arrival in arrivals:
                if arrival.content is not None:
                    arrival.incoming = self._objects.write_incoming(arrival.content, arrival.stored.path)
                    arrival.content = None
            self._objects.sync_group([arrival.incoming for arrival in arrivals])
            self._indexing.index(arrivals, durable=True)
        except Exception as error:  # noqa: BLE001  each sender is told
            left = [arrival for arrival in arrivals if not arrival.is_indexed]
            for arrival in left:
                arrival.error = NotKept(f"objects: {error.strerror}") if isinstance(error, OSError) else error
            self._discard(left)

    def _discard(self, arrivals: Sequence[Arrival]) -> None:
        """Remove the files of arrivals that have no row.

        Where that cannot be told, after a commit of unknown result, they stay: the next start indexes an
        object that has none.
        """
        try:
            known = self._indexing.known([arrival.uid for arrival in arrivals])
        except IndexFault:
            return
        paths = {path for arrival in arrivals for path in (arrival.source, arrival.stored.path)}
        for path in paths - {existing.path for existing in known.values()}:
            with contextlib.suppress(OSError):
                self._objects.discard(path)
