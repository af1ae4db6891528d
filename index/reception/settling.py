"""Settling: files and index are made durable together, and then a part of the journal is free again."""

import contextlib
import time
from collections.abc import Callable

import peewee
import structlog

from index.database.connection import Database
from index.database.tables import Change
from index.errors import CommitsLost, IndexFault
from index.reception.indexer import Indexer
from index.reception.log import ReceptionLog
from index.reception.position import Position
from index.reception.recovery import Replay
from index.storage.object_store import ObjectStore
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

# The first record of a part waits for no more than so many seconds.
SETTLE_SECONDS = 0.5
# After a disk's failure, in seconds.
RETRY_SECONDS = 5.0
# How often deletions are looked for, in seconds: no trace of one stays for more than a minute.
LOOK_SECONDS = 20.0

# Numbers of removed objects are given once: the newest stays known after its row has gone.
_REMOVED_SQLITE = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'removed_object'"
_REMOVED_POSTGRESQL = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM removed_object_id_seq"
# A resource is deleted some time after its instances: with it go the names that it was found by.
_DELETED_RESOURCES = "SELECT max(id), max(kind = 'deleted') FROM change WHERE id > ?"


class Settling:
    """The thread that settles a log while there is something to settle, and wipes what was deleted."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        reception_log: ReceptionLog,
        indexer: Indexer,
        replay: Replay,
        unlink_removed: Callable[[], object],
        workers: Supervisor,
    ) -> None:
        self._database = database
        self._objects = objects
        self._position = Position(database, objects)
        self._log = reception_log
        self._indexer = indexer
        self._replay = replay
        self._unlink_removed = unlink_removed
        self._worker = workers.add("settling", self._run)
        self._settled = 0
        self._deletions = Deletions(database)

    def prepare(self) -> None:
        """Do what `start` needs and may fail. Raises OSError, NotKept, DatabaseFault."""
        self._objects.watch()
        self._deletions.begin()

    def start(self, settled: int) -> None:
        """Begin; the records up to this number are settled."""
        self._settled = settled
        self._worker.start()

    def stop(self) -> bool:
        """Settle what is left and end; return whether all is settled. The log is closed before."""
        self._worker.stop()
        return self._settled == self._log.last

    def _run(self) -> None:
        while self._wait():
            self._worker.beat()
            part, number = self._log.turn()
            if not self._indexer.catch_up(number):
                # The database is damaged, or the daemon stops while it is away: the journal keeps them.
                break
            while not self._settle(number):
                if self._worker.wait(RETRY_SECONDS):
                    return
            if self._deletions.is_to_wipe(part):
                self._wipe(part)
            self._worker.done()
        with self._worker.waiting():
            self._worker.stopping.wait()

    def _wait(self) -> bool:
        """Wait until something is to be settled or wiped; return False at the end."""
        with self._worker.waiting():
            while not self._log.wait_until_needed(LOOK_SECONDS):
                if not self._log.is_open:
                    return False
                if self._deletions.look():
                    return True
            self._log.wait_while_roomy(SETTLE_SECONDS)
            self._deletions.look()
        return True

    def _sync_objects(self) -> None:
        try:
            self._objects.settle_placed()
        except OSError:
            log.exception("objects_not_synced")
            self._replay.write_again()

    def _settle(self, number: int) -> bool:
        """Sync objects and rows of all records up to `number`; return whether that was possible.

        What is indexed meanwhile may have been placed after the sync: its records are still needed.
        """
        try:
            self._sync_objects()
            with self._database.writing():
                self._position.advance(number, settled=number)
            self._settled = number
            self._unlink_removed()
            self._log.release()
        except (IndexFault, OSError) as error:
            if isinstance(error, CommitsLost):
                self._indexer.commits_lost()
            log.exception("not_settled")
            self._worker.failed(error)
            return False
        return True

    def _wipe(self, part: int) -> None:
        try:
            self._log.wipe()
        except OSError:
            log.exception("journal_not_wiped")
        else:
            self._deletions.wiped(part)


class Deletions:
    """Tells which parts of the journal may hold what was deleted since they were last wiped."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._removed = 0
        self._last_change = 0
        self._look_again = 0.0
        self._parts: set[int] = set()
        self._log_is_to_empty = False

    def begin(self) -> None:
        """Nothing that was deleted before matters. Raises NotKept, DatabaseFault."""
        self._removed = self._ever_removed()
        self._last_change = self._database.rows(Change.select(peewee.fn.MAX(Change.id)))[0][0] or 0

    def look(self) -> bool:
        """See whether anything was deleted, also by another process; return whether a part is to be wiped."""
        now = time.monotonic()
        if now >= self._look_again:
            self._look_again = now + LOOK_SECONDS
            with contextlib.suppress(IndexFault):  # the next look tells as well
                removed = self._ever_removed()
                if removed != self._removed:
                    self._removed, self._parts = removed, {0, 1}
                    self._log_is_to_empty = self._database.is_sqlite
                if self._resource_was_deleted():
                    self._log_is_to_empty = True
                if self._log_is_to_empty:
                    self._log_is_to_empty = not self._database.empty_log()
        return bool(self._parts)

    def is_to_wipe(self, part: int) -> bool:
        """Tell whether a part may hold what was deleted."""
        return part in self._parts

    def wiped(self, part: int) -> None:
        """A part holds nothing of it any more."""
        self._parts.discard(part)

    def _ever_removed(self) -> int:
        query = _REMOVED_SQLITE if self._database.is_sqlite else _REMOVED_POSTGRESQL
        with self._database.connection():
            return int(self._database.peewee.execute_sql(query).fetchone()[0])

    def _resource_was_deleted(self) -> bool:
        """Tell whether the feed has had such an entry since the last look. PostgreSQL has no log of ours."""
        if not self._database.is_sqlite:
            return False
        with self._database.connection():
            query = self._database.peewee.execute_sql(_DELETED_RESOURCES, (self._last_change,))
            last, deleted = query.fetchone()
        self._last_change = last or self._last_change
        return bool(deleted)
