"""What `reindex` takes from the old index: instances, and the tables that are not made from objects."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import peewee

from index.database.connection import Database
from index.database.new_index import NewIndex, column_names, last_ids, loading, set_last_ids, table_names
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


def copy_tables(old: Database, place: NewIndex, new: Database) -> None:
    """Copy all tables that are not made from objects, or none. Raises peewee.PeeweeException."""
    ours = table_names(new)
    last = last_ids(old)
    with place.old_tables(new) as prefix, loading(new):
        for table in ours:
            if table not in _NOT_COPIED:
                _copy(new, prefix, table)
        # A withdrawn study has no objects: its variants are copied too.
        withdrawn = f"SELECT id FROM {prefix}study WHERE withdrawn = 1 AND instance_count = 0"  # noqa: S608  ours
        _copy(new, prefix, "study_variant", f"WHERE study_id IN ({withdrawn})")
        made = last_ids(new)
        set_last_ids(
            new, {table: max(number, made.get(table, 0)) for table, number in last.items() if table in ours}
        )


def _copy(new: Database, prefix: str, table: str, which: str = "") -> None:
    """Copy the rows of a table. Its names are those of our schema."""
    columns = column_names(new, table)
    values = ["0" if column in _COUNTS.get(table, ()) else column for column in columns]
    new.peewee.execute_sql(
        f"INSERT INTO {table} ({', '.join(columns)})"  # noqa: S608  names of our tables
        f" SELECT {', '.join(values)} FROM {prefix}{table} {which}"
    )


def delete_empty_series(new: Database) -> None:
    """Delete series without instances, and mark their studies changed."""
    empty = Series.select(Series.study).where(Series.instance_count == 0)
    new.execute(Study.update(revision=Study.revision + 1).where(Study.id.in_(empty)))
    new.execute(Series.delete().where(Series.instance_count == 0))
