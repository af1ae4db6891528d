"""How the files below `fhir/` follow the change feed, in each data directory on its own.

The number of the last entry that the files show stands beside them, in `fhir.position`, with that entry's
time: where the feed does not have that entry (it was pruned, or is another one), all files are compared with
the resources, a few at a time while nothing else waits. The position is written after the files: after a
crash some are written again.
"""

import contextlib
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from peewee import SQL, Query

from index.database.connection import Database
from index.database.tables import Change, Resource
from index.publication.directory import Directory
from index.publication.feed import PAGE, Key
from index.publication.resources import Resources
from index.storage.durable import open_file, replace, temporary_of

log = structlog.get_logger(__name__)

# Resources that are compared with their files at a time: some milliseconds.
COMPARED = 50
_PARTS, _SIZE = 2, 64  # of the position: number and time, and the bytes of both that are read


class DirectoryFollower:
    """Writes and removes the files of one data directory. For one thread at a time."""

    def __init__(self, database: Database, directory: Directory, *, is_kept: bool = True) -> None:
        self._database = database
        self._directory = directory
        self._resources = Resources(database, directory)
        self._path = directory.root.with_name("fhir.position")
        self.is_kept = is_kept
        # Connections that were lost when the position was last looked up: a server that replaces another one
        # may not have the newest entries, and give their numbers anew.
        self._losses = 0
        # The last entry that the files show; None: not read yet.
        self._position: tuple[int, int] | None = None
        # The last resource that has been compared with its file; None: all are right up to the position.
        self._compared: int | None = None
        # Files that could not be written or removed, and why: they do not stop the others.
        self._failed: dict[Key, OSError] = {}

    @property
    def is_comparing(self) -> bool:
        """Whether `compare_some` has more to do."""
        return self.is_kept and self._compared is not None

    def look(self) -> None:
        """Let the files show what others have published: what an ended process left, or another node.

        Raises NotKept.
        """
        # Beside a daemon nobody else publishes into an SQLite index: then one look is enough.
        if self._failed or not (self._database.is_sqlite and self._position is not None):
            self.follow({})

    def follow(self, fresh: Mapping[Key, bytes] | None = None) -> None:
        """Let the files show every entry. `fresh` are contents that were just published.

        Raises OSError where a file of `fresh` cannot be written, without `fresh` where any file cannot.
        """
        if not self.is_kept:
            return
        self.open()
        for key in list(self._failed):
            for row in self._run(_select_resource, fhir=key[0], type=key[1], name=key[2]):
                self._show(row, {})
        number = self._position[0] if self._position else 0
        last = PAGE
        while last == PAGE:
            rows = self._run(_select_entries, after=number)
            last = len(rows)
            # Of several entries of one resource, the last.
            for row in {row[2]: row for row in rows}.values():
                self._show(row[3:], fresh or {})
            if rows:
                self._position = rows[-1][:2]
                number = self._position[0]
                self._save()
        for key, error in self._failed.items():
            if fresh is None or key in fresh:
                raise error

    def compare_some(self) -> None:
        """Compare some files with their resources, where not all are known to be right."""
        if not self.is_comparing:
            return
        rows = self._run(_select_resources, after=self._compared)
        for _, *row in rows:
            *key, deleted, sha256 = row
            path = self._directory.path(*key)
            is_wrong = path.exists() if deleted else _sha256(path) != sha256
            if is_wrong or temporary_of(path).exists():
                self._show(row, {})
        self._compared = rows[-1][0] if len(rows) == COMPARED else None
        self._save()

    def compare_all(self) -> None:
        """Compare until all files have been compared."""
        while self.is_comparing:
            self.compare_some()

    def _show(self, row: Any, fresh: Mapping[Key, bytes]) -> None:
        """Write or remove the file of a resource, as it is now."""
        fhir, kind, name, deleted, sha256 = row
        key = (fhir, kind, name)
        try:
            self._write(key, sha256, fresh, deleted=bool(deleted))
            self._failed.pop(key, None)
        except OSError as error:
            if key not in self._failed:
                log.exception("resource_not_written", fhir=fhir, type=kind, id=name)
            self._failed[key] = error

    def _write(self, key: Key, sha256: str, fresh: Mapping[Key, bytes], *, deleted: bool) -> None:
        if deleted:
            self._directory.remove(*key)
            return
        content = fresh.get(key)
        if content is None or hashlib.sha256(content).hexdigest() != sha256:
            found = self._resources.read(*key)
            content = found.content if found else b""
        if content:
            self._directory.write(*key, content)

    def open(self) -> None:
        """Read the position, before anything is published. Where the feed does not have it, begin to compare.

        Raises NotKept.
        """
        losses = self._database.losses
        if (self._position is not None and losses == self._losses) or not self.is_kept:
            return
        position = self._position or self._read()
        if position is None or not self._directory.root.is_dir() or not self._is_entry(position):
            rows = self._run(_select_last)
            position = rows[0][:2] if rows else (0, 0)
            self._compared = 0
            if not self._run(_select_resources, after=0):
                self._compared = None
        self._position, self._losses = position, losses

    def _is_entry(self, position: tuple[int, int]) -> bool:
        query = Change.select(Change.id).where((Change.id == position[0]) & (Change.changed == position[1]))
        return bool(self._database.rows(query))

    def _read(self) -> tuple[int, int] | None:
        with contextlib.suppress(OSError, ValueError), open_file(self._path) as file:
            parts = file.read(_SIZE).split()
            if len(parts) == _PARTS:
                return int(parts[0]), int(parts[1])
        return None

    def _save(self) -> None:
        """Note the position where all files are right. Not synced: an older one is right too."""
        if self._compared is None and self._position and not self._failed:
            number, at = self._position
            # Where it cannot be written, the next start compares.
            with contextlib.suppress(OSError):
                replace(self._path, f"{number} {at}\n".encode(), sync=False)

    def _run(self, query: Callable[[Callable[[str], SQL]], Query], **values: Any) -> list[tuple[Any, ...]]:
        with self._database.connection():
            rows = self._database.prepared(query).run(**values).fetchall()
        return [tuple(row) for row in rows]


def _sha256(path: Any) -> str:
    try:
        with open_file(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


_KEY = (Resource.fhir, Resource.type, Resource.name)


def _select_entries(p: Callable[[str], SQL]) -> Query:
    query = Change.select(
        Change.id, Change.changed, Change.resource, *_KEY, Resource.deleted, Resource.sha256
    )
    return query.join(Resource).where(Change.id > p("after")).order_by(Change.id).limit(SQL(str(PAGE)))


def _select_resource(p: Callable[[str], SQL]) -> Query:
    is_it = (Resource.fhir == p("fhir")) & (Resource.type == p("type")) & (Resource.name == p("name"))
    return Resource.select(*_KEY, Resource.deleted, Resource.sha256).where(is_it)


def _select_last(_: Callable[[str], SQL]) -> Query:
    return Change.select(Change.id, Change.changed).order_by(Change.id.desc()).limit(SQL("1"))


def _select_resources(p: Callable[[str], SQL]) -> Query:
    query = Resource.select(Resource.id, *_KEY, Resource.deleted, Resource.sha256)
    return query.where(Resource.id > p("after")).order_by(Resource.id).limit(SQL(str(COMPARED)))
