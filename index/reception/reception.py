"""Reception as a whole: through the log while the daemon serves, without one elsewhere."""

import contextlib
import errno
import math
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import structlog

from index.database.connection import Database
from index.database.tables import Study
from index.dicom.part10 import NotPart10
from index.errors import IndexFault, Locked, NotKept
from index.forwarding.outbox import Outbox
from index.hooks import Observer
from index.reception.arrival import Outcome
from index.reception.direct import DirectIndexing
from index.reception.import_files import FileImport, Report
from index.reception.indexer import Indexer, OnEnded
from index.reception.indexing import Indexing
from index.reception.instance import InstanceReceiver, Way
from index.reception.log import ReceptionLog
from index.reception.position import Position
from index.reception.recovery import Replay, index_object, index_orphans
from index.reception.reporting import OnIndexed, Reporter
from index.reception.settling import Settling
from index.records import Origin
from index.settings import StorageSettings
from index.storage.journal import Journal, is_left
from index.storage.lock import DirectoryLock
from index.storage.object_store import ObjectStore
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

NO_ROOM = frozenset((errno.ENOSPC, errno.EDQUOT))
# After how long a log that could not be replayed, or had no room on the disk, is tried again, in seconds.
AGAIN_SECONDS = 5.0
WITHOUT_LOG = "without a journal each object is indexed and synced by itself"


class Reception:
    """How instances come into the index of a data directory. Safe to use from many threads."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        outbox: Outbox,
        storage: StorageSettings,
        observer: Observer,
        workers: Supervisor,
        on_indexed: OnIndexed,
        on_ended: OnEnded,
        unlink_removed: Callable[[], object],
    ) -> None:
        self._database = database
        self._objects = objects
        self._folder = objects.journal
        self._on_ended = on_ended
        # When the last instance began to come in, on the monotonic clock.
        self.last_received = -math.inf
        self._is_replayed = True
        # When the log is tried again, on the monotonic clock.
        self._open_again = math.inf
        self._opening = threading.Lock()
        self._unlink_removed = unlink_removed
        self._indexing = Indexing(
            database,
            objects,
            outbox,
            replace=storage.duplicates == "replace",
            conflicts_kept=storage.conflicts,
        )
        reporter = Reporter(observer, on_indexed)
        self._direct = DirectIndexing(objects, self._indexing, reporter, unlink_removed)
        position = Position(database, objects)
        self._replay = Replay(database, objects, self._indexing, self._folder)
        again = self._replay.index_again
        self._indexer = Indexer(position, self._indexing, reporter, workers, on_ended, again)
        self._log = ReceptionLog(Journal(self._folder, sync=objects.sync), self._indexer.take)
        self._settling = Settling(
            database, objects, self._log, self._indexer, self._replay, unlink_removed, workers
        )
        self._through_log = Way(self._log.submit, objects.take_prepared, sync=objects.sync)
        self._without_log = Way(self._direct.submit, objects.incoming_path, sync=objects.sync)

    def start(self) -> None:
        """Finish what an earlier process left, and take instances through the log. Raises DatabaseFault."""
        try:
            self._database.checkpoint()
        except NotKept as error:  # on a full disk the database's log goes on as it is
            log.warning("checkpoint_failed", reason=str(error))
        self._objects.settle()
        self._objects.begin_serving()
        replayed, swept, indexed = self._replay_journal(), 0, 0
        with contextlib.suppress(NotKept):  # on a full disk; a later start or deletion finishes it
            self._unlink_removed()
        # Until the journal is replayed, only its records tell what is whole.
        if self._is_replayed:
            swept = self._objects.sweep()
            # What has no row in a shared store was not acknowledged, or is another node's.
            if not self._objects.is_shared:
                indexed = index_orphans(self._database, self._objects, self._indexing)
        unpublished = self._database.rows(Study.select(Study.id).where(Study.revision != Study.published))
        log.info("recovered", replayed=replayed, swept=swept, indexed=indexed, unpublished=len(unpublished))
        self._open_log()

    def _replay_journal(self) -> int:
        """Replay the journal of an earlier process; return how many records it had. Raises DatabaseFault."""
        self._is_replayed = False
        try:
            replayed = self._replay.run()
        except (NotKept, OSError):
            # The journal and the files of `incoming/` that it names stay.
            log.exception("journal_not_replayed", so=WITHOUT_LOG, again_seconds=AGAIN_SECONDS)
            self._open_again = time.monotonic() + AGAIN_SECONDS
            return 0
        self._is_replayed = True
        return replayed

    def _open_log(self) -> None:
        """Open the log. Without one, each instance is indexed and synced before it is acknowledged."""
        if not self._is_replayed or self._objects.uploads:
            return
        self._open_again = math.inf
        try:
            first = self._replay.next_number()
            self._settling.prepare()
            self._log.open(first)
        except (NotKept, OSError) as error:
            # On a full disk it is tried again; another kind of file under its name is not ours to touch.
            if isinstance(error, NotKept) or error.errno in NO_ROOM:
                self._open_again = time.monotonic() + AGAIN_SECONDS
            log.warning("passed_over", path=str(self._folder), reason=str(error), so=WITHOUT_LOG)
            return
        self._indexer.start(first - 1)
        self._settling.start(first - 1)

    def _is_log_open(self) -> bool:
        """Tell whether the log is open. Now and then, try to open one that could not be opened."""
        if time.monotonic() >= self._open_again and self._opening.acquire(blocking=False):
            try:
                if not self._is_replayed:
                    self._replay_journal()
                self._open_log()
            finally:
                self._opening.release()
        return self._log.is_open

    def stop(self) -> None:
        """Index and settle what was acknowledged, and end."""
        if not self._log.is_open:
            return
        self._log.stop_taking()
        self._indexer.stop()
        settled = self._settling.stop()
        self._log.close(settled=settled)

    def make_whole(self) -> None:
        """After a power cut, make whole what this process is about to look at, where no daemon does so."""
        if not is_left(self._folder):
            return
        if self._database.is_read_only:
            log.warning("journal_left", path=str(self._folder), why="it can only be read: see `serve`")
            return
        try:
            lock = DirectoryLock(self._objects.data)
        except (Locked, OSError):
            return
        try:
            with self._objects.room.reserve.used():
                self._database.checkpoint()
                self._replay.run()
        except (NotKept, OSError) as error:
            log.warning("journal_left", path=str(self._folder), why=str(error))
        finally:
            lock.release()

    def receive(
        self, origin: Origin, command: tuple[str, str], transfer_syntax: str, limit: int | None = None
    ) -> InstanceReceiver:
        """Begin to receive an instance; SOP Class UID and SOP Instance UID as in its command set.

        Raises NotKept, InvalidUID.
        """
        self.last_received = time.monotonic()
        way = self._through_log if self._log.is_open or self._is_log_open() else self._without_log
        return InstanceReceiver(self._objects, way, origin, command, transfer_syntax, limit)

    def association_ended(self, association: str) -> None:
        """Index at once what came over this association."""
        if self._log.is_open:
            self._indexer.association_ended(association)
        else:
            self._on_ended(association)

    def catch_up(self, seconds: float | None = None) -> bool:
        """Return when all is indexed that was acknowledged before; False where that takes longer."""
        if self._log.is_open or self._is_log_open():
            # Who asks is told sooner by the database itself.
            seconds = 0.0 if self._database.away and seconds is not None else seconds
            return self._indexer.catch_up(self._log.last, seconds)
        return self._is_replayed

    def import_files(
        self,
        paths: Iterable[Path],
        progress: Callable[[], None],
        stopped: Callable[[], bool],
        committed: Callable[[], None],
    ) -> Report:
        """Import files and folders until `stopped`, without a log. Raises DatabaseFault, OSError."""
        self._objects.watch()
        importing = FileImport(self._objects, self._indexing, self._direct, progress, stopped, committed)
        report = importing.run(paths)
        if report.outcomes[Outcome.REPLACED]:
            with contextlib.suppress(NotKept):  # the next start or deletion finishes it
                self._unlink_removed()
        return report

    def index_object(self, path: str) -> str | None:
        """Index an object that has no row, where it is; return why that cannot be done."""
        try:
            index_object(self._objects, self._indexing, path)
        except (NotPart10, IndexFault, OSError) as error:
            log.exception("object_not_recovered", path=path)
            return str(error)
        return None

    def makes_progress(self, seconds: float) -> bool:
        """Tell whether records can still be written: whether a group is done within that time."""
        return self._log.makes_progress(seconds)

    def waiting(self) -> int:
        """Return how many instances wait for their sync or their row."""
        return self._log.waiting() + self._indexer.waiting()

    def fill(self) -> float:
        """Return how full the journal is, from 0 to 1."""
        return self._log.fill() if self._log.is_open else 0.0

    def is_failing(self) -> bool:
        """Whether what was acknowledged cannot be indexed at the moment."""
        return self._indexer.is_failing or not self._is_replayed

    def takes(self) -> bool:
        """Whether instances are acknowledged, as far as database and journal let us."""
        return self._log.takes() if self._log.is_open else not self._database.away

    def conflicts(self) -> int:
        """Return how many data sets are kept aside."""
        return self._indexing.conflicts()
