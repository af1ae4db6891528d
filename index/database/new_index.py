"""A new index beside an old one, and how it takes its place; how whole tables are read and written.

SQLite has a second file, PostgreSQL a second schema. What the two differ in, for commands that make a whole
index (`reindex`, `migrate-index`), is here. Tables, columns and sequences are those that the database holds:
a table that a later migration adds is among them.
"""

import os
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peewee

from index.database.connection import SCHEMA_LOCK, Database
from index.database.opening import open_sqlite
from index.errors import DatabaseFault, NotKept
from index.storage.durable import sync_folder

# The page cache of a new SQLite database, in kB: all parts of its indexes are written while it grows.
CACHE = 64 * 1024
# Rows that PostgreSQL sends at once.
FETCHED = 2000
# How long the exchange waits for transactions of other programs that use the old tables.
LOCK_TIMEOUT = "30s"
# PostgreSQL cuts names off at 63 bytes.
_SUFFIX, _NAME_LENGTH = "_imagingstudyd_new", 63

_HERE = "(SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
_SEQUENCES = f"""
    SELECT s.relname, t.relname, a.attname FROM pg_class s
    LEFT JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass
        AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
    LEFT JOIN pg_class t ON t.oid = d.refobjid
    LEFT JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid
    WHERE s.relkind = 'S' AND s.relnamespace = {_HERE} ORDER BY s.relname
"""  # noqa: S608  ours
_FOREIGN_KEYS = f"""
    SELECT t.relname, c.conname, pg_get_constraintdef(c.oid) FROM pg_constraint c
    JOIN pg_class t ON t.oid = c.conrelid WHERE c.contype = 'f' AND c.connamespace = {_HERE}
"""  # noqa: S608  ours


def quoted(name: str) -> str:
    """Return a name as SQL has it."""
    return '"' + name.replace('"', '""') + '"'


def _fetched(database: Database, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    with database.connection():
        return [tuple(row) for row in database.peewee.execute_sql(sql, values).fetchall()]


def table_names(database: Database) -> list[str]:
    """Return the names of all tables, sorted."""
    sql = (
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        if database.is_sqlite
        else "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    )
    return sorted(name for (name,) in _fetched(database, sql))


def column_names(database: Database, table: str) -> list[str]:
    """Return the columns of a table, sorted."""
    if database.is_sqlite:
        return sorted(row[1] for row in _fetched(database, f"PRAGMA table_info({quoted(table)})"))
    sql = (
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = current_schema() AND table_name = %s AND is_generated = 'NEVER'"
    )
    return sorted(name for (name,) in _fetched(database, sql, (table,)))


def count_rows(database: Database, table: str) -> int:
    """Return how many rows a table has."""
    return int(_fetched(database, f"SELECT count(*) FROM {quoted(table)}")[0][0])  # noqa: S608  names of our tables, quoted


def last_ids(database: Database) -> dict[str, int]:
    """Return the last id that was given in each table, by its sequence; rows may be gone since.

    Raises DatabaseFault where a sequence belongs to no table: the other engine has no such sequences.
    """
    if database.is_sqlite:
        return {name: seq for name, seq in _fetched(database, "SELECT name, seq FROM sqlite_sequence") if seq}
    ids = {}
    for sequence, table, column in _fetched(database, _SEQUENCES):
        if table is None:
            raise DatabaseFault(f"{database.name}: sequence {sequence} belongs to no table")
        # As SQLite counts them: also ids that were given by hand.
        ((last, highest),) = _fetched(
            database,
            f"SELECT CASE WHEN is_called THEN last_value ELSE 0 END,"  # noqa: S608  names of our tables, quoted
            f" (SELECT coalesce(max({quoted(column)}), 0) FROM {quoted(table)}) FROM {quoted(sequence)}",
        )
        if last or highest:
            ids[table] = max(last, highest)
    return ids


def set_last_ids(database: Database, ids: Mapping[str, int]) -> None:
    """Set the last given ids of these tables, inside a transaction."""
    if database.is_sqlite:
        for table, last in ids.items():
            database.peewee.execute_sql("DELETE FROM sqlite_sequence WHERE name = ?", (table,))
            database.peewee.execute_sql(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", (table, last)
            )
        return
    for sequence, table, _ in _fetched(database, _SEQUENCES):
        if table in ids:
            database.peewee.execute_sql("SELECT setval(%s, %s)", (quoted(sequence), ids[table]))


@contextmanager
def snapshot(database: Database) -> Iterator[None]:
    """One read transaction in which nothing changes, and which keeps writers out.

    Raises NotKept where another process is writing.
    """
    kind = "IMMEDIATE" if database.is_sqlite else "REPEATABLE READ"
    with database.connection(), database.peewee.atomic(*([] if database.is_read_only else [kind])):
        if not database.is_sqlite:
            tables = ", ".join(map(quoted, table_names(database)))
            database.peewee.execute_sql(f"LOCK TABLE {tables} IN SHARE MODE NOWAIT")
        yield


@contextmanager
def loading(database: Database) -> Iterator[None]:
    """One transaction in which rows are added in any order of the tables, whatever refers to them."""
    with database.connection():
        if database.is_sqlite:
            database.peewee.execute_sql("PRAGMA foreign_keys = 0")
            try:
                with database.peewee.atomic("IMMEDIATE"):
                    yield
            finally:
                database.peewee.execute_sql("PRAGMA foreign_keys = 1")
            return
        with database.peewee.atomic():
            keys = _fetched(database, _FOREIGN_KEYS)
            for table, name, _ in keys:
                database.peewee.execute_sql(f"ALTER TABLE {quoted(table)} DROP CONSTRAINT {quoted(name)}")
            yield
            for table, name, definition in keys:
                database.peewee.execute_sql(
                    f"ALTER TABLE {quoted(table)} ADD CONSTRAINT {quoted(name)} {definition}"
                )


def read_rows(
    database: Database, table: str, columns: Sequence[str]
) -> Generator[tuple[Any, ...], None, None]:
    """Yield all rows, a few in memory at a time, inside a transaction."""
    sql = f"SELECT {', '.join(map(quoted, columns))} FROM {quoted(table)}"  # noqa: S608  names of our tables, quoted
    if database.is_sqlite:
        yield from database.peewee.execute_sql(sql)
        return
    with peewee.__exception_wrapper__, database.peewee.connection().cursor(name="rows") as cursor:  # type: ignore[attr-defined]  # its stubs leave it out
        cursor.itersize = FETCHED
        cursor.execute(sql)
        yield from cursor


def write_rows(database: Database, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Add rows, a few in memory at a time, inside a transaction. Raises peewee.PeeweeException."""
    names = f"{quoted(table)} ({', '.join(map(quoted, columns))})"
    cursor = database.peewee.cursor()
    with peewee.__exception_wrapper__:  # type: ignore[attr-defined]  # its stubs leave it out
        if database.is_sqlite:
            marks = ", ".join("?" * len(columns))
            cursor.executemany(f"INSERT INTO {names} VALUES ({marks})", rows)  # noqa: S608  names of our tables, quoted
            return
        with cursor.copy(f"COPY {names} FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)


class NewIndex(ABC):
    """An index that is being made beside the one whose place it takes."""

    @abstractmethod
    def is_begun(self) -> bool:
        """Tell whether an interrupted run has left one."""

    @abstractmethod
    def open(self) -> Database:
        """Open the new index with all its tables; make it if it is missing. Raises DatabaseFault, NotKept."""

    @abstractmethod
    def remove(self) -> None:
        """Remove what an interrupted run has left."""

    @abstractmethod
    def old_tables(self, new: Database) -> Any:
        """Return a context in which statements of the new index read tables of the old one, by a prefix."""

    @abstractmethod
    def exchange(self, new: Database, *, is_old_damaged: bool = False) -> None:
        """Close the new index and put it in the place of the old one: at any moment one of them is there.

        The old one must be closed, as by `close_whole`.
        """


def new_index(old: Path | Database) -> NewIndex:
    """Return the new index for an SQLite file, or for the PostgreSQL schema that a database uses."""
    return NewFile(old) if isinstance(old, Path) else NewSchema(old)


class NewFile(NewIndex):
    """A file beside an SQLite index."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._new_path = path.with_name(f"{path.name}.new")

    def is_begun(self) -> bool:
        """See NewIndex."""
        return self._new_path.exists()

    def open(self) -> Database:
        """See NewIndex. It is synced as a whole, before the exchange."""
        new = open_sqlite(self._new_path, sync=False, cache=CACHE)
        new.migrate()
        return new

    def remove(self) -> None:
        """See NewIndex."""
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._new_path}{suffix}").unlink(missing_ok=True)

    @contextmanager
    def old_tables(self, new: Database) -> Iterator[str]:
        """See NewIndex."""
        with new.connection():
            new.peewee.execute_sql("ATTACH ? AS old", (str(self._path),))
            try:
                yield "old."
            finally:
                new.peewee.execute_sql("DETACH old")

    def exchange(self, new: Database, *, is_old_damaged: bool = False) -> None:
        """See NewIndex."""
        close_whole(new)
        with self._new_path.open("rb") as file:
            os.fsync(file.fileno())
        if is_old_damaged and self._path.exists():
            self._keep_damaged()
        self._new_path.replace(self._path)
        sync_folder(self._path.parent)

    def _keep_damaged(self) -> None:
        """Keep a damaged index beside the new one, which must not be used with its write-ahead log."""
        damaged = self._path.with_name(f"{self._path.name}.damaged")
        damaged.unlink(missing_ok=True)
        damaged.hardlink_to(self._path)
        for suffix in ("-wal", "-shm"):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)


class NewSchema(NewIndex):
    """A schema beside that of a PostgreSQL index, in the same database."""

    def __init__(self, old: Database) -> None:
        ((schema,),) = _fetched(old, "SELECT current_schema()")
        if schema is None:
            raise DatabaseFault(f"{old.name}: the schema of its search_path is not there")
        self._old = old
        self._schema = str(schema)
        self._new_schema = self._schema[: _NAME_LENGTH - len(_SUFFIX)] + _SUFFIX

    def is_begun(self) -> bool:
        """See NewIndex."""
        sql = "SELECT count(*) FROM pg_namespace WHERE nspname = %s"
        return bool(_fetched(self._old, sql, (self._new_schema,))[0][0])

    def open(self) -> Database:
        """See NewIndex."""
        from index.database.postgresql import in_schema

        if not self.is_begun():
            self._run(f"CREATE SCHEMA {quoted(self._new_schema)}")
        new = Database(in_schema(self._old.peewee, self._new_schema), self._old.types, name=self._old.name)
        try:
            new.migrate()
            self._check_ownership(new)
        except BaseException:
            new.close()
            raise
        return new

    def _check_ownership(self, new: Database) -> None:
        """Raise DatabaseFault where another program's tables have our names: they would be dropped."""
        there = table_names(self._old)
        if "schema_version" not in there and (foreign := sorted(set(there) & set(table_names(new)))):
            raise DatabaseFault(
                f"{new.name}: schema {self._schema} holds no index, but other tables: {', '.join(foreign)}"
            )

    def remove(self) -> None:
        """See NewIndex."""
        self._run(f"DROP SCHEMA IF EXISTS {quoted(self._new_schema)} CASCADE")

    def _run(self, sql: str) -> None:
        try:
            with self._old.connection():
                self._old.peewee.execute_sql(sql)
        except (NotKept, peewee.PeeweeException) as error:
            raise DatabaseFault(f"{self._old.name}: {sql}: {error}") from error

    @contextmanager
    def old_tables(self, new: Database) -> Iterator[str]:
        """See NewIndex."""
        with new.connection():
            yield f"{quoted(self._schema)}."

    def exchange(self, new: Database, *, is_old_damaged: bool = False) -> None:  # noqa: ARG002  see NewIndex
        """See NewIndex. Other tables, views and functions of the schema stay, as do rights on our tables."""
        try:
            with new.writing():
                run: Callable[..., Any] = new.peewee.execute_sql
                run(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                run("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", (SCHEMA_LOCK, self._schema))
                ours = table_names(new)
                there = [table for table in ours if (table,) in self._tables(new)]
                rights = list(self._rights(new, there))
                if there:
                    run(f"DROP TABLE {', '.join(map(self._in_old, there))}")
                for table in ours:
                    run(f"ALTER TABLE {quoted(table)} SET SCHEMA {quoted(self._schema)}")
                for right in rights:
                    run(right)
                run(f"DROP SCHEMA {quoted(self._new_schema)}")
                for table in ours:
                    run(f"ANALYZE {self._in_old(table)}")
        except (NotKept, peewee.PeeweeException) as error:
            raise DatabaseFault(f"{new.name}: the new index cannot take its place: {error}") from error
        finally:
            new.close()

    def _in_old(self, table: str) -> str:
        return f"{quoted(self._schema)}.{quoted(table)}"

    def _tables(self, new: Database) -> list[tuple[Any, ...]]:
        return _fetched(new, "SELECT tablename FROM pg_tables WHERE schemaname = %s", (self._schema,))

    def _rights(self, new: Database, tables: Sequence[str]) -> Iterator[str]:
        """Yield the statements that give others the rights that they have on the old tables."""
        sql = (
            "SELECT c.relname, a.privilege_type,"
            " CASE a.grantee WHEN 0 THEN NULL ELSE pg_get_userbyid(a.grantee) END"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a"
            " WHERE n.nspname = %s AND c.relkind = 'r' AND a.grantee <> c.relowner"
        )
        for table, right, role in _fetched(new, sql, (self._schema,)):
            if table in tables:
                yield f"GRANT {right} ON {self._in_old(table)} TO {quoted(role) if role else 'PUBLIC'}"


def close_whole(database: Database) -> None:
    """Close a database. SQLite's is then one file that holds it all, without a write-ahead log beside it."""
    path = str(database.peewee.database)
    database.close()
    if not database.is_sqlite:
        return
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = delete")
    finally:
        connection.close()
