"""All objects of an index copied to another store, which the index then uses: directory to bucket, and back.

Each object is read and compared with the hash that it was received with; its copy is read again and compared.
An interrupted run goes on where it was. Where several nodes keep objects, each copies its own; the index is
switched by the run that finds all of them in the new store.
"""

import contextlib
import datetime as dt
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from peewee import fn

from index.database.connection import Database
from index.database.node import ServingLock, check_owner, is_elsewhere, nodes
from index.database.opening import open_unmigrated, sqlite_path
from index.database.settings import IndexSettings
from index.database.storage_place import claim, note_place
from index.database.tables import Conflict, Instance, JournalPosition, MigrationRow, StoreRow, UnindexedObject
from index.errors import DatabaseFault
from index.settings import StorageSettings
from index.storage.durable import make_folder, sync_folder
from index.storage.journal import read
from index.storage.lock import DirectoryLock, UseLock
from index.storage.object_file import CHUNK, ObjectFile, sha1_of
from index.storage.object_keys import FIRST, FOLDERS
from index.storage.opening import open_remote, open_store
from index.storage.remote.folder import SharedFolder
from index.storage.remote.interface import Remote
from index.storage.remote.store import RemoteStore
from index.storage.walk import files_below

STAGING = "migrating"
# Rows that are read at once, and objects that are copied at a time.
PAGE = 256
WORKERS = 4

Progress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]


class Item(NamedTuple):
    """An object to be copied; size and hash are unknown where the database refused its row."""

    path: str
    size: int | None = None
    sha1: str | None = None


@dataclass(slots=True)
class MigratedStorage:
    """The result. `faults`: path and reason; `elsewhere`: objects that other nodes have yet to copy.

    `switched`: the index uses the new store. `left`: where the objects of the data directory are now.
    """

    objects: int = 0
    bytes: int = 0
    copied: int = 0
    removed: int = 0
    elsewhere: int = 0
    faults: list[tuple[str, str]] = field(default_factory=list)
    switched: bool = False
    left: str = ""


def migrate_storage(
    data: Path, storage: StorageSettings, index: IndexSettings, source: str, target: str, progress: Progress
) -> MigratedStorage:
    """Copy all objects from one store to another, and let the index use that, where nothing is wrong.

    `source` and `target`: URLs as in [storage] url, or `data`; endpoint and region are those of `storage`.
    Raises Locked where a daemon serves, ForeignIndex, ForeignStore, DatabaseFault, NotKept, OSError.
    """
    index_url = index.url.get_secret_value() if index.url else None
    with contextlib.ExitStack() as stack:
        stack.callback(DirectoryLock(data).release)
        stack.callback(UseLock(data, alone=True).release)
        database = stack.enter_context(contextlib.closing(open_unmigrated(index_url, data)))
        if not database.is_sqlite:
            lock = ServingLock(database)
            lock.take()
            stack.callback(lock.release)
        database.migrate()
        run = _Migration(database, data, storage.at(source), storage.at(target))
        run.check(is_elsewhere(sqlite_path(index_url, data), data))
        return run.run(progress)


class _Migration:
    """One run. `target` is None for the data directory."""

    def __init__(
        self, database: Database, data: Path, source: StorageSettings, target: StorageSettings
    ) -> None:
        self._database = database
        self._data = data
        self._source = open_store(data, source)
        self._target = open_store(data, target)
        self._sync = target.durability == "power-loss"
        # What is brought back takes the place of `objects/` when it is complete.
        self._staging = data / STAGING
        self._into: Remote = (
            open_remote(target)
            if target.url
            else SharedFolder(self._staging, sync=self._sync, is_mounted=True)
        )
        self._done = MigratedStorage()

    def check(self, is_outside: bool) -> None:  # noqa: FBT001
        """Raise DatabaseFault where this migration cannot be made. `is_outside`: the index may have nodes."""
        known = self._database.rows(StoreRow.select(StoreRow.url))
        used = known[0][0] if known else ""
        if used != self._source.url:
            raise DatabaseFault(f"FROM: the objects of this index are in {used or self._data}: name that")
        if is_outside and (node := check_owner(self._database, self._data)):
            known_nodes = nodes(self._database)
            self._source.node = FIRST if node.id == known_nodes[0].id else node.id
            if len(known_nodes) > 1 and not self._target.url:
                raise DatabaseFault(
                    f"TO: the index has {len(known_nodes)} data directories: only the objects of one that is "
                    "alone can be brought back into it"
                )
        self._check_journal()
        if self._source.is_shared and any(next(files_below(self._data / folder), None) for folder in FOLDERS):
            raise DatabaseFault(
                f"{self._data / 'objects'}: objects wait to be uploaded: run `imagingstudyd serve` until it"
                " is empty"
            )

    def _check_journal(self) -> None:
        query = JournalPosition.select(JournalPosition.settled).where(
            JournalPosition.node == self._source.node
        )
        settled = next(iter(self._database.rows(query)), (0,))[0]
        if left := sum(record.number > settled for record in read(self._data / "journal")):
            raise DatabaseFault(
                f"{self._data / 'journal'}: {left} records are not replayed: start and stop `imagingstudyd"
                " serve`"
            )

    def run(self, progress: Progress) -> MigratedStorage:
        """Copy, prove and switch."""
        identity, last = self._begin()
        if not self._target.url:
            make_folder(self._staging, sync=self._sync)
        ((total,),) = self._database.rows(Instance.select(fn.COUNT(Instance.id)).where(Instance.id > last))
        with (
            progress("copying", total) as advance,
            ThreadPoolExecutor(WORKERS, thread_name_prefix="copying") as workers,
        ):
            for page, reached in self._pages(last):
                mine = [item for item in page if self._source.holds(item.path)]
                for item, fault in zip(mine, workers.map(self._copy, mine), strict=True):
                    self._note(item, fault)
                advance(len(page))
                if reached and not self._done.faults:
                    with self._database.writing():
                        self._database.execute(MigrationRow.update(last=reached))
        self._prove(progress)
        if self._done.faults:
            with self._database.writing():
                self._database.execute(MigrationRow.update(last=0))
        elif not self._done.elsewhere:
            self._switch(identity)
        return self._done

    def _begin(self) -> tuple[str, int]:
        """Return the identity of the new store, and the last row whose object is in it."""
        row = MigrationRow
        query = row.select(row.identity, row.last).where(row.url == self._target.url)
        if known := self._database.rows(query):
            if not isinstance(self._target, RemoteStore) or self._target.identity() == known[0][0]:
                # Other nodes may have copied theirs meanwhile; each looks through all.
                several = len(nodes(self._database)) > 1
                return known[0][0], 0 if several else int(known[0][1])
            raise DatabaseFault(f"TO: {self._target.url} is not the store that this migration was begun with")
        identity = claim(self._target) if isinstance(self._target, RemoteStore) else ""
        with self._database.writing():
            self._database.execute(row.delete())
            self._database.execute(row.insert(url=self._target.url, identity=identity))
        return identity, 0

    def _pages(self, last: int) -> Iterator[tuple[list[Item], int]]:
        """Yield what is to be copied, and the row id of the last instance in it, or 0."""
        others = self._database.rows(Conflict.select(Conflict.path, Conflict.size, Conflict.sha1))
        unindexed = self._database.rows(UnindexedObject.select(UnindexedObject.path))
        yield [*(Item(*one) for one in others), *(Item(path) for (path,) in unindexed)], 0
        query = Instance.select(Instance.id, Instance.path, Instance.size, Instance.sha1)
        query = query.order_by(Instance.id).limit(PAGE)
        while rows := self._database.rows(query.where(Instance.id > last)):
            last = rows[-1][0]
            yield [Item(*one) for _, *one in rows], last

    def _copy(self, item: Item) -> str | None:
        """Copy an object; return why that cannot be done, or an empty text; None: it was there."""
        try:
            with self._source.open(item.path) as file:
                wanted = item.sha1 or sha1_of(file)
                if self._is_there(item.path, file.size, wanted):
                    return None
                if (found := self._write(item.path, file)) != wanted:
                    self._into.remove(item.path)
                    return f"has SHA-1 {found}, expected {wanted}"
            with self._into.open(item.path) as copy:
                if sha1_of(copy) != wanted:
                    self._into.remove(item.path)
                    return "its copy differs"
        except FileNotFoundError:
            return "is missing"
        return ""

    def _is_there(self, path: str, size: int, sha1: str) -> bool:
        state = self._into.state(path)
        if state is None:
            return False
        if state.size == size:
            with self._into.open(path) as file:
                if sha1_of(file) == sha1:
                    return True
        self._into.remove(path)
        return False

    def _write(self, path: str, file: ObjectFile) -> str:
        """Copy a file; return its SHA-1."""
        large, place = self._into.begin(path), 0
        try:
            while chunk := file.read_at(place, CHUNK):
                large.write(chunk)
                place += len(chunk)
            large.close(sync=self._sync)
        finally:
            large.abandon()
        return large.sha1.hexdigest()

    def _note(self, item: Item, fault: str | None) -> None:
        if fault:
            self._done.faults.append((item.path, fault))
        self._done.copied += fault == ""

    def _prove(self, progress: Progress) -> None:
        """Compare rows and what is in the new store; what has no row any more is removed from it."""
        there = {path: size for folder in FOLDERS for path, size, _ in self._into.listed(f"{folder}/")}
        failed = {path for path, _ in self._done.faults}
        with progress("comparing", len(there)) as advance:
            for page, _ in self._pages(0):
                self._compare(page, there, failed)
                advance(len(page))
        left: Sequence[str] = list(there) if self._target.url else []
        for path in left if not failed and not self._done.elsewhere else ():
            self._into.remove(path)
            self._done.removed += 1

    def _compare(self, page: Sequence[Item], there: dict[str, int], failed: set[str]) -> None:
        for item in page:
            size = there.pop(item.path, None)
            if size is not None and item.size in (None, size):
                self._done.objects += 1
                self._done.bytes += size
            elif item.path in failed:
                continue
            elif self._source.holds(item.path):
                self._done.faults.append((item.path, "is not in the new store, or has another size there"))
            else:
                self._done.elsewhere += 1

    def _switch(self, identity: str) -> None:
        if not self._target.url:
            self._bring_in()
        with self._database.writing():
            note_place(self._database, self._target.url, identity)
            self._database.execute(MigrationRow.delete())
        self._done.switched = True
        if not self._source.is_shared:
            self._done.left = str(self._set_aside())

    def _bring_in(self) -> None:
        """Put what was brought back into its place, which holds no file."""
        for folder in FOLDERS:
            if (self._staging / folder).is_dir():
                for below, _, _ in os.walk(self._data / folder, topdown=False):
                    Path(below).rmdir()
                (self._staging / folder).rename(self._data / folder)
        for below, _, _ in os.walk(self._staging, topdown=False):
            Path(below).rmdir()
        sync_folder(self._data)

    def _set_aside(self) -> Path:
        """Move the objects of the data directory, which is no longer their place; return where they are."""
        aside = self._data / f"migrated-{dt.datetime.now(dt.UTC):%Y%m%d-%H%M%S}"
        aside.mkdir()
        for folder in FOLDERS:
            (self._data / folder).rename(aside / folder)
        sync_folder(self._data)
        return aside
