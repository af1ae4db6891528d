"""A backup beside a running daemon: the index by SQLite's backup API, then the objects of its rows.

The index comes first. An object is written before its row, so every row of the snapshot has its object,
unless that has been deleted since; then the row is deleted from the backup too. Objects never change: later
runs add the new ones. To restore, copy the folder to the place of the data directory; the daemon then
publishes all resources again. PostgreSQL has tools of its own, whose commands are named in the same order.
"""

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

from index.database.connection import Database
from index.database.new_index import close_whole
from index.database.node import nodes
from index.database.opening import open_sqlite
from index.database.tables import Conflict, Instance, RemovedObject, Resource, Series, Study
from index.errors import DatabaseFault
from index.maintenance.verify.counts import recount
from index.maintenance.verify.objects import KnownPaths
from index.storage.durable import make_folder, open_file, open_new, sync_folder
from index.storage.lock import DirectoryLock

# Rows that are read at a time.
PAGE = 1000

Progress = Callable[[int], None]


@dataclass(slots=True)
class BackedUp:
    """The result of a backup: objects `copied`, and their `bytes`; those `missing` have a row but no file."""

    objects: int = 0
    copied: int = 0
    bytes: int = 0
    removed: int = 0
    missing: list[str] = field(default_factory=list)


def with_postgresql_tools(data: Path, database: Database, target: Path) -> DatabaseFault:
    """Return a fault whose notes are the commands that back up a PostgreSQL index, and restore it."""
    from index.database.postgresql import connection_string

    folder, dump = quote(str(target)), quote(str(target / "index.dump"))
    parts = "objects", "conflicts", "identity"

    def copied(source: Path | str) -> str:
        return " ".join(f"{source}/{part}" for part in parts)

    fault = DatabaseFault(
        "index.url: PostgreSQL backs its index up by itself. These commands back up index and objects, "
        "beside a running daemon; the index first, since an object is written before its row"
    )
    for note in (
        f"    mkdir {folder}",
        f"    pg_dump --format=custom --file={dump} --dbname={quote(connection_string(database.peewee))}",
        f"    cp -a {copied(quote(str(data.resolve())))} {folder}/",
        "and these restore both, into an empty database and a new data directory, and prove them whole:",
        "    mkdir NEW_DATA",
        f"    cp -a {copied(folder)} NEW_DATA/",
        f"    pg_restore --exit-on-error --no-owner --dbname=NEW_URL {dump}",
        "    IMAGINGSTUDYD_INDEX__URL=NEW_URL imagingstudyd verify --repair --data NEW_DATA",
    ):
        fault.add_note(note)
    here = str(data.resolve())
    for node in nodes(database):
        if node.path != here:
            fault.add_note(f"    on {node.host}, after the dump: cp -a {copied(quote(node.path))} TARGET/")
    return fault


class Backup:
    """A backup of `data` and its SQLite index into `target`; with `link`, by hard links where possible."""

    def __init__(
        self,
        data: Path,
        database: Database,
        target: Path,
        *,
        link: bool = False,
        progress: Progress = lambda _: None,
    ) -> None:
        here, there = data.resolve(), target.resolve()
        if there.is_relative_to(here) or here.is_relative_to(there):
            raise DatabaseFault(f"{target}: a backup of {data} cannot be in it, nor contain it")
        self._data = data
        self._database = database
        self._target = target
        self._link = link
        self._progress = progress
        self._done = BackedUp()

    def run(self) -> BackedUp:
        """Take or renew the backup. The earlier one is replaced when the new one is complete.

        Raises Locked, OSError, NotKept, DatabaseFault.
        """
        make_folder(self._target)
        lock = DirectoryLock(self._target)
        try:
            snapshot = self._snapshot()
            kept = self._objects(snapshot)
            path = Path(str(snapshot.peewee.database))
            with snapshot.writing():
                snapshot.execute(RemovedObject.delete())
                # A backup has no resources: a daemon that serves from it writes all of them.
                snapshot.execute(Resource.update(sha256=""))
                snapshot.execute(Study.update(revision=Study.revision + 1))
            close_whole(snapshot)
            with path.open("rb") as file:
                os.fsync(file.fileno())
            path.replace(self._target / "index.sqlite")
            sync_folder(self._target)
            self._prune(kept)
        finally:
            lock.release()
        return self._done

    def _snapshot(self) -> Database:
        path = self._target / "index.sqlite.new"
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        open_new(path).close()
        with self._database.connection(), contextlib.closing(sqlite3.connect(path)) as copy:
            # All pages in one step are one read transaction: no writer waits, and no write makes it restart.
            self._database.peewee.connection().backup(copy)
        return open_sqlite(path, sync=True)

    def _objects(self, snapshot: Database) -> KnownPaths:
        kept, folders = KnownPaths(), set[str]()
        studies: set[int] = set()
        for table, row, path, study in self._rows(snapshot):
            if self._copy(path):
                kept.add(path)
                folders.add(path.rpartition("/")[0])
            elif self._is_deleted(path):
                with snapshot.writing():
                    snapshot.execute(table.delete().where(table.id == row))
                if study is not None:
                    studies.add(study)
            else:
                self._done.missing.append(path)
            self._progress(1)
        for study in studies:
            with snapshot.writing():
                recount(snapshot, study)
        for folder in folders:
            sync_folder(self._target / folder)
        if self._link:
            os.sync()  # linked files may not be on the disk yet
        return kept

    def _rows(self, snapshot: Database) -> Iterator[tuple[type[Instance | Conflict], int, str, int | None]]:
        last = 0
        query = Instance.select(Instance.id, Instance.path, Series.study).join(Series)
        while rows := snapshot.rows(query.where(Instance.id > last).order_by(Instance.id).limit(PAGE)):
            for row, path, study in rows:
                yield Instance, row, path, study
            last = rows[-1][0]
        for row, path in snapshot.rows(Conflict.select(Conflict.id, Conflict.path)):
            yield Conflict, row, path, None

    def _is_deleted(self, path: str) -> bool:
        """Return whether an object without a file has no row either: it was deleted since the snapshot."""
        return not any(
            self._database.rows(table.select(table.id).where(table.path == path))
            for table in (Instance, Conflict)
        )

    def _copy(self, path: str) -> bool:
        """Copy an object, unless the backup has it; return whether the backup has it now."""
        source, target = self._data / path, self._target / path
        if not source.is_file():
            return False
        try:
            wanted = source.stat()
        except FileNotFoundError:
            return False
        self._done.objects += 1
        with contextlib.suppress(FileNotFoundError):
            there = target.stat()
            if (there.st_size, there.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns):
                return True
        make_folder(target.parent)
        temporary = target.with_name(f".{target.name}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            self._copy_file(source, temporary)
        except FileNotFoundError:
            self._done.objects -= 1
            return False
        temporary.replace(target)
        self._done.copied += 1
        self._done.bytes += wanted.st_size
        return True

    def _copy_file(self, source: Path, temporary: Path) -> None:
        if self._link:
            with contextlib.suppress(OSError):
                temporary.hardlink_to(source)
                return
        with open_file(source) as content, open_new(temporary) as copy:
            shutil.copyfileobj(content, copy)
            copy.flush()
            when = os.fstat(content.fileno())
            os.utime(copy.fileno(), ns=(when.st_atime_ns, when.st_mtime_ns))
            os.fsync(copy.fileno())

    def _prune(self, kept: KnownPaths) -> None:
        """Remove the objects of an earlier run that the index no longer has."""
        for folder in ("objects", "conflicts"):
            for path in (self._target / folder).rglob("*"):
                name = str(path.relative_to(self._target))
                if path.is_file() and name not in kept and name not in self._done.missing:
                    path.unlink()
                    self._done.removed += 1
