"""An operator accepts a data set that is kept aside: it replaces the instance that has its UID."""

from collections.abc import Callable

from index.database.connection import Database
from index.database.tables import Conflict, Instance
from index.errors import NotFound, NotKept
from index.forwarding.outbox import Outbox
from index.hooks import Observer
from index.reception.arrival import Outcome
from index.reception.direct import DirectIndexing
from index.reception.import_files import FileImport
from index.reception.indexing import Indexing
from index.reception.reporting import Reporter
from index.storage.object_store import ObjectStore

# The replaced data set is kept aside whatever [storage] conflicts says: as many are kept aside as before.
NO_LIMIT = 1 << 62


class ConflictAcceptance:
    """Lets data sets that are kept aside replace the indexed ones, which are kept aside instead."""

    def __init__(
        self, database: Database, objects: ObjectStore, outbox: Outbox, unlink_removed: Callable[[], object]
    ) -> None:
        self._database = database
        self._objects = objects
        self._outbox = outbox
        self._unlink_removed = unlink_removed

    def accept(self, path: str) -> str:
        """Accept the data set of this path; return its SOP Instance UID. Raises NotFound, NotKept.

        A running daemon publishes the study, or `publish`.
        """
        rows = self._database.rows(Conflict.select(Conflict.uid, Conflict.sha1).where(Conflict.path == path))
        if not rows:
            raise NotFound(f"{path} is no data set in conflict")
        ((uid, sha1),) = rows
        if not self._objects.holds(path):
            raise NotKept(f"{path}: another node keeps it")
        indexing = Indexing(
            self._database, self._objects, self._outbox, replace=True, conflicts_kept=NO_LIMIT
        )
        direct = DirectIndexing(
            self._objects, indexing, Reporter(Observer(), lambda *_: None), self._unlink_removed
        )
        self._objects.watch()
        report = FileImport(self._objects, indexing, direct, lambda: None, lambda: False, lambda: None).run(
            [self._objects.data / path]
        )
        for _, reason in (*report.failed, *report.passed_over):
            raise NotKept(f"{path}: {reason}")
        if report.outcomes[Outcome.REPLACED]:
            self._unlink_removed()
        mine = Instance.select(Instance.id).where((Instance.uid == uid) & (Instance.sha1 == sha1))
        if not self._database.rows(mine):
            raise NotKept(f"{path}: instance {uid} still has another data set")
        return str(uid)
