"""Conditions with wildcards, in the words of each engine."""

from typing import Any

from peewee import Expression, Field

from index.database.connection import Database


def fits_pattern(database: Database, column: Field, pattern: str) -> Any:
    """Return a condition: * is any text or none, ? is one character, case counts."""
    if database.is_sqlite:
        return Expression(column, "GLOB", pattern.replace("[", "[[]"))
    for special in ("\\", "%", "_"):
        pattern = pattern.replace(special, f"\\{special}")
    return Expression(column, "LIKE", pattern.replace("*", "%").replace("?", "_"))
