"""Attributes as values of SQL: what a column of JSON has under a keyword.

Keywords are of PS3.6, so that they can be part of the SQL. Indexes have the same text: migrations 0012, 0054
and 0071. Texts are in the order of their code points, as Python compares them.
"""

from typing import Any

from peewee import SQL, Case, Expression, Field, fn

from index.database.connection import Database
from index.database.tables import canonical

# After every character that follows a prefix.
_LAST = "\U0010ffff"
# Printable ASCII without "=", which separates component groups. Of such names lower() folds the case.
_NOT_PLAIN_SQLITE, _NOT_PLAIN_POSTGRESQL = "'*[^ -<>-~]*'", "'[^ -<>-~]'"


def extracted(database: Database, column: Field, keyword: str) -> Any:
    """Return the value of an attribute; a list is its JSON text."""
    if database.is_sqlite:
        return fn.json_extract(column, SQL(f"'$.{keyword}'"))
    value = Expression(column.cast("json"), "->>", SQL(f"'{keyword}'"))
    return Expression(value, "COLLATE", SQL('"C"'))


def folded_name(database: Database, column: Field, keyword: str) -> Any:
    """Return a person name in lower case; an empty text for one that only Python can fold."""
    name = extracted(database, column, keyword)
    is_other = (
        Expression(name, "GLOB", SQL(_NOT_PLAIN_SQLITE))
        if database.is_sqlite
        else Expression(name, "~", SQL(_NOT_PLAIN_POSTGRESQL))
    )
    return Case(None, [(is_other, SQL("''"))], fn.lower(name))


def begins_with(value: Any, prefix: str) -> Any:
    """Return the condition that a value begins with a text, for which an index is used."""
    return (value >= prefix) & (value < prefix + _LAST)


def is_one_of(database: Database, column: Field, values: list[str]) -> Any:
    """Return the condition that a column has one of many values; they are bound as one."""
    rows = (
        "SELECT value FROM json_each(?)"
        if database.is_sqlite
        else "SELECT json_array_elements_text(%s::json)"
    )
    return column.in_(SQL(f"({rows})", [canonical(values)]))
