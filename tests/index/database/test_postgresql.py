"""The same index in a real PostgreSQL."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from index import Index, IndexSettings, NotFound, NotKept, Outcome
from index.database.connection import Database
from index.database.opening import open_database
from index.database.tables import Change, Resource, Source, Study
from index.errors import Contention
from index.publication.feed import PublishedResource, record_changes
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep, keep_by_threads
from support.postgresql import server


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with server() as url:
        yield url


def test_the_same_instances_give_the_same_bytes(url: str, tmp_path: Path) -> None:
    datasets = [
        instance(study, series, number) for study in (1, 2) for series in (1, 2) for number in (1, 2, 3)
    ]
    indexes = {
        "sqlite": Index(tmp_path / "sqlite", STORAGE),
        "postgresql": Index(tmp_path / "postgresql", STORAGE, IndexSettings(url=SecretStr(url))),
    }
    for index in indexes.values():
        keep_by_threads(index, datasets, 4)
        assert Outcome.DUPLICATE is keep(index, datasets[0]).outcome
        assert Outcome.CONFLICT is keep(index, instance(1, 1, 1, StudyDescription="Neck")).outcome
        index.publish()
    assert files(tmp_path / "sqlite/fhir") == files(tmp_path / "postgresql/fhir")
    assert len(files(tmp_path / "sqlite/fhir"))
    listed = [sorted(index.studies(), key=lambda study: study["uid"]) for index in indexes.values()]
    assert listed[0] == listed[1]
    on_server = indexes["postgresql"]
    on_server.delete(f"{ROOT}.1")
    on_server.publish()
    with pytest.raises(NotFound):
        on_server.resource(f"{ROOT}.1")
    for index in indexes.values():
        index.close()


@pytest.fixture
def databases(url: str, tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    """The same database in two processes, as it were."""
    pair = open_database(url, tmp_path), open_database(url, tmp_path)
    yield pair
    for database in pair:
        database.close()


def test_a_reader_of_several_queries_has_one_snapshot(databases: tuple[Database, Database]) -> None:
    mine, theirs = databases
    query = Source.select(Source.id).where(Source.calling_aet == "SNAPSHOT")
    with mine.reading():
        assert [] == mine.rows(query)
        with theirs.writing():
            theirs.execute(Source.insert(calling_aet="SNAPSHOT", called_aet="", address=""))
        assert 1 == len(theirs.rows(query))
        with mine.reading():
            assert [] == mine.rows(query)
    assert 1 == len(mine.rows(query))


def test_numbers_of_the_feed_are_seen_in_their_order(
    databases: tuple[Database, Database], url: str, tmp_path: Path
) -> None:
    """A reader that remembers a number never misses one before it, which is committed later."""
    begun, go_on, seen = threading.Event(), threading.Event(), []

    def write(database: Database, name: str) -> None:
        with database.writing():
            study = database.execute(Study.insert(uid=name, first_received=0, last_received=0))
            record_changes(database, study, [PublishedResource("r4", "Patient", name, b"{}")])
            if name == "first":
                begun.set()
                assert go_on.wait(60)

    first = threading.Thread(target=write, args=(databases[0], "first"))
    second = threading.Thread(target=write, args=(databases[1], "second"))
    first.start()
    assert begun.wait(60)
    second.start()
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    other = open_database(url, tmp_path)
    with other.connection():
        assert eventually(lambda: other.peewee.execute_sql(waiting).fetchone()[0])
        query = Change.select(Resource.name).join(Resource).order_by(Change.id)
        query = query.where(Resource.name.in_(["first", "second"]))
        seen.append(other.rows(query))
        go_on.set()
        first.join()
        second.join()
        seen.append(other.rows(query))
    other.close()
    assert [[], [("first",), ("second",)]] == seen


@pytest.mark.parametrize("durable", [True, False])
def test_only_what_must_be_durable_waits_for_the_disk(
    databases: tuple[Database, Database], *, durable: bool
) -> None:
    """The journal has the others; the commit that frees a part of it is durable, and all before with it."""
    with databases[0].writing(durable=durable):
        setting = databases[0].peewee.execute_sql("SHOW synchronous_commit").fetchone()
    assert ("on" if durable else "off",) == setting
    with databases[0].connection():
        assert ("on",) == databases[0].peewee.execute_sql("SHOW synchronous_commit").fetchone()


def test_a_deadlock_is_tried_again(databases: tuple[Database, Database]) -> None:
    with databases[0].writing():
        for name in ("LOCK1", "LOCK2"):
            databases[0].execute(Source.insert(calling_aet=name, called_aet="", address=""))
    both, errors = threading.Barrier(2), []

    def cross(database: Database, names: tuple[str, str]) -> None:
        try:
            with database.writing():
                for name in names:
                    database.execute(Source.update(called_aet="X").where(Source.calling_aet == name))
                    if name == names[0]:
                        both.wait(60)
        except NotKept as error:
            errors.append(error)

    threads = [
        threading.Thread(target=cross, args=(database, names))
        for database, names in zip(databases, (("LOCK1", "LOCK2"), ("LOCK2", "LOCK1")), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [Contention] == [type(error) for error in errors]
