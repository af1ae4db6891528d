"""What only the old index knows, taken into a new one: feed, orders, matches, conflicts and so on."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import peewee

from index.database.connection import Database
from index.database.tables import Instance, Series, SeriesVariant, Source, Study, StudyVariant
from index.records import Origin

# Instances of the old index that are read at one time.
PAGE = 1000
# Made from the objects; everything else is carried over, whoever added the table.
_MADE = {table._meta.table_name for table in (Instance, SeriesVariant, StudyVariant)}  # noqa: SLF001  peewee's way
_NOT_CARRIED = _MADE | {"schema_version", "rebuild", "journal_position"}
# Studies and series keep their ids; their counts begin at nothing.
_BEGIN = {"study": {"instance_count", "series_count"}, "series": {"instance_count"}}


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the old index knows of one instance."""

    path: str
    uid: str = ""
    size: int = 0
    sha1: str = ""
    origin: Origin = field(default_factory=Origin)
    received: int = 0


def fingerprint(old: Database) -> str:
    """Return what changes whenever the instances of an index do."""
    with old.connection():
        row = old.peewee.execute_sql(
            "SELECT count(*), max(id), (SELECT sum(revision) FROM study) FROM instance"
        ).fetchone()
    return repr(row)


def remembered(old: Database) -> Iterator[Remembered]:
    """Yield what the old index knows of each instance, in their order of arrival."""
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
            yield Remembered(path, uid, size, sha1, origin, received)
        last = rows[-1][0]


def carry_over(old: Path, new: Database) -> None:
    """Copy what is not made from objects, all of it or nothing. Raises peewee.PeeweeException."""
    with _attached(old, new), new.peewee.atomic("IMMEDIATE"):
        for table in _tables(new, "old"):
            if table not in _NOT_CARRIED:
                _copy(new, table)
        # A tombstone is all that is left of its study.
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


def drop_what_is_empty(new: Database) -> None:
    """Take out the series that no object belongs to any more, and let their studies be published."""
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
    """Copy a table's rows; names are those of our own schema."""
    rows = new.peewee.execute_sql(f"PRAGMA old.table_info({table})").fetchall()
    columns = [row[1] for row in rows]
    values = ["0" if column in _BEGIN.get(table, ()) else column for column in columns]
    new.peewee.execute_sql(
        f"INSERT INTO main.{table} ({', '.join(columns)})"  # noqa: S608
        f" SELECT {', '.join(values)} FROM old.{table} {which}"
    )


def close_and_merge(database: Database) -> None:
    """Close a database so that its file alone holds everything: no write-ahead log is left beside it."""
    path = Path(str(database.peewee.database))
    database.close()
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("PRAGMA journal_mode = delete")
    finally:
        connection.close()
