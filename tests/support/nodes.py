"""Several data directories that share one PostgreSQL index, in one process."""

from pathlib import Path
from typing import Any

from pydantic import SecretStr

from index import Index, IndexSettings, StorageSettings
from support.filling import STORAGE


def joined(data: Path, url: str, storage: StorageSettings = STORAGE, **options: Any) -> Index:
    """An index that may be served from an empty data directory; it is not yet."""
    return Index(data, storage, IndexSettings(url=SecretStr(url)), joins=True, **options)


def without_publisher(index: Index) -> Index:
    """Serve it, but let the test do what its publisher would do."""
    index._publisher.start = lambda: None  # type: ignore[method-assign]
    index.serve()
    return index


def fall_silent(index: Index, of: Index) -> None:
    """What `index` sees where the daemon of `of` was killed a minute ago."""
    of._ownership._stop()
    with index._database.writing():
        sql = "UPDATE node SET seen = seen - 60000 WHERE id = %s"
        index._database.peewee.execute_sql(sql, (of._ownership.node,))
