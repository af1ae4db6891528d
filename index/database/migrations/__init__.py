"""The migrations of the schema: SQL scripts, run in the order of their numbers."""

import re
import sqlite3
from collections.abc import Iterator
from importlib import resources

_COMMENT = re.compile(r"--.*")


def scripts(is_sqlite: bool) -> dict[int, str]:  # noqa: FBT001
    """Return the migrations by number: 0001_first.sql is 1.

    Those in .sqlite.sql and .postgresql.sql are for one engine only.
    """
    other = ".postgresql.sql" if is_sqlite else ".sqlite.sql"
    files = [file for file in resources.files(__name__).iterdir() if file.name.endswith(".sql")]
    return {
        int(file.name.split("_")[0]): file.read_text(encoding="utf-8")
        for file in files
        if not file.name.endswith(other)
    }


def statements(script: str) -> Iterator[str]:
    """Yield the statements of a script. A trigger contains semicolons."""
    statement = ""
    for line in _COMMENT.sub("", script).splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
