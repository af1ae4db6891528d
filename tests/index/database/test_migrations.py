"""Every released schema moves forward, and the models are what the migrations make."""

import sqlite3
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from index import DatabaseFault, Index
from index.database.migrations import statements
from index.database.opening import _SQLITE_TYPES, open_database
from index.database.tables import Table
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep

pytestmark = pytest.mark.sqlite

SCRIPTS = sorted(
    (
        one
        for one in (resources.files("index.database") / "migrations").iterdir()
        if one.name.endswith(".sql") and not one.name.endswith(".postgresql.sql")
    ),
    key=lambda one: one.name,
)


def models(table: type[Table] = Table) -> Iterator[type[Table]]:
    import index.facade  # noqa: F401  it imports every module that has models

    for one in table.__subclasses__():
        yield one
        yield from models(one)


def columns(connection: sqlite3.Connection, table: str) -> list[tuple[str, bool]]:
    return [(row[1], bool(row[3])) for row in connection.execute(f"PRAGMA table_info({table})")]


def at_version(path: Path, count: int) -> None:
    """Make a database as a program made it that knew so many migrations."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE schema_version (version INTEGER NOT NULL)")
    for script in SCRIPTS[:count]:
        for statement in statements(script.read_text().format(**_SQLITE_TYPES)):
            connection.execute(statement)
        connection.execute("INSERT INTO schema_version VALUES (?)", (int(script.name.split("_")[0]),))
    connection.commit()
    connection.close()


@pytest.mark.parametrize("count", range(1, len(SCRIPTS) + 1))
def test_every_schema_moves_forward_with_its_rows(tmp_path: Path, count: int) -> None:
    with Index(tmp_path / "new", STORAGE) as index:
        for number in (1, 2):
            keep(index, instance(1, 1, number))
        index.publish()
    expected = files(tmp_path / "new" / "fhir")
    old = tmp_path / "old"
    (old / "objects").mkdir(parents=True)
    at_version(old / "index.sqlite", count)
    connection = sqlite3.connect(old / "index.sqlite")
    connection.execute("ATTACH ? AS new", (str(tmp_path / "new/index.sqlite"),))
    for table in ("patient", "study", "study_variant", "series", "series_variant", "source", "instance"):
        names = ", ".join(name for name, _ in columns(connection, table))
        connection.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM new.{table}")  # noqa: S608
    connection.execute("UPDATE main.study SET revision = revision + 1")
    connection.commit()
    connection.close()
    with Index(old, STORAGE) as index:
        index.publish()
        assert [f"{ROOT}.1"] == [study["uid"] for study in index.studies()]
    assert expected == files(old / "fhir")


def test_models_are_what_the_migrations_make(tmp_path: Path) -> None:
    open_database(None, tmp_path).close()
    connection = sqlite3.connect(tmp_path / "index.sqlite")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    known = set()
    for model in models():
        table = model._meta.table_name
        known.add(table)
        expected = {(field.column_name, not field.null) for field in model._meta.sorted_fields}
        found = {(name, required or name == "id") for name, required in columns(connection, table)}
        assert expected == found, table
    assert known == {name for name in tables - {"schema_version"} if not name.startswith("sqlite_")}


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    at_version(tmp_path / "index.sqlite", len(SCRIPTS))
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        connection.execute("INSERT INTO schema_version VALUES (9999)")
    with pytest.raises(DatabaseFault, match=r"schema version 9999 is newer"):
        open_database(None, tmp_path)
