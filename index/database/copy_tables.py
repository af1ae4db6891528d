"""Copy the tables that are not made from objects into a new index: feed, orders, matches, conflicts, ..."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import peewee

from index.database.connection import Database
from index.database.tables import Instance, Series, SeriesVariant, Source, Study, StudyVariant
from index.records import Origin

# Instances of the old index that are read at once.
PAGE = 1000
# Made from the objects. Every other table is copied, also future ones.
_MADE = {table._meta.table_name for table in (Instance, SeriesVariant, StudyVariant)}  # noqa: SLF001  peewee's way
_NOT_COPIED = _MADE | {"schema_version", "rebuild", "journal_position", "attribute_table"}
# Studies and series keep their ids; these counts begin at 0.
_COUNTS = {"study": {"instance_count", "series_count"}, "series": {"instance_count"}}


@dataclass(frozen=True, slots=True)
class OldInstance:
    """What the old index has about one instance."""

    path: str
    uid: str = ""
    size: int = 0
    sha1: str = ""
    origin: Origin = field(default_factory=Origin)
    received: int = 0


def fingerprint(old: Database) -> str:
    """Return a text that changes whenever the instances of an index change."""
    with old.connection():
        row = old.peewee.execute_sql(
            "SELECT count(*), max(id), (SELECT sum(revision) FROM study) FROM instance"
        ).fetchone()
    return repr(row)


def old_instances(old: Database) -> Iterator[OldInstance]:
    """Yield the instances of the old index in their order of arrival."""
    last = 0
    query = Instance.select(
        Instance.id,
        Instance.path,
        Instance.uid,
        Instance.size,
        Instance.sha1,
        Source.calling_aet,
        Source.called_aet,
        Source.address,
        Instance.received,
    ).join(Source, peewee.JOIN.LEFT_OUTER)
    while rows := old.rows(query.where(Instance.id > last).order_by(Instance.id).limit(PAGE)):
        for _, path, uid, size, sha1, calling, called, address, received in rows:
            origin = Origin(calling or "", called or "", address or "")
            yield OldInstance(path, uid, size, sha1, origin, received)
        last = rows[-1][0]


def copy_tables(old: Path, new: Database) -> None:
    """Copy all tables that are not made from objects, or none. Raises peewee.PeeweeException."""
    with _attached(old, new), new.peewee.atomic("IMMEDIATE"):
        for table in _tables(new, "old"):
            if table not in _NOT_COPIED:
                _copy(new, table)
        # A withdrawn study has no objects: its variants are copied too.
        _copy(
            new,
            "study_variant",
            "WHERE study_id IN (SELECT id FROM old.study WHERE withdrawn = 1 AND instance_count = 0)",
        )
        new.peewee.execute_sql(
            "INSERT INTO main.sqlite_sequence (name, seq) SELECT name, seq FROM old.sqlite_sequence"
            " WHERE name NOT IN (SELECT name FROM main.sqlite_sequence)"
        )
        new.peewee.execute_sql(
            "UPDATE main.sqlite_sequence SET seq = max(seq, coalesce("
            "(SELECT o.seq FROM old.sqlite_sequence o WHERE o.name = main.sqlite_sequence.name), 0))"
        )


def delete_empty_series(new: Database) -> None:
    """Delete series without instances, and mark their studies changed."""
    empty = Series.select(Series.study).where(Series.instance_count == 0)
    new.execute(Study.update(revision=Study.revision + 1).where(Study.id.in_(empty)))
    new.execute(Series.delete().where(Series.instance_count == 0))


@contextmanager
def _attached(old: Path, new: Database) -> Iterator[None]:
    with new.connection():
        new.peewee.execute_sql("PRAGMA foreign_keys = 0")
        new.peewee.execute_sql("ATTACH ? AS old", (str(old),))
        try:
            yield
        finally:
            new.peewee.execute_sql("DETACH old")
            new.peewee.execute_sql("PRAGMA foreign_keys = 1")


def _tables(database: Database, schema: str) -> list[str]:
    sql = f"SELECT name FROM {schema}.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"  # noqa: S608  ours
    return [name for (name,) in database.peewee.execute_sql(sql).fetchall()]


def _copy(new: Database, table: str, which: str = "") -> None:
    """Copy the rows of a table. Its names are those of our schema."""
    rows = new.peewee.execute_sql(f"PRAGMA old.table_info({table})").fetchall()
    columns = [row[1] for row in rows]
    values = ["0" if column in _COUNTS.get(table, ()) else column for column in columns]
    new.peewee.execute_sql(
        f"INSERT INTO main.{table} ({', '.join(columns)})"  # noqa: S608
        f" SELECT {', '.join(values)} FROM old.{table} {which}"
    )


def close_and_merge(database: Database) -> None:
    """Close a database so that one file holds it all, without a write-ahead log beside it."""
    path = Path(str(database.peewee.database))
    database.close()
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = delete")
    finally:
        connection.close()
