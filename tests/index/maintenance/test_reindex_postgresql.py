"""`reindex` of an index in PostgreSQL: the promises of SQLite's, in a real server."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from index import DatabaseFault, FhirSettings, Index, IndexSettings, Locked, Origin, Rebuilt, reindex
from index.database import new_index
from index.database.new_index import column_names, last_ids, read_rows, table_names
from index.database.opening import open_database, open_unmigrated
from index.database.tables import Conflict, Instance, Source, Study
from index.errors import ForeignIndex, NewerSchema
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep
from support.postgresql import emptied

pytestmark = pytest.mark.sqlite

SCANNER = Origin("CT7", "ARCHIVE", "10.1.2.3", "a")


@pytest.fixture
def url(postgresql_server: str) -> str:
    return emptied(postgresql_server)


def opened(data: Path, url: str, **options: object) -> Index:
    return Index(data, STORAGE, IndexSettings(url=SecretStr(url)), **options)  # type: ignore[arg-type]


def fill(data: Path, url: str) -> dict[str, bytes]:
    """Studies of two series, a conflict, a deletion; return the resources."""
    with opened(data, url) as index:
        index.serve()
        for study in (2, 1, 3):
            for number in (2, 1, 3):
                for series in (1, 2):
                    keep(index, instance(study, series, number), SCANNER)
        keep(index, instance(1, 1, 1, StudyDescription="another"))
    with opened(data, url) as index:
        index.publish()
        index.delete(f"{ROOT}.3")
        index.publish()
    return files(data / "fhir")


def again(data: Path, url: str, **options: object) -> Rebuilt:
    return reindex(data, STORAGE, IndexSettings(url=SecretStr(url)), FhirSettings(), **options)  # type: ignore[arg-type]


def known(data: Path, url: str) -> tuple[list[Any], list[Any]]:
    """What the index knows of instances, in their order of arrival, and the feed."""
    with opened(data, url) as index:
        query = Instance.select(
            Instance.uid, Instance.path, Instance.sha1, Instance.received, Source.calling_aet
        )
        return index._database.rows(query.join(Source).order_by(Instance.id)), list(index.changes())


def run(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run statements in the database; return the rows of the last."""
    database = open_database(url, Path())
    try:
        with database.connection():
            for statement in statements:
                cursor = database.peewee.execute_sql(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        database.close()


def schemas(url: str) -> set[str]:
    return {name for (name,) in run(url, "SELECT nspname FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%%'")}


def content(url: str) -> dict[str, Any]:
    """Every row of every table by its name, and the last ids."""
    database = open_database(url, Path())
    try:
        with database.reading():
            rows = {
                table: sorted(map(repr, read_rows(database, table, column_names(database, table))))
                for table in table_names(database)
            }
        return {**rows, "last ids": last_ids(database)}
    finally:
        database.close()


def test_resources_are_the_same_and_nothing_is_forgotten(url: str, tmp_path: Path) -> None:
    before = fill(tmp_path, url)
    rows, last = known(tmp_path, url), content(url)["last ids"]
    done: list[int] = []
    rebuilt = again(tmp_path, url, progress=done.append)
    assert (12, [], [], "", [12]) == (
        rebuilt.instances,
        rebuilt.missing,
        rebuilt.not_indexed,
        rebuilt.lost,
        done,
    )
    assert before == files(tmp_path / "fhir")
    assert rows == known(tmp_path, url)
    assert {"public", "information_schema"} == schemas(url)
    after = content(url)["last ids"]
    assert {table: number for table, number in last.items() if after.get(table, 0) < number} == {}
    with opened(tmp_path, url) as index:
        assert [] == list(index.verify(grace=0))
        assert [f"{ROOT}.2", f"{ROOT}.1"] == [study["uid"] for study in index.studies()]
        assert 1 == len(index._database.rows(Conflict.select(Conflict.id)))
        index.serve()
        keep(index, instance(4))
    told = {entry.seq for entry in rows[1]}
    numbers = [entry.seq for entry in known(tmp_path, url)[1]]
    assert told < set(numbers)
    assert sorted(set(numbers)) == numbers


def structure(url: str) -> list[tuple[object, ...]]:
    """Every column, index, constraint and sequence of the schema."""
    return [
        row
        for statement in (
            (
                "SELECT table_name, column_name, data_type, is_nullable, column_default, is_identity"
                " FROM information_schema.columns WHERE table_schema = 'public'"
            ),
            "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'",
            (
                "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
                " WHERE connamespace = 'public'::regnamespace"
            ),
            "SELECT sequencename, data_type::text FROM pg_sequences WHERE schemaname = 'public'",
        )
        for row in sorted(run(url, statement), key=repr)
    ]


def test_the_schema_is_that_of_the_migrations(url: str, tmp_path: Path) -> None:
    """Foreign keys are taken off while rows are copied."""
    fill(tmp_path, url)
    before = structure(url)
    assert any("FOREIGN KEY" in str(row) for row in before)
    again(tmp_path, url)
    assert before == structure(url)


def test_tables_of_another_program_with_our_names_stay(url: str, tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    other = open_unmigrated(url, Path())
    with other.writing():
        other.peewee.execute_sql("CREATE TABLE patient (name TEXT)")
    with pytest.raises(DatabaseFault, match="holds no index, but other tables: patient"):
        again(tmp_path, url)
    assert ["patient"] == table_names(other)
    other.close()


def test_an_interrupted_run_goes_on(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, rows = fill(tmp_path, url), known(tmp_path, url)
    monkeypatch.setattr("index.maintenance.rebuild.BATCH", 5)
    seen: list[int] = []

    def stop(more: int) -> None:
        seen.append(more)
        if sum(seen) == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        again(tmp_path, url, progress=stop)
    assert rows == known(tmp_path, url), "the old index is in its place"
    done: list[int] = []
    rebuilt = again(tmp_path, url, progress=done.append)
    assert (10, 12, [2]) == (rebuilt.resumed_at, rebuilt.instances, done)
    assert (before, rows) == (files(tmp_path / "fhir"), known(tmp_path, url))
    assert {"public", "information_schema"} == schemas(url)


@pytest.mark.parametrize("where", ["copying", "filling"])
def test_an_interrupted_run_begins_again(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Where something came in between, and where nothing was noted before the interruption."""
    fill(tmp_path, url)
    monkeypatch.setattr("index.maintenance.rebuild.BATCH", 5)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        if where == "copying":
            broken.setattr("index.maintenance.rebuild.note_current", stop)
        with pytest.raises(KeyboardInterrupt):
            again(tmp_path, url, progress=stop)
    with opened(tmp_path, url) as index:
        index.serve()
        keep(index, instance(4))
    assert (0, 13) == ((rebuilt := again(tmp_path, url)).resumed_at, rebuilt.instances)


def test_without_the_old_index(url: str, tmp_path: Path) -> None:
    """As when the database is lost: the resources come back from the objects."""
    before = fill(tmp_path, url)
    rows = known(tmp_path, url)[0]
    emptied(url)
    assert "holds no index" in again(tmp_path, url).lost
    assert before == files(tmp_path / "fhir")
    found = known(tmp_path, url)[0]
    assert [row[:3] for row in rows] == [row[:3] for row in found]


def test_a_fault_in_the_exchange_changes_nothing(url: str, tmp_path: Path) -> None:
    """A view of somebody else's on our tables is named, and stays, as do rights and other tables."""
    fill(tmp_path, url)
    run(url, "CREATE VIEW report AS SELECT uid FROM study", "CREATE TABLE other (name TEXT)")
    run(url, "DROP ROLE IF EXISTS reader", "CREATE ROLE reader", "GRANT SELECT ON study TO reader")
    before = content(url)
    with pytest.raises(DatabaseFault, match="report"):
        again(tmp_path, url)
    assert before == content(url)
    run(url, "DROP VIEW report")
    assert 12 == again(tmp_path, url).instances
    rights = "SELECT privilege_type FROM information_schema.role_table_grants WHERE grantee = 'reader'"
    assert [("SELECT",)] == run(url, rights)
    assert [] == run(url, "SELECT name FROM other")
    run(url, "DROP OWNED BY reader", "DROP ROLE reader")


def test_a_transaction_of_another_program_does_not_hold_it_for_ever(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, url)
    monkeypatch.setattr(new_index, "LOCK_TIMEOUT", "100ms")
    database = open_database(url, Path())
    with database.reading():
        database.peewee.execute_sql("SELECT uid FROM study")
        with pytest.raises(DatabaseFault, match="lock timeout"):
            again(tmp_path, url)
    database.close()
    rebuilt = again(tmp_path, url)
    assert 12 == rebuilt.instances


def test_not_while_the_index_is_in_use(url: str, tmp_path: Path) -> None:
    fill(tmp_path / "one", url)
    with opened(tmp_path / "one", url), pytest.raises(Locked, match="in use by another command"):
        again(tmp_path / "one", url)
    with opened(tmp_path / "one", url) as index:
        index.serve()
        with pytest.raises(Locked, match="running imagingstudyd"):
            again(tmp_path / "one", url)
    (tmp_path / "two/objects").mkdir(parents=True)
    before = content(url)
    with pytest.raises(ForeignIndex, match="is the index of"):
        again(tmp_path / "two", url)
    assert before == content(url)


def test_a_newer_database_is_not_touched(url: str, tmp_path: Path) -> None:
    fill(tmp_path, url)
    database = open_database(url, Path())
    with database.writing():
        database.peewee.execute_sql("INSERT INTO schema_version VALUES (9999)")
    with pytest.raises(NewerSchema):
        again(tmp_path, url)
    with database.writing():
        database.peewee.execute_sql("DELETE FROM schema_version WHERE version = 9999")
    database.close()
    assert 12 == again(tmp_path, url).instances


def test_tombstones_stay(url: str, tmp_path: Path) -> None:
    settings = FhirSettings(withdrawn="entered-in-error")
    fill(tmp_path, url)
    with opened(tmp_path, url, fhir=settings) as index:
        index.delete(f"{ROOT}.1")
        index.publish()
    before = files(tmp_path / "fhir")
    reindex(tmp_path, STORAGE, IndexSettings(url=SecretStr(url)), settings)
    assert before == files(tmp_path / "fhir")
    with opened(tmp_path, url, fhir=settings) as index:
        assert [] == list(index.verify(grace=0))
        assert 2 == len(index._database.rows(Study.select(Study.id).where(Study.withdrawn == 1)))


def test_another_schema(url: str, tmp_path: Path) -> None:
    """The schema of the URL's search_path, with a name that needs quotes; `public` is left alone."""
    run(url, 'CREATE SCHEMA IF NOT EXISTS "Second ""one"" \\"')
    path = "%22Second%5C%20%22%22one%22%22%5C%20%5C%5C%22"
    mine = f"{url}&options=-c%20search_path%3D{path}"
    before = content(url)
    filled = fill(tmp_path, mine)
    assert 12 == again(tmp_path, mine).instances
    assert filled == files(tmp_path / "fhir")
    assert before == content(url)
    run(url, 'DROP SCHEMA "Second ""one"" \\" CASCADE')


def test_a_schema_that_is_not_there_is_named(url: str, tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    with pytest.raises(DatabaseFault, match="search_path is not there"):
        again(tmp_path, f"{url}&options=-c%20search_path%3Dnowhere")
