"""The index made anew from the objects, beside the old one, which stays until the new one is whole.

What only the old index knew is carried over: every table that is not made from objects, and of each instance
its order of arrival, its time, its sender and the hash that it was received with (so that `verify` still
finds what has changed since). An interrupted run goes on where it was, unless objects or index have changed.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import peewee
import structlog

from index.database.connection import Database, open_sqlite
from index.database.copy_tables import (
    Remembered,
    carry_over,
    close_and_merge,
    drop_what_is_empty,
    fingerprint,
    remembered,
)
from index.database.instance_rows import InstanceRows, StoredObject
from index.database.node import check as check_owner
from index.database.node import is_elsewhere
from index.database.tables import RemovedObject
from index.dicom.file import read_object
from index.dicom.part10 import NotPart10
from index.errors import DatabaseFault, ForeignIndex, IndexFault, NewerSchema
from index.maintenance.verify.objects import KnownPaths
from index.reception.indexing import Indexing
from index.reception.recovery import Replay, restore_all
from index.records import Origin
from index.settings import StorageSettings
from index.storage.durable import open_file, sync_folder
from index.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

# One transaction's instances: large enough that the commit costs nothing, small enough to lose little.
BATCH = 500
# Readers wait for the disk; what they parse takes turns.
WORKERS = 4
# Of the new database, in kB: its indexes are written all over while it grows.
CACHE = 64 * 1024

Progress = Callable[[int], None]


@dataclass(slots=True)
class Rebuilt:
    """What a rebuild came to. `not_indexed`: path and reason. `lost`: why the old index could not be used."""

    instances: int = 0
    resumed_at: int = 0
    missing: list[str] = field(default_factory=list)
    not_indexed: list[tuple[str, str]] = field(default_factory=list)
    lost: str = ""


class Rebuild:
    """One rebuild of the SQLite index at `path`. Nobody else may have that index open."""

    def __init__(
        self,
        path: Path,
        objects: ObjectStore,
        storage: StorageSettings,
        progress: Progress = lambda _: None,
    ) -> None:
        self._path = path
        self._new_path = path.with_name(f"{path.name}.new")
        self._objects = objects
        self._storage = storage
        self._progress = progress
        self._rebuilt = Rebuilt()

    def run(self) -> Rebuilt:
        """Rebuild and exchange.

        Raises NewerSchema, ForeignIndex, OSError, NotKept; then the old index is as it was.
        """
        old = self._open_old()
        if old is None:
            restore_all(self._objects, self._objects.data / "journal")
        new = None
        try:
            new = self._begin(old)
            self._fill(old, new)
            self._finish(old, new)
        finally:
            for database in (old, new):
                if database is not None:
                    database.close()
        self._exchange(damaged=old is None)
        return self._rebuilt

    def _fill(self, old: Database | None, new: Database) -> None:
        rows = InstanceRows(new)
        done = self._rebuilt.resumed_at
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="reindex") as readers:
            work = islice(self._all(old), done, None)
            # Reading and writing take turns: side by side, they would wait for each other's lock of Python.
            while batch := list(islice(work, BATCH)):
                read = list(readers.map(self._read, batch))
                done += len(batch)
                self._write(new, rows, read, done)
                self._progress(len(batch))

    def _open_old(self) -> Database | None:
        """Open the index that is there; without one, or where it is damaged, the objects alone must do."""
        if not self._path.exists():
            self._rebuilt.lost = f"{self._path} is not there"
            return None
        old = open_sqlite(self._path, sync=True)
        try:
            old.migrate()
            with old.connection():
                said = old.peewee.execute_sql("PRAGMA quick_check(1)").fetchone()[0]
            if said != "ok":
                raise DatabaseFault(said)
            if is_elsewhere(self._path, self._objects.data):
                check_owner(old, self._objects.data)
            indexing = Indexing(
                old,
                self._objects,
                replace=self._storage.duplicates == "replace",
                conflicts_kept=self._storage.conflicts,
            )
            Replay(old, self._objects, indexing, self._objects.data / "journal").run()
            for (path,) in old.rows(RemovedObject.select(RemovedObject.path)):
                self._objects.remove(path)
            with old.writing():
                old.execute(RemovedObject.delete())
        except (NewerSchema, ForeignIndex):
            old.close()
            raise
        except (IndexFault, peewee.PeeweeException) as error:
            old.close()
            self._rebuilt.lost = f"{self._path} is damaged: {error}"
            return None
        return old

    def _begin(self, old: Database | None) -> Database:
        """Open the new index where an interrupted run left it, or begin it."""
        state = self._state(old)
        if self._new_path.exists():
            with contextlib.suppress(IndexFault, peewee.PeeweeException):
                new = self._open_new()
                known, done = new.peewee.execute_sql("SELECT state, done FROM rebuild").fetchone()
                if known == state:
                    self._rebuilt.resumed_at = done
                    return new
                new.close()
        self._remove_new()
        new = self._open_new()
        with new.connection():
            new.peewee.execute_sql("CREATE TABLE rebuild (state TEXT NOT NULL, done INTEGER NOT NULL)")
            if old is not None:
                carry_over(self._path, new)
            new.peewee.execute_sql("INSERT INTO rebuild (state, done) VALUES (?, 0)", (state,))
        return new

    def _open_new(self) -> Database:
        new = open_sqlite(self._new_path, sync=False, cache=CACHE)
        new.migrate()
        return new

    def _remove_new(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._new_path}{suffix}").unlink(missing_ok=True)

    def _state(self, old: Database | None) -> str:
        """Return what tells whether an interrupted run began with the same objects and index."""
        state = hashlib.sha256((fingerprint(old) if old else "").encode())
        for path in self._objects.filed_since(None):
            state.update(path.encode())
        return state.hexdigest()

    def _all(self, old: Database | None) -> Iterator[Remembered]:
        """Yield every object: in its order of arrival where that is known, else by folder and name."""
        known = KnownPaths()
        for one in remembered(old) if old else ():
            known.add(one.path)
            yield one
        for path in self._objects.filed_since(None):
            if path not in known:
                yield Remembered(path)

    def _read(self, one: Remembered) -> StoredObject | tuple[str, str]:
        """Return what the index is to hold of an object, or its path and why that cannot be told."""
        path = self._objects.data / one.path
        try:
            with open_file(path) as file:
                header, meta = read_object(file)
                if one.uid == header.sop_instance_uid:
                    return StoredObject(
                        header, one.origin, meta.transfer_syntax, one.path, one.size, one.sha1, one.received
                    )
                statistics = os.fstat(file.fileno())
                sha1 = hashlib.file_digest(file, "sha1").hexdigest()
        except (NotPart10, IndexFault, OSError) as error:
            return one.path, str(error)
        # The file was written when it came: the best that is known of that time.
        received = statistics.st_mtime_ns // 1_000_000
        origin = Origin(association="reindex")
        return StoredObject(
            header, origin, meta.transfer_syntax, one.path, statistics.st_size, sha1, received
        )

    def _write(
        self, new: Database, rows: InstanceRows, read: Sequence[StoredObject | tuple[str, str]], done: int
    ) -> None:
        found = [one for one in read if isinstance(one, StoredObject)]
        fresh: dict[str, StoredObject] = {}
        with new.writing():
            known = rows.find([one.header.sop_instance_uid for one in found])
            for one in read:
                if not isinstance(one, StoredObject):
                    self._not_indexed(*one)
                elif (uid := one.header.sop_instance_uid) in known or uid in fresh:
                    self._not_indexed(one.path, f"{uid} is there already")
                else:
                    fresh[uid] = one
            rows.add(list(fresh.values()))
            new.peewee.execute_sql("UPDATE rebuild SET done = ?", (done,))
        rows.committed()

    def _not_indexed(self, path: str, reason: str) -> None:
        if (self._objects.data / path).exists():
            self._rebuilt.not_indexed.append((path, reason))
        else:
            self._rebuilt.missing.append(path)

    def _finish(self, old: Database | None, new: Database) -> None:
        with new.writing():
            drop_what_is_empty(new)
            self._rebuilt.instances = new.peewee.execute_sql("SELECT count(*) FROM instance").fetchone()[0]
            new.peewee.execute_sql("DROP TABLE rebuild")
        close_and_merge(new)
        if old is not None:
            close_and_merge(old)

    def _exchange(self, *, damaged: bool) -> None:
        """Give the new index its name: at any moment one of the two, whole, has it."""
        with self._new_path.open("rb") as file:
            os.fsync(file.fileno())
        if damaged and self._path.exists():
            self._keep_damaged()
        self._new_path.replace(self._path)
        sync_folder(self._path.parent)

    def _keep_damaged(self) -> None:
        """Keep a damaged index beside the new one; its log must not be taken for the new one's."""
        aside = self._path.with_name(f"{self._path.name}.damaged")
        aside.unlink(missing_ok=True)
        aside.hardlink_to(self._path)
        for suffix in ("-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
