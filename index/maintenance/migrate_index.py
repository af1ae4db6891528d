"""A whole index copied from one database to another: SQLite to PostgreSQL, and back.

All tables are copied that the migrations make, in one transaction, into a new index beside the target's empty
place. It takes that place when its content is proven equal: an interrupted run leaves the target as it was.
"""

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import peewee

from index.database.connection import Database
from index.database.new_index import (
    NewIndex,
    close_whole,
    column_names,
    count_rows,
    last_ids,
    loading,
    new_index,
    read_rows,
    set_last_ids,
    snapshot,
    table_names,
    write_rows,
)
from index.database.node import ServingLock, check_owner, is_elsewhere, nodes, register
from index.database.opening import open_unmigrated, sqlite_path
from index.database.tables import JournalPosition, Node
from index.errors import DatabaseFault, ForeignIndex, Locked, NotKept
from index.storage.journal import read
from index.storage.lock import DirectoryLock, UseLock

# Rows between two calls of the progress.
STEP = 1000
# Each database has its own: what it says is made by the migrations.
_NOT_COPIED = frozenset(("schema_version",))
# What an index holds before anything has arrived.
_OF_AN_EMPTY_INDEX = _NOT_COPIED | {"journal_position", "attribute_table", "node"}

# Shows a phase of so many rows; yields a function that is called with how many more are done.
Progress = Callable[[str, int], contextlib.AbstractContextManager[Callable[[int], None]]]


@dataclass(slots=True)
class Content:
    """What a table holds. `digest` is the sum of its rows' hashes: their order does not matter."""

    rows: int = 0
    digest: int = 0
    last_id: int = 0

    def add(self, row: Sequence[Any]) -> None:
        """Count a row in."""
        self.rows += 1
        digest = hashlib.sha256(repr(tuple(map(_plain, row))).encode()).digest()
        self.digest = (self.digest + int.from_bytes(digest)) % (1 << 256)


def _plain(value: Any) -> Any:
    """Return the value that is the same from both engines."""
    return bytes(value) if isinstance(value, bytearray | memoryview) else value


@dataclass(slots=True)
class Migrated:
    """The result: rows by table, and `differences`. `not_copied`: tables that no migration makes."""

    tables: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)
    not_copied: list[str] = field(default_factory=list)


def migrate_index(data: Path, source_url: str, target_url: str, progress: Progress) -> Migrated:
    """Copy the index of a data directory to another database; where the two differ then, it is not kept.

    Raises Locked where one of them is in use, ForeignIndex where one is that of another data directory,
    DatabaseFault where the source holds no index, its journal is not replayed or the target is not empty,
    NotKept, OSError.
    """
    if not data.is_dir():
        raise DatabaseFault(f"{data}: no such data directory")
    with contextlib.ExitStack() as stack:
        stack.callback(DirectoryLock(data).release)
        stack.callback(UseLock(data, alone=True).release)
        source = stack.enter_context(contextlib.closing(_open_source(data, source_url)))
        if not source.is_sqlite:
            _keep_daemons_off(source, stack)
        place = _prepare_target(data, target_url, stack)
        place.remove()
        new = stack.enter_context(contextlib.closing(place.open()))
        migrated = _copy(source, new, progress)
        if migrated.differences:
            new.close()
            place.remove()
            return migrated
        if is_elsewhere(sqlite_path(target_url, data), data):
            _give(new, data, was_in_directory=not is_elsewhere(sqlite_path(source_url, data), data))
        place.exchange(new)
    return migrated


def _keep_daemons_off(database: Database, stack: contextlib.ExitStack) -> None:
    lock = ServingLock(database)
    lock.take()
    stack.callback(lock.release)


def _open_source(data: Path, url: str) -> Database:
    path = sqlite_path(url, data)
    if path and not path.is_file():
        raise DatabaseFault(f"{path}: no such file")
    source = open_unmigrated(url, data)
    try:
        _check_source(source, path, data)
    except BaseException:
        source.close()
        raise
    return source


def _check_source(source: Database, path: Path | None, data: Path) -> None:
    try:
        if "schema_version" not in table_names(source):
            raise DatabaseFault(f"{source.name}: holds no index")
        source.migrate()
    except peewee.PeeweeException as error:
        raise DatabaseFault(f"{source.name}: {error}") from error
    if is_elsewhere(path, data):
        check_owner(source, data)
        if len(others := nodes(source)) > 1:
            raise DatabaseFault(
                f"{source.name}: is the index of {len(others)} data directories: an index of one only can be "
                "migrated"
            )
    _check_journal(source, data)


def _check_journal(source: Database, data: Path) -> None:
    """Raise DatabaseFault where instances are acknowledged that the index does not know yet."""
    query = JournalPosition.select(peewee.fn.MIN(JournalPosition.settled))
    settled = source.rows(query)[0][0] or 0
    left = sum(record.number > settled for record in read(data / "journal"))
    if left:
        raise DatabaseFault(
            f"{data / 'journal'}: {left} records are not replayed: start and stop `imagingstudyd serve` "
            "with the index that you migrate from, then migrate"
        )


def _prepare_target(data: Path, url: str, stack: contextlib.ExitStack) -> NewIndex:
    """Make sure that the target is empty and not in use."""
    path = sqlite_path(url, data)
    if path is None:
        target = stack.enter_context(contextlib.closing(open_unmigrated(url, data)))
        place = new_index(target)
        _keep_daemons_off(target, stack)
        _check_empty(target, data)
        return place
    if is_elsewhere(path, data) and (path.parent / "objects").is_dir():
        raise ForeignIndex(f"{path}: is in a data directory, which is not {data}")
    if path.exists():
        target = open_unmigrated(url, data)
        with contextlib.closing(target):
            _check_empty(target, data)
        close_whole(target)
    for suffix in ("-wal", "-journal"):
        if (log_file := Path(f"{path}{suffix}")).exists():
            raise DatabaseFault(f"{log_file}: belongs to a database that is not there: move it away")
    return new_index(path)


def _check_empty(target: Database, data: Path) -> None:
    try:
        tables = table_names(target)
        if tables and "schema_version" not in tables:
            raise DatabaseFault(f"{target.name}: is not empty, but holds the tables {', '.join(tables)}")
        if "node" in tables:
            check_owner(target, data)
        for table in tables:
            if table not in _OF_AN_EMPTY_INDEX and (rows := count_rows(target, table)):
                raise DatabaseFault(f"{target.name}: is not empty: {table} has {rows} rows; move it away")
    except peewee.PeeweeException as error:
        raise DatabaseFault(f"{target.name}: {error}") from error


def _copy(source: Database, new: Database, progress: Progress) -> Migrated:
    """Copy all tables, then read both again and compare."""
    with _reading(source):
        there = table_names(source)
        tables = [table for table in table_names(new) if table not in _NOT_COPIED]
        missing = [table for table in tables if table not in there]
        migrated = Migrated(not_copied=sorted(set(there) - set(tables) - _NOT_COPIED))
        ids = last_ids(source)
        total = sum(count_rows(source, table) for table in tables if table not in missing)
        contents = {table: Content(last_id=ids.get(table, 0)) for table in tables}
        with progress("copying", total) as advance, loading(new):
            for table in tables:
                if table not in missing:
                    _copy_table(source, new, table, contents[table], advance)
            set_last_ids(new, {table: ids[table] for table in tables if table in ids})
        migrated.tables = {table: contents[table].rows for table in tables}
    with progress("comparing", total) as advance, _reading(new):
        new_ids = last_ids(new)
        for table in tables:
            found = Content(last_id=new_ids.get(table, 0))
            with contextlib.closing(read_rows(new, table, column_names(new, table))) as rows:
                deque(_counted(rows, found, advance), maxlen=0)
            migrated.differences += _differences(table, contents[table], found)
    return migrated


@contextlib.contextmanager
def _reading(database: Database) -> Iterator[None]:
    """One snapshot. Raises Locked where another process is writing."""
    try:
        with snapshot(database):
            yield
    except NotKept as error:
        raise Locked(f"{database.name}: {error}") from error


def _copy_table(
    source: Database, new: Database, table: str, content: Content, advance: Callable[[int], None]
) -> None:
    columns = column_names(source, table)
    last: list[Any] = []
    try:
        new.peewee.execute_sql(f"DELETE FROM {table}")  # noqa: S608  what the migrations have put into it
        with contextlib.closing(read_rows(source, table, columns)) as rows:
            write_rows(new, table, columns, _counted(rows, content, advance, last))
    except peewee.PeeweeException as error:
        row = dict(zip(columns, last, strict=False)).get("id", content.rows)
        raise DatabaseFault(f"{new.name}: table {table}, near row {row}: {error}") from error


def _counted(
    rows: Iterable[tuple[Any, ...]],
    content: Content,
    advance: Callable[[int], None],
    last: list[Any] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Yield the rows; count them into `content`. The one that is being read is in `last`."""
    for row in rows:
        if last is not None:
            last[:] = row
        content.add(row)
        yield row
        if content.rows % STEP == 0:
            advance(STEP)
    advance(content.rows % STEP)


def _differences(table: str, source: Content, target: Content) -> Iterator[str]:
    if source.rows != target.rows:
        yield f"{table}: {source.rows} rows, and {target.rows} in the copy"
    elif source.digest != target.digest:
        yield f"{table}: {source.rows} rows, but the copy has other values"
    if source.last_id != target.last_id:
        yield f"{table}: last id {source.last_id}, and {target.last_id} in the copy"


def _give(new: Database, data: Path, *, was_in_directory: bool) -> None:
    """Let the new index, which is elsewhere, belong to the data directory."""
    if was_in_directory:  # there the directory itself tells whose index it is
        with new.writing():
            new.execute(Node.delete())
    register(new, data)
