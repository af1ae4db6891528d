"""A new index made from the objects beside the old one, which stays until the new one is complete.

What the objects do not have is copied from the old index: every table that is not made from objects, and of
each instance its order of arrival, time, sender and the hash that it was received with (so that `verify`
finds later changes). An interrupted run continues, unless objects, index or attribute table have changed.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import peewee
import structlog

from index.completion.completions import note_earlier
from index.database.attribute_tables import note_current
from index.database.connection import Database
from index.database.instance_rows import InstanceRows, StoredObject
from index.database.new_index import NewIndex, close_whole, new_index, table_names
from index.database.node import ServingLock, check_owner, is_elsewhere, nodes
from index.database.opening import open_unmigrated, sqlite_path
from index.database.storage_place import adopt, check_place
from index.database.tables import RemovedObject
from index.dicom.attributes import table_digest
from index.dicom.file import read_object
from index.dicom.part10 import NotPart10
from index.errors import DatabaseFault, ForeignIndex, ForeignStore, IndexFault, NewerSchema
from index.forwarding.outbox import Outbox
from index.forwarding.settings import RouteSettings
from index.maintenance.old_index import (
    OldInstance,
    copy_tables,
    delete_empty_series,
    fingerprint,
    old_instances,
)
from index.maintenance.verify.objects import KnownPaths
from index.reception.indexing import Indexing
from index.reception.recovery import Replay, restore_all
from index.records import Origin
from index.settings import StorageSettings
from index.storage.object_file import sha1_of
from index.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

# Instances of one transaction: so many that the commit costs little, so few that a crash loses little.
BATCH = 500
# Threads that read objects; they wait for the disk most of the time.
WORKERS = 4

Progress = Callable[[int], None]


@dataclass(slots=True)
class Rebuilt:
    """The result of a rebuild. `not_indexed`: path and reason. `lost`: why the old index was not used."""

    instances: int = 0
    resumed_at: int = 0
    missing: list[str] = field(default_factory=list)
    not_indexed: list[tuple[str, str]] = field(default_factory=list)
    lost: str = ""


class Rebuild:
    """One rebuild of the index of a data directory, which no other process may have open.

    `url` is as in `[index]`; None: SQLite's file in the data directory.
    """

    def __init__(
        self,
        url: str | None,
        objects: ObjectStore,
        storage: StorageSettings,
        progress: Progress = lambda _: None,
        routes: Sequence[RouteSettings] = (),
    ) -> None:
        self._routes = routes
        self._url = url
        self._path = sqlite_path(url, objects.data)
        self._objects = objects
        self._storage = storage
        self._progress = progress
        self._rebuilt = Rebuilt()

    def run(self) -> Rebuilt:
        """Make the new index and put it in the place of the old one.

        Raises NewerSchema, ForeignIndex, OSError, NotKept, DatabaseFault, and Locked where another daemon
        serves from a PostgreSQL index; then the old index is as it was.
        """
        with contextlib.ExitStack() as stack:
            if self._path:
                old, place = self._open_file(self._path), new_index(self._path)
            else:
                server = stack.enter_context(
                    contextlib.closing(open_unmigrated(self._url, self._objects.data))
                )
                place = new_index(server)
                lock = ServingLock(server)
                lock.take()
                stack.callback(lock.release)
                old = self._open_schema(server)
            self._make(old, place)
        return self._rebuilt

    def _make(self, old: Database | None, place: NewIndex) -> None:
        if old is None:
            restore_all(self._objects, self._objects.journal)
        new = None
        try:
            new = self._begin(old, place)
            self._fill(old, new)
            self._finish(new)
        except BaseException:
            if new is not None:
                new.close()
            if old is not None:
                old.close()
            raise
        if old is not None:
            close_whole(old)
        place.exchange(new, is_old_damaged=old is None)

    def _fill(self, old: Database | None, new: Database) -> None:
        rows = InstanceRows(new)
        done = self._rebuilt.resumed_at
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="reindex") as readers:
            work = islice(self._all(old), done, None)
            # Not reading and writing at the same time: the threads would wait for Python's lock.
            while batch := list(islice(work, BATCH)):
                read = list(readers.map(self._read, batch))
                done += len(batch)
                self._write(new, rows, read, done)
                self._progress(len(batch))

    def _open_file(self, path: Path) -> Database | None:
        """Open the old index in a file. None: it is missing or damaged, and only the objects are used."""
        if not path.exists():
            self._rebuilt.lost = f"{path} is not there"
            return None
        old = open_unmigrated(self._url, self._objects.data)
        try:
            old.migrate()
            with old.connection():
                result = old.peewee.execute_sql("PRAGMA quick_check(1)").fetchone()[0]
            if result != "ok":
                raise DatabaseFault(result)
            self._bring_forward(old)
        except (NewerSchema, ForeignIndex, ForeignStore):
            old.close()
            raise
        except (IndexFault, peewee.PeeweeException) as error:
            old.close()
            self._rebuilt.lost = f"{path} is damaged: {error}"
            return None
        return old

    def _open_schema(self, server: Database) -> Database | None:
        """Use the old index in a PostgreSQL schema; None: it is not there. A server's fault is not damage."""
        if "schema_version" not in table_names(server):
            self._rebuilt.lost = f"{server.name} holds no index"
            return None
        server.migrate()
        self._bring_forward(server)
        return server

    def _bring_forward(self, old: Database) -> None:
        """Let the old index know all that was acknowledged, and finish deletions."""
        check_place(old, self._objects)
        if is_elsewhere(self._path, self._objects.data):
            check_owner(old, self._objects.data)
            if len(others := nodes(old)) > 1 and not self._objects.sees_all:
                raise DatabaseFault(
                    f"{old.name} is the index of {len(others)} data directories, and `reindex` sees the "
                    "objects of one only: run `imagingstudyd verify --repair` for each of them"
                )
        indexing = Indexing(
            old,
            self._objects,
            Outbox(old, self._objects, self._routes),
            replace=self._storage.duplicates == "replace",
            conflicts_kept=self._storage.conflicts,
        )
        Replay(old, self._objects, indexing, self._objects.journal).run()
        for (path,) in old.rows(RemovedObject.select(RemovedObject.path)):
            self._objects.remove(path)
        with old.writing():
            old.execute(RemovedObject.delete())

    def _begin(self, old: Database | None, place: NewIndex) -> Database:
        """Open the new index of an interrupted run, or begin one."""
        state = self._state(old)
        if place.is_begun():
            with contextlib.suppress(IndexFault, peewee.PeeweeException):
                new = place.open()
                done = self._done(new, state)
                if done is not None:
                    self._rebuilt.resumed_at = done
                    return new
                new.close()
        place.remove()
        new = place.open()
        with new.connection():
            new.peewee.execute_sql("CREATE TABLE rebuild (state TEXT NOT NULL, done INTEGER NOT NULL)")
            if old is not None:
                copy_tables(old, place, new)
            note_current(new)
            if old is None:
                adopt(new, self._objects)
            new.peewee.execute_sql(f"INSERT INTO rebuild (state, done) VALUES ('{state}', 0)")  # noqa: S608  a hash
        return new

    def _done(self, new: Database, state: str) -> int | None:
        """Return how many objects of the same state are done; None: it is to be begun anew."""
        with new.connection():
            row = new.peewee.execute_sql("SELECT state, done FROM rebuild").fetchone()
        return int(row[1]) if row and row[0] == state else None

    def _state(self, old: Database | None) -> str:
        """Return a hash of the attribute table, objects and index, to see whether they have changed."""
        state = hashlib.sha256(f"{table_digest()} {fingerprint(old) if old else ''}".encode())
        for path in self._objects.filed_since(None):
            state.update(path.encode())
        return state.hexdigest()

    def _all(self, old: Database | None) -> Iterator[OldInstance]:
        """Yield every object: in its order of arrival where that is known, else by path."""
        known = KnownPaths()
        for instance in old_instances(old) if old else ():
            known.add(instance.path)
            yield instance
        for path in self._objects.filed_since(None):
            if path not in known:
                yield OldInstance(path)

    def _read(self, one: OldInstance) -> StoredObject | tuple[str, str]:
        """Return the object to index, or its path and why it cannot be indexed."""
        try:
            with self._objects.open(one.path) as file:
                header, meta = read_object(file)
                if one.uid == header.sop_instance_uid:
                    return StoredObject(
                        header, one.origin, meta.transfer_syntax, one.path, one.size, one.sha1, one.received
                    )
                size, received = file.size, file.modified
                sha1 = sha1_of(file)
        except (NotPart10, IndexFault, OSError) as error:
            return one.path, str(error)
        # The time of arrival is not known; the object was written then.
        origin = Origin(association="reindex")
        return StoredObject(header, origin, meta.transfer_syntax, one.path, size, sha1, received)

    def _write(
        self, new: Database, rows: InstanceRows, read: Sequence[StoredObject | tuple[str, str]], done: int
    ) -> None:
        found = [one for one in read if isinstance(one, StoredObject)]
        fresh: dict[str, StoredObject] = {}
        with new.writing(durable=False):
            known = rows.find([one.header.sop_instance_uid for one in found])
            for one in read:
                if not isinstance(one, StoredObject):
                    self._not_indexed(*one)
                elif (uid := one.header.sop_instance_uid) in known or uid in fresh:
                    self._not_indexed(one.path, f"{uid} is there already")
                else:
                    fresh[uid] = one
            rows.add(list(fresh.values()))
            new.peewee.execute_sql(f"UPDATE rebuild SET done = {done:d}")  # noqa: S608  a number
        rows.committed()

    def _not_indexed(self, path: str, reason: str) -> None:
        if self._objects.is_there(path):
            self._rebuilt.not_indexed.append((path, reason))
        else:
            self._rebuilt.missing.append(path)

    def _finish(self, new: Database) -> None:
        with new.writing():
            delete_empty_series(new)
            if self._rebuilt.lost:
                note_earlier(new)
            self._rebuilt.instances = new.peewee.execute_sql("SELECT count(*) FROM instance").fetchone()[0]
            new.peewee.execute_sql("DROP TABLE rebuild")
