"""A whole index copied from SQLite to PostgreSQL and back: everything is there, and the daemon goes on."""

import contextlib
import shutil
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index import (
    DatabaseFault,
    Index,
    Locked,
    Migrated,
    migrate_index,
)
from index.database import migrations, new_index
from index.database.connection import Database
from index.database.new_index import last_ids, table_names, write_rows
from index.database.opening import open_database
from index.errors import ForeignIndex
from index.maintenance import migrate_index as module
from support.dicom import instance
from support.filling import STORAGE, crashed, files, keep, receive
from support.postgresql import emptied
from support.whole_index import content, database, fill, fill_every_table, here, models, opened, without_node

pytestmark = pytest.mark.sqlite


@pytest.fixture
def url(postgresql_server: str) -> str:
    return emptied(postgresql_server)


def silent(_doing: str, _total: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
    return contextlib.nullcontext(lambda _: None)


def migrate(data: Path, source: str, target: str) -> Migrated:
    return migrate_index(data, source, target, silent)


def test_every_table_and_last_id_there_and_back(url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(data, here(data))
    fill_every_table(here(data))
    before = content(here(data))
    assert {} == {table: rows for table, rows in before.items() if not rows}
    migrated = migrate(data, here(data), url)
    assert ([], []) == (migrated.differences, migrated.not_copied)
    assert {table: len(rows) for table, rows in before.items() if table != "last ids"} == migrated.tables
    assert before == content(here(data)), "the source is as it was"
    assert without_node(before) == without_node(content(url))
    back = f"sqlite:///{tmp_path}/back.sqlite"
    assert [] == migrate(data, url, back).differences
    assert content(url) == content(back)
    assert ["back.sqlite"] == sorted(path.name for path in tmp_path.glob("back*"))


def test_every_model_is_a_table_of_both_engines(url: str, tmp_path: Path) -> None:
    """And no table has another name: what the models do not know would be copied untested."""
    for one in (here(tmp_path), url):
        with database(one) as found:
            found.migrate()
            assert {*models(), "schema_version"} == set(table_names(found))
            assert {*last_ids(found)} <= {*models()}


def test_a_table_of_a_later_migration_is_not_forgotten(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = "CREATE TABLE later (name TEXT PRIMARY KEY, number {bigint}); CREATE TABLE counted (id {id});"
    monkeypatch.setattr(
        "index.database.connection.scripts",
        lambda is_sqlite: {**migrations.scripts(is_sqlite), 9001: later.replace("; ", ";\n")},
    )
    data = tmp_path / "data"
    fill(data, here(data))
    with database(here(data)) as found, found.writing():
        found.peewee.execute_sql("INSERT INTO later VALUES ('ä', 1), ('a', NULL), ('', -7)")
        found.peewee.execute_sql("INSERT INTO counted (id) VALUES (41)")
        found.peewee.execute_sql("DELETE FROM counted")
    assert {"later": 3, "counted": 0}.items() <= migrate(data, here(data), url).tables.items()
    back = f"sqlite:///{tmp_path}/back.sqlite"
    assert {"later": 3, "counted": 0}.items() <= migrate(data, url, back).tables.items()
    for one in (url, back):
        found = content(one)
        assert sorted(["('a', None)", "('ä', 1)", "('', -7)"]) == found["later"]
        assert 41 == found["last ids"]["counted"]


def test_the_daemon_goes_on_without_loss(url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(data, here(data))
    with opened(data, here(data)) as index:
        told, studies = list(index.changes()), index.studies()
    last = content(here(data))["last ids"]["change"]
    assert told[-1].seq < last, "the last number is no longer in the feed"
    resources = files(data / "fhir")
    migrate(data, here(data), url)
    shutil.move(data / "index.sqlite", tmp_path / "old.sqlite")
    with opened(data, url) as index:
        index.serve()
        assert (told, studies) == (list(index.changes()), index.studies())
        assert [] == list(index.verify(grace=0))
        keep(index, instance(4))
    with opened(data, url) as index:
        index.publish()
        more = list(index.changes())
        assert told == more[: len(told)]
        assert last < more[len(told)].seq
        assert resources.items() <= files(data / "fhir").items()
        studies = index.studies()
    assert [] == migrate(data, url, here(data)).differences
    with Index(data, STORAGE) as index:
        index.serve()
        assert (more, studies) == (list(index.changes()), index.studies())
        assert [] == list(index.verify(grace=0))
        keep(index, instance(5))


def test_the_copy_belongs_to_the_data_directory(url: str, tmp_path: Path) -> None:
    """Also where the index in its directory came from another one, as by a backup."""
    fill(tmp_path / "one", url)
    migrate(tmp_path / "one", url, here(tmp_path / "one"))
    (tmp_path / "one/identity").unlink()
    (tmp_path / "one").rename(tmp_path / "two")
    target = emptied(url)
    migrate(tmp_path / "two", here(tmp_path / "two"), target)
    with opened(tmp_path / "two", target) as index:
        assert 2 == len(index.studies())
    with pytest.raises(ForeignIndex):
        opened(tmp_path / "three", target)


def test_not_while_an_index_is_in_use(url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(data, here(data))
    with opened(data, here(data)) as index:
        with pytest.raises(Locked, match="in use by another command"):
            migrate(data, here(data), url)
        index.serve()
        with pytest.raises(Locked, match="running imagingstudyd"):
            migrate(data, here(data), url)
    with opened(tmp_path / "other", url) as other:
        other.serve()
        with pytest.raises(Locked, match="another daemon serves"):
            migrate(data, here(data), url)
    writer = sqlite3.connect(data / "index.sqlite", isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    with pytest.raises(Locked, match="locked"):
        migrate(data, here(data), emptied(url))
    writer.close()
    assert [] == migrate(data, here(data), url).differences


def test_not_while_another_program_writes_to_postgresql(url: str, tmp_path: Path) -> None:
    data, back = tmp_path / "data", f"sqlite:///{tmp_path}/back.sqlite"
    fill(data, url)
    with database(url) as other, other.writing():
        other.peewee.execute_sql("UPDATE study SET published = 0")
        with pytest.raises(Locked, match="lock"):
            migrate(data, url, back)
    assert not (tmp_path / "back.sqlite").exists()
    assert [] == migrate(data, url, back).differences


def test_not_while_the_journal_is_not_replayed(url: str, tmp_path: Path) -> None:
    with opened(tmp_path / "one", here(tmp_path / "one")) as index:
        index.serve()
        keep(index, instance(1))
        index._reception._indexer.stop()
        receive(index, instance(2))
        data = crashed(index, tmp_path / "data")
    with pytest.raises(DatabaseFault, match=r"journal: \d records are not replayed"):
        migrate(data, here(data), url)
    assert [] == content(url).pop("study", [])
    served = opened(data, here(data))
    served.serve()
    served.close()
    assert 2 == migrate(data, here(data), url).tables["instance"]


def test_the_target_is_empty(url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(data, here(data))
    with database(url) as target, target.writing():
        target.peewee.execute_sql("CREATE TABLE patient (name TEXT)")
    with pytest.raises(DatabaseFault, match="not empty, but holds the tables patient"):
        migrate(data, here(data), url)
    fill(tmp_path / "other", emptied(url))
    with pytest.raises(ForeignIndex):
        migrate(data, here(data), url)
    (tmp_path / "text.sqlite").write_text("nothing" * 1000)
    (tmp_path / "lost.sqlite-wal").write_text("")
    for target_url, refusal in (
        (full(tmp_path), "not empty: removed_object has 1 rows"),
        (here(data), "is in a data directory"),
        (f"sqlite:///{tmp_path}/text.sqlite", "not a database"),
        (f"sqlite:///{tmp_path}/lost.sqlite", "move it away"),
        (f"sqlite:///{tmp_path}/nowhere/a.sqlite", "cannot be opened"),
    ):
        with pytest.raises(DatabaseFault, match=refusal):
            migrate(tmp_path / "other", url, target_url)
    assert ["lost.sqlite-wal"] == [path.name for path in tmp_path.glob("lost*")]


def full(folder: Path) -> str:
    """An index elsewhere that knows no directory and has a row."""
    url = f"sqlite:///{folder}/full.sqlite"
    with database(url) as found:
        found.migrate()
        with found.writing():
            found.peewee.execute_sql("INSERT INTO removed_object (path) VALUES ('objects/000000/000.dcm')")
    return url


def test_a_target_whose_tables_are_made_is_empty(url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(data, here(data))
    for target in (url, f"sqlite:///{tmp_path}/made.sqlite"):
        open_database(target, tmp_path).close()
        assert [] == migrate(data, here(data), target).differences


def test_the_source_is_an_index_of_the_directory(url: str, tmp_path: Path) -> None:
    fill(tmp_path / "one", url)
    (tmp_path / "two/objects").mkdir(parents=True)
    back = f"sqlite:///{tmp_path}/back.sqlite"
    with pytest.raises(ForeignIndex, match="is the index of"):
        migrate(tmp_path / "two", url, back)
    with pytest.raises(DatabaseFault, match="no such file"):
        migrate(tmp_path / "two", here(tmp_path / "two"), url)
    with pytest.raises(DatabaseFault, match="no such data directory"):
        migrate(tmp_path / "three", url, back)
    with pytest.raises(DatabaseFault, match="holds no index"):
        migrate(tmp_path / "one", emptied(url), back)
    assert [] == list(tmp_path.glob("*.sqlite*"))


@pytest.mark.parametrize("to_postgresql", [True, False])
@pytest.mark.parametrize("phase", ["copying", "comparing", "exchange"])
def test_an_interrupted_run_leaves_nothing_and_is_begun_anew(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, phase: str, *, to_postgresql: bool
) -> None:
    data, elsewhere = tmp_path / "data", f"sqlite:///{tmp_path}/back.sqlite"
    source, target = (here(data), url) if to_postgresql else (url, elsewhere)
    fill(data, source)
    before = content(source)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    def progress(doing: str, _: int) -> contextlib.AbstractContextManager[Callable[[int], None]]:
        return contextlib.nullcontext(stop if doing == phase else lambda _: None)

    with monkeypatch.context() as broken:
        if phase == "exchange":
            for place in (new_index.NewFile, new_index.NewSchema):
                broken.setattr(place, "exchange", stop)
        with pytest.raises(KeyboardInterrupt):
            migrate_index(data, source, target, progress)
    if to_postgresql:
        with database(url) as found:
            assert [] == table_names(found)
    else:
        assert not (tmp_path / "back.sqlite").exists()
    assert [] == migrate(data, source, target).differences
    assert without_node(before) == without_node(content(target))


def test_what_differs_is_named_and_not_kept(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    fill(data, here(data))

    def worse(new: Database, table: str, columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
        made = list(rows)
        if table == "conflict":
            made.pop()
        if table == "source":
            made = [tuple("x" if one == "SCANNER" else one for one in row) for row in made]
        write_rows(new, table, columns, made)

    with monkeypatch.context() as broken:
        broken.setattr(module, "write_rows", worse)
        broken.setattr(module, "set_last_ids", lambda *_: None)
        differences = migrate(data, here(data), url).differences
    assert "conflict: 1 rows, and 0 in the copy" in differences
    assert "source: 1 rows, but the copy has other values" in differences
    assert any(one.startswith("change: last id") for one in differences)
    with database(url) as found:
        assert [] == table_names(found)
    assert [] == migrate(data, here(data), url).differences


def test_a_value_that_the_target_cannot_hold_is_named(url: str, tmp_path: Path) -> None:
    """PostgreSQL's text has no NUL, SQLite's has."""
    data = tmp_path / "data"
    fill(data, here(data))
    with database(here(data)) as found, found.writing():
        found.peewee.execute_sql("UPDATE source SET address = 'a' || char(0)")
    with pytest.raises(DatabaseFault, match=r"table source, near row 1: .*NUL"):
        migrate(data, here(data), url)
    with database(url) as found:
        assert [] == table_names(found)


def test_tables_of_others_are_named_and_not_copied(url: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    fill(data, url)
    with database(url) as found, found.writing():
        found.peewee.execute_sql("CREATE TABLE report (name TEXT)")
    migrated = migrate(data, url, f"sqlite:///{tmp_path}/back.sqlite")
    assert ([], ["report"]) == (migrated.differences, migrated.not_copied)


def test_memory_is_bounded(url: str, tmp_path: Path) -> None:
    """100,000 rows are some 60 MB as objects; the journal, which is read, is up to 32."""
    data = tmp_path / "data"
    fill(data, here(data))
    with database(here(data)) as found, found.writing():
        (resource,) = found.peewee.execute_sql("SELECT min(id) FROM resource").fetchone()
        rows = ((resource, 1, f"{number:0400d}", 1) for number in range(100_000))
        write_rows(found, "change", ["resource_id", "version", "kind", "changed"], rows)
    for source, target in ((here(data), url), (url, f"sqlite:///{tmp_path}/back.sqlite")):
        tracemalloc.start()
        migrate(data, source, target)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40_000_000
