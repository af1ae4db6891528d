"""Small objects, kept twice for a moment: as files that are not synced, and in a journal that is.

A small file of its own takes three syncs: of its content, its name and its row. In the journal one sync keeps
content and facts of all that are committed together, from which a power cut's victims are made again at the
next start: files that are not whole, and rows of commits that were not synced. The file stands in its place
before the instance is acknowledged, for whoever reads it. Twice a second a thread syncs the file system and
the index, and the journal is written over.
"""

import contextlib
import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import structlog
from peewee import SQL, Query, fn

from index.database.connection import Database
from index.database.statements import Placeholder
from index.database.tables import Conflict, Instance, SpoolPosition
from index.dicom.part10 import NotPart10
from index.errors import IndexFault, NotKept
from index.records import Origin
from index.storage.durable import can_sync_filesystem, open_file, sync_filesystem
from index.storage.journal import Journal, Record, is_left, read
from index.storage.object_store import ObjectStore
from index.storage.object_writer import JournaledObject
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

# Objects that wait at one time; who finds no place here, since the disk is slow, syncs its file itself.
PLACES = 4096
# The first waits for no more than so many seconds.
SETTLE_SECONDS = 0.5
# After a disk's failure, in seconds.
RETRY_SECONDS = 5
# How often it is asked whether anything was deleted: no trace of that is to stay for more than a minute.
LOOK_SECONDS = 20
_WITHOUT = "without a journal each small object is synced by itself"

# Numbers of removed objects are given once: the newest stays known after its row has gone.
_EVER_REMOVED = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'removed_object'"

IndexObject = Callable[[str, Origin, int], object]


def _reached(p: Placeholder) -> Query:
    return SpoolPosition.update(number=p("number"))


def _settled(_: Placeholder) -> Query:
    return SpoolPosition.update(settled=SpoolPosition.number)


def _newest(_: Placeholder) -> Query:
    return Instance.select(fn.COALESCE(fn.MAX(Instance.id), SQL("0")))


def _newer(p: Placeholder) -> Query:
    return Instance.select(Instance.path).where(Instance.id > p("id"))


class Spool:
    """The spool of one index. It takes objects between `start` and `stop`."""

    def __init__(self, database: Database, objects: ObjectStore, workers: Supervisor | None = None) -> None:
        self._database = database
        self._objects = objects
        self._folder = objects.data / "journal"
        self._journal = Journal(self._folder)
        self._next = 1
        # For each part of the journal: paths of the objects that have their files; how many have none yet.
        self._waiting: tuple[list[str], list[str]] = ([], [])
        self._unwritten = [0, 0]
        # Those that could not be written.
        self._missing: set[str] = set()
        # Held while the journal is written or turned.
        self._turning = threading.Lock()
        self._changed = threading.Condition()
        self._worker = (workers or Supervisor()).add("journal", self._run)
        self._broken = self._full = self._stopping = False
        self._recovered = True
        self._objects_folder = -1
        # The newest instance when the journal was turned.
        self._newest = 0
        # What was ever deleted at the last look; parts of the journal that may still hold some of it, and
        # whether the database's log may.
        self._removed = 0
        self._look_again = 0.0
        self._to_wipe: set[int] = set()
        self._log_to_empty = False

    def has_room(self) -> bool:
        """Tell whether a small object may be spooled."""
        is_open = self._worker.is_started and not self._stopping and not self._broken and not self._full
        return is_open and self.waiting() < PLACES

    def waiting(self) -> int:
        """Return how many objects are not synced yet."""
        return sum(map(len, self._waiting))

    def remember(self, group: Sequence[JournaledObject]) -> bool:
        """Put objects into the journal; return whether there was room. Each is to be ended by `end`.

        Raises OSError; then none is kept.
        """
        bodies = [unsynced.record for unsynced in group]
        with self._turning:
            if self._broken:
                return False
            if not self._journal.has_room(bodies):
                self._full = True
                self._notify()
                return False
            try:
                self._journal.append(self._next, bodies)
            except OSError:
                self._broken = True
                self._notify()
                raise
            for unsynced in group:
                unsynced.number, unsynced.part = self._next, self._journal.part
                self._next += 1
            with self._changed:
                self._unwritten[self._journal.part] += len(group)
        return True

    def end(self, unsynced: JournaledObject, *, keep: bool) -> None:
        """Its commit is over: write its file where its instance is to be kept. Never raises."""
        if unsynced.number is None:
            return
        part = unsynced.part
        if keep:
            try:
                unsynced.write()
            except OSError:
                log.exception("object_not_written", path=unsynced.path)
                self._missing.add(unsynced.path)
        with self._changed:
            if keep:
                self._waiting[part].append(unsynced.path)
            self._unwritten[part] -= 1
            if len(self._waiting[part]) == 1 or part != self._journal.part:
                self._changed.notify()

    def make_file_durable(self, path: str) -> None:
        """Sync an object's file by itself, which may be among those that wait. Raises NotKept."""
        try:
            try:
                self._objects.sync_object(path)
            except FileNotFoundError:
                self._write_again({path})
        except OSError as error:
            raise NotKept(f"{path}: {error.strerror}") from error

    def reached(self, number: int) -> None:
        """Note the last record whose row is made, in the transaction that makes it."""
        self._database.prepared(_reached).run(number=number)

    def make_durable(self) -> None:
        """Sync the index with all that was committed. Raises NotKept, DatabaseFault."""
        with self._database.writing():
            self._database.prepared(_settled).run()

    def start(self) -> None:
        """Take objects from now on, where rows and objects lie on disks that we sync. Raises OSError."""
        if not (
            self._database.is_sqlite and self._objects.sync and self._recovered and can_sync_filesystem()
        ):
            return
        self._next = self._position() + 1
        self._newest = self._now_newest()
        self._removed = self._now_removed()
        if not self._open_journal():
            return
        # Open from now on: it is told of all that cannot be written.
        self._objects_folder = os.open(self._objects.data / "objects", os.O_RDONLY | os.O_CLOEXEC)
        self._worker.start()

    def _open_journal(self) -> bool:
        """Begin an empty journal; return whether there is or will be one."""
        try:
            self._journal.open()
        except OSError as error:
            # On a full disk it is tried again; what else has its name is somebody else's.
            self._broken = error.errno in (errno.ENOSPC, errno.EDQUOT)
            log.warning("passed_over", path=str(self._folder), reason=str(error), so=_WITHOUT)
            return self._broken
        return True

    def stop(self) -> None:
        """Sync what is left, and end."""
        self._stopping = True
        self._notify()
        if self._worker.is_started:
            self._worker.stop()
            self._journal.close()
            os.close(self._objects_folder)

    def is_left(self) -> bool:
        """Tell whether there is a journal to recover from, or of a daemon that runs."""
        return is_left(self._folder)

    def recover(self, index_object: IndexObject) -> int:
        """Make whole what an earlier process did not sync; return how many objects that were.

        Nobody may be spooling. `adopt` makes the row of an object in its place, with its origin and time.
        What cannot be mended now keeps its record. Raises OSError, NotKept, DatabaseFault.
        """
        records = read(self._folder)
        if not records:
            return 0
        position = self._position()
        mended = [self._mended(record, position, index_object) for record in records]
        self._recovered = all(mended)
        if self._recovered:
            with self._database.writing():
                self.reached(max(position, records[-1].number))
            self._open_journal()
            self._journal.close()
        return sum(mended)

    def _mended(self, record: Record, position: int, index_object: IndexObject) -> bool:
        uid, path = record.facts["uid"], record.facts["path"]
        try:
            if record.number > position:
                restore(self._objects, record)
                index_object(path, Origin(*record.facts["origin"]), record.facts["received"])
            elif self._database.rows(
                Instance.select(Instance.id).where((Instance.uid == uid) & (Instance.path == path))
            ):
                restore(self._objects, record)
            else:  # deleted, or moved aside, before the file was in its place
                self._set_aside(record)
                self._objects.remove(path)
        except (NotPart10, IndexFault, OSError):
            log.exception("object_not_recovered", path=path)
            return False
        return True

    def _set_aside(self, record: Record) -> None:
        """Put a data set where its row says that it is kept aside: the row came before the move."""
        sha1 = hashlib.sha1(record.content, usedforsecurity=False).hexdigest()
        for (path,) in self._database.rows(Conflict.select(Conflict.path).where(Conflict.sha1 == sha1)):
            if not (self._objects.data / path).exists():
                self._objects.put(path, record.content)

    def _position(self) -> int:
        return int(self._database.rows(SpoolPosition.select(SpoolPosition.number))[0][0])

    def _now_newest(self) -> int:
        with self._database.connection():
            return int(self._database.prepared(_newest).one()[0])

    def _now_removed(self) -> int:
        with self._database.connection():
            return int(self._database.peewee.execute_sql(_EVER_REMOVED).fetchone()[0])

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            self._look_for_deletions()
            part, newest = self._turn()
            while not self._settle(part, newest):
                # Records and files stay as they are; after a stop the next start sees to them.
                with self._changed:
                    if self._changed.wait_for(lambda: self._stopping, RETRY_SECONDS):
                        return
            self._waiting[part].clear()
            self._wipe(part)
        with contextlib.suppress(OSError):  # the next start finds all of it settled
            self._journal.clear()

    def _wait(self) -> bool:
        """Wait until something is to be done; return False at the end."""
        self._worker.rest()
        while not self._is_due():
            with self._changed:
                self._changed.wait_for(lambda: self._is_due() or self._stopping, LOOK_SECONDS)
                if self._stopping:
                    return self._is_due()
            self._look_for_deletions()
        with self._changed:
            self._changed.wait_for(lambda: self._full or self._broken or self._stopping, SETTLE_SECONDS)
        return True

    def _is_due(self) -> bool:
        to_wipe = bool(self._to_wipe) and not self._stopping
        return bool(self.waiting()) or self._broken or self._full or to_wipe

    def _look_for_deletions(self) -> None:
        """Have both parts of the journal wiped, once each of them is settled, where anything was deleted."""
        now = time.monotonic()
        if now < self._look_again:
            return
        self._look_again = now + LOOK_SECONDS
        with contextlib.suppress(IndexFault):  # the next look tells as well
            removed = self._now_removed()
            if removed != self._removed:
                self._removed, self._to_wipe = removed, {0, 1}
                self._log_to_empty = True
            if self._log_to_empty:
                self._log_to_empty = not self._database.empty_log()

    def _wipe(self, part: int) -> None:
        """Leave nothing of what was deleted in a part that is settled, and that nothing is written to."""
        if part in self._to_wipe:
            try:
                self._journal.wipe()
            except OSError:
                log.exception("journal_not_wiped")
            self._to_wipe.discard(part)

    def _turn(self) -> tuple[int, int]:
        """Let the next objects go into the other part; return this one, and the newest instance before it."""
        self._worker.beat()
        with self._turning:
            newest = self._newest
            with contextlib.suppress(IndexFault):  # an older one does as well
                self._newest = self._now_newest()
            part = self._journal.turn()
            self._full = False
        with self._changed:
            self._changed.wait_for(lambda: not self._unwritten[part])
        return part, newest

    def _settle(self, part: int, newest: int) -> bool:
        """Sync the objects of a part and all rows; return whether that was possible. Raises nothing.

        Its records must not be given up before: the journal turns to the other part, and back to this one.
        """
        batch = self._waiting[part]
        try:
            self._sync(batch)
            self.make_durable()
            with self._database.connection():
                kept = {path for (path,) in self._database.prepared(_newer).run(id=newest).fetchall()}
            for path in batch:
                if path not in kept:  # deleted before the file was written
                    self._objects.remove(path)
            if self._broken and not self._is_used(1 - part):
                with self._turning:  # into which nothing comes while it is broken
                    self._journal.renew()
                    self._broken = False
        except Exception as error:
            log.exception("spool_not_settled", objects=len(batch))
            self._worker.failed(error)
            return False
        self._worker.done()
        return True

    def _is_used(self, part: int) -> bool:
        with self._changed:
            return bool(self._waiting[part] or self._unwritten[part])

    def _sync(self, batch: Sequence[str]) -> None:
        again = self._missing.intersection(batch)
        try:
            sync_filesystem(self._objects_folder)
        except OSError:
            # Which of them could not be written nobody tells, and the kernel may have dropped what it held.
            log.exception("objects_not_synced", objects=len(batch))
            again = set(batch)
        if again:
            self._write_again(again)
            self._missing -= again

    def _write_again(self, paths: AbstractSet[str]) -> None:
        for record in read(self._folder):
            if record.facts["path"] in paths:
                self._objects.put(record.facts["path"], record.content)


def restore(objects: ObjectStore, record: Record) -> None:
    """Make a record's object whole and durable in its place. Raises OSError."""
    path = record.facts["path"]
    try:
        with open_file(objects.data / path) as file:
            there = file.read(len(record.content) + 1)
    except OSError:
        there = b""
    if there == record.content:
        objects.sync_object(path)
    else:
        objects.put(path, record.content)


def restore_all(objects: ObjectStore) -> None:
    """Make every object whole that the journal holds, where there is no index to ask. Raises OSError."""
    for record in read(objects.data / "journal"):
        restore(objects, record)
