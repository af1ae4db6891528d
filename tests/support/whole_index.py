"""Whole indexes in either engine: filled, and read table by table."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from index import Index, IndexSettings
from index.database import subscription_tables, tables, target_tables
from index.database.connection import Database
from index.database.new_index import column_names, count_rows, last_ids, read_rows, table_names, write_rows
from index.database.opening import open_unmigrated
from index.database.tables import Table
from support.dicom import ROOT, instance
from support.filling import STORAGE, keep


def here(data: Path) -> str:
    """The URL of the index in its data directory."""
    return f"sqlite:///{data}/index.sqlite"


def opened(data: Path, url: str) -> Index:
    return Index(data, STORAGE, IndexSettings(url=SecretStr(url)))


@contextlib.contextmanager
def database(url: str) -> Iterator[Database]:
    opened = open_unmigrated(url, Path())
    try:
        yield opened
    finally:
        opened.close()


def content(url: str) -> dict[str, Any]:
    """Every row of every table, and the last ids."""
    with database(url) as found, found.reading():
        rows = {
            table: sorted(map(repr, read_rows(found, table, column_names(found, table))))
            for table in table_names(found)
            if table != "schema_version"
        }
        return {**rows, "last ids": last_ids(found)}


def fill(data: Path, url: str) -> None:
    """Studies, a conflict, a deletion; the last entry is gone from the feed."""
    with opened(data, url) as index:
        index.serve()
        for study in (1, 2, 3):
            for number in (1, 2):
                keep(index, instance(study, 1, number))
        keep(index, instance(1, 1, 1, StudyDescription="another"))
        keep(index, instance(2, 1, 7, SpecificCharacterSet="ISO_IR 192", StudyDescription="Schädel '\" €"))
    with opened(data, url) as index:
        index.publish()
        index.delete(f"{ROOT}.3")
        index.publish()
    with database(url) as found, found.writing():
        found.peewee.execute_sql("DELETE FROM change WHERE id = (SELECT max(id) FROM change)")


def models() -> dict[str, type[Table]]:
    """Every model by its table's name; those that others refer to come first."""
    modules = (tables, target_tables, subscription_tables)
    found = [one for module in modules for one in vars(module).values() if isinstance(one, type)]
    return {one._meta.table_name: one for one in found if issubclass(one, Table) and one is not Table}


def fill_every_table(url: str) -> None:
    """Add a row to each table that has none."""
    with database(url) as found, found.writing():
        for table, model in models().items():
            if count_rows(found, table):
                continue
            row: dict[str, Any] = {}
            for name, column in model._meta.columns.items():
                if not column.primary_key:
                    target = getattr(column, "rel_model", None)
                    kind = column.field_type
                    row[name] = 1 if kind == "INT" else 2**40 if kind == "BIGINT" else f'["{name}"]'
                    row[name] = b"\x1f\x8b\0" if kind == "BLOB" else row[name]
                    if target is not None:
                        lowest = f"SELECT min(id) FROM {target._meta.table_name}"  # noqa: S608
                        row[name] = found.peewee.execute_sql(lowest).fetchone()[0]
            write_rows(found, table, list(row), [tuple(row.values())])


def without_node(rows: dict[str, Any]) -> dict[str, Any]:
    """In its directory an index needs no node, elsewhere it has one."""
    last = {table: number for table, number in rows["last ids"].items() if table != "node"}
    return {**rows, "last ids": last, "node": []}
