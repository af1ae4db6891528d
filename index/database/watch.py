"""Whether anything has been committed to an SQLite index, by whatever process: one look costs two locks."""

import sqlite3
from contextlib import suppress


class ChangeWatch:
    """A connection that only looks. For one thread at a time."""

    def __init__(self, path: str | None) -> None:
        """Watch a file; None: a database server, of which nothing is known."""
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._version: int | None = None

    def is_changed(self) -> bool:
        """Return whether there may be anything new since the last call (PRAGMA data_version)."""
        if self._path is None:
            return True
        before, self._version = self._version, None
        with suppress(sqlite3.Error):
            if self._connection is None:
                self._connection = sqlite3.connect(self._path, check_same_thread=False)
            (self._version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return self._version is None or self._version != before

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
            self._connection = self._version = None
