"""With which attribute table the rows of instances were made.

A row holds what the header reader kept when it was made. Row ids follow the order of arrival, so an entry
names a table and the id of the first row that was made with it. Rows before the first entry are older.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import peewee

from index.database.connection import Database
from index.database.opening import open_sqlite, sqlite_path
from index.database.settings import IndexSettings
from index.database.tables import AttributeTable, Instance
from index.dicom.attributes import table_digest
from index.errors import IndexFault, NotKept

# The ids of rows: the first of them, and the first that is behind them; None: all that follow.
Range = tuple[int, int | None]


def note_current(database: Database) -> None:
    """Note that this program's table makes the rows from now on, where the last entry names another one.

    On a full disk this can fail; rows then count as older than they are, which does no harm.
    """
    if _last(database) == table_digest():
        return
    with suppress(NotKept), database.writing():
        database.lock_schema()
        if _last(database) != table_digest():
            first = Instance.select(peewee.fn.COALESCE(peewee.fn.MAX(Instance.id), 0) + 1)
            database.execute(AttributeTable.insert(digest=table_digest(), first_instance=first))


def note_all_current(database: Database) -> None:
    """Note that all rows agree with this program's table; inside a write transaction."""
    database.execute(AttributeTable.delete())
    database.execute(AttributeTable.insert(digest=table_digest(), first_instance=1))


def outdated(database: Database) -> list[Range]:
    """Return the ids of rows that another table than this program's has made."""
    entries = database.rows(
        AttributeTable.select(AttributeTable.digest, AttributeTable.first_instance).order_by(
            AttributeTable.id
        )
    )
    return list(_ranges(entries))


def _ranges(entries: Iterable[tuple[str, int]]) -> Iterator[Range]:
    before, begin = "", 0
    for digest, first in entries:
        if before != table_digest() and begin < first:
            yield begin, first
        before, begin = digest, first
    if before != table_digest():
        yield begin, None


def is_within(row: int, ranges: Iterable[Range]) -> bool:
    """Return whether a row id is in one of the ranges."""
    return any(first <= row and (end is None or row < end) for first, end in ranges)


def rows_within(ranges: Iterable[Range]) -> Any:
    """Return the condition that an instance's row is in one of the ranges."""
    condition: Any = peewee.SQL("1 = 0")
    for first, end in ranges:
        condition |= (Instance.id >= first) & (peewee.SQL("1 = 1") if end is None else Instance.id < end)
    return condition


def count_outdated(database: Database) -> int:
    """Return how many rows another table than this program's has made."""
    query = Instance.select(peewee.fn.COUNT(Instance.id)).where(rows_within(outdated(database)))
    return int(database.rows(query)[0][0])


def outdated_instances(data: Path, index: IndexSettings) -> int:
    """Return the same of an SQLite index, which is not migrated; 0 where it is missing or cannot be read."""
    path = sqlite_path(index.url.get_secret_value() if index.url else None, data)
    if path is None or not path.is_file():
        return 0
    database = open_sqlite(path, sync=True)
    try:
        with database.connection():
            if not database.peewee.table_exists("attribute_table"):  # of an older version
                return int(database.rows(Instance.select(peewee.fn.COUNT(Instance.id)))[0][0])
            return count_outdated(database)
    except (IndexFault, peewee.PeeweeException):
        return 0
    finally:
        database.close()


def _last(database: Database) -> str | None:
    query = AttributeTable.select(AttributeTable.digest).order_by(AttributeTable.id.desc()).limit(1)
    return next((digest for (digest,) in database.rows(query)), None)
