"""The database server is away: restarted, silent, cut off, replaced. Nothing acknowledged is lost."""

import contextlib
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peewee
import psycopg
import pytest
import structlog
from pydantic import SecretStr
from pydicom.dataset import Dataset

from index import DuplicateStep, Index, IndexSettings, NotKept, WorklistSettings
from index.database import node, postgresql
from index.database.node import ServingLock
from index.database.opening import open_database
from index.database.tables import Change, ImagingOrder, PerformedStep
from index.orders.hl7.message import messages
from index.publication import publisher
from index.reception import indexer, settling
from index.reception import log as reception_log
from support.daemon import eventually
from support.database_proxy import DatabaseProxy
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep, receive
from support.hl7 import orm
from support.modality import begun
from support.postgresql import Server, create_database, drop_database, replica_of, server

_numbers = itertools.count()


@pytest.fixture
def proxy(migrated: str) -> Iterator[DatabaseProxy]:
    with DatabaseProxy.before(migrated) as proxy:
        yield proxy


@pytest.fixture
def url(migrated: str, proxy: DatabaseProxy) -> Iterator[str]:
    name = f"away{next(_numbers)}"
    create_database(migrated, name, "migrated")
    yield proxy.url(name)
    proxy.close()
    drop_database(migrated, name)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is so at once; the log's tracebacks take longer than the rest."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    for module, name in (
        (node, "CHECK_SECONDS"),
        (indexer, "RETRY_SECONDS"),
        (settling, "RETRY_SECONDS"),
        (settling, "SETTLE_SECONDS"),
        (publisher, "RETRY_INTERVAL"),
        (publisher, "LOOK_INTERVAL"),
        (publisher, "IDLE_LOOK_INTERVAL"),
        (postgresql, "AGAIN_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.05)


@contextmanager
def serving(data: Path, url: str) -> Iterator[Index]:
    settings = IndexSettings(url=SecretStr(url))
    with Index(data, STORAGE, settings, worklist=WorklistSettings(), joins=True) as index:
        index.serve()
        yield index


def count(index: Index, table: Any) -> int:
    return len(index._database.rows(table.select(table.id)))


def is_whole(index: Index, instances: int) -> bool:
    """Whether all is indexed and published, and the threads have no fault."""
    try:
        listed = [study["instances"] for study in index.studies()]
    except NotKept:
        return False
    state = index.state()
    well = not (state.database or state.index_failing or state.failing or state.unpublished)
    shown = len(files(index.data / "fhir/r4/ImagingStudy"))
    faults = [worker.name for worker in index.workers.states() if worker.fault]
    return (sum(listed), len(listed), well, []) == (instances, shown, True, faults)


def tell(index: Index, frame: bytes) -> list[str]:
    return [index.orders._handler.handle(one)[0] for one in messages(frame)]


def worklist(index: Index) -> int:
    everything = Dataset()
    everything.PatientName = ""
    return len(list(index.worklist.find(everything, "CT1")))


def failing(index: Index) -> set[str]:
    return {worker.name for worker in index.workers.states() if worker.fault}


def test_all_goes_on_without_it_as_far_as_the_journal(
    url: str, proxy: DatabaseProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception_log, "FULL_SECONDS", 0.1)
    with serving(tmp_path, url) as index:
        keep(index, instance(number=1))
        assert eventually(lambda: is_whole(index, 1))
        proxy.close()
        receive(index, instance(number=2))
        assert eventually(lambda: bool(index.state().database))
        state = index.state()
        assert ("database: ", True, None) == (state.database[:10], state.takes, state.conflicts)
        assert ["AE"] == tell(index, orm())
        with pytest.raises(NotKept):
            worklist(index)
        with pytest.raises(NotKept):
            index.procedures.create("1.2.3", "CT1", begun(study_uid="1.2"))
        assert eventually(lambda: {"node", "indexer"} <= failing(index))
        monkeypatch.setattr(reception_log, "PART_RECORDS", 2)
        kept = 2
        with contextlib.suppress(NotKept):
            while receive(index, instance(number=kept + 1)):
                kept += 1
        assert not index.state().takes
        with pytest.raises(NotKept):
            receive(index, instance(number=9))
        proxy.open()
        assert eventually(lambda: is_whole(index, kept))
        assert index.state().takes
        assert {} == {
            name: count for name, count in index.state().nodes.items() if name != "served" and count
        }
        assert ["AA"] == tell(index, orm())
        assert (1, 1) == (count(index, ImagingOrder), worklist(index))
        keep(index, instance(number=kept + 1))
        assert eventually(lambda: is_whole(index, kept + 1))


def test_a_server_that_hangs(
    url: str, proxy: DatabaseProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes connections and bytes, and answers nothing: it is stopped, or the network is dead."""
    monkeypatch.setattr(postgresql, "SILENT_SECONDS", 0.3)
    with serving(tmp_path, url) as index:
        keep(index, instance(number=1))
        proxy.hang()
        receive(index, instance(number=2))
        assert ["AE"] == tell(index, orm())
        assert eventually(lambda: {"node", "indexer"} <= failing(index))
        assert index.state().database
        proxy.go_on()
        assert eventually(lambda: is_whole(index, 2))
        assert ["AA"] == tell(index, orm())


def test_a_statement_that_takes_long_is_waited_for(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "SILENT_SECONDS", 0.2)
    database = open_database(url, tmp_path)
    with database.connection():
        assert (1,) == database.peewee.execute_sql("SELECT 1 FROM pg_sleep(1)").fetchone()
    database.close()
    assert 0 == database.losses


@pytest.mark.parametrize("sent", [True, False])
def test_connections_that_are_cut_in_a_commit(
    url: str, proxy: DatabaseProxy, tmp_path: Path, *, sent: bool
) -> None:
    """Whether the server has it or not, nobody can tell: what is done again comes to the same."""
    proxy.is_commit_sent = sent
    with serving(tmp_path, url) as index:
        for number in range(1, 5):
            proxy.cuts = 2
            keep(index, instance(number=number))
        assert eventually(lambda: not proxy.cuts and is_whole(index, 4))
        entries = index._database.rows(Change.select(Change.resource, Change.version))
        assert len(entries) == len(set(entries))
        assert [] == list(index.verify(grace=0))


@pytest.mark.parametrize("sent", [True, False])
def test_orders_and_steps_of_which_the_commit_is_cut(
    url: str, proxy: DatabaseProxy, tmp_path: Path, *, sent: bool
) -> None:
    """The sender is told that it is not kept; sent again, it is there once."""
    proxy.is_commit_sent = sent
    with Index(tmp_path, STORAGE, IndexSettings(url=SecretStr(url)), joins=True) as index:
        proxy.cuts = 1
        assert ["AE", "AA"] == tell(index, orm()) + tell(index, orm())
        proxy.cuts = 1
        with pytest.raises(NotKept):
            index.procedures.create("1.2.3", "CT1", begun(study_uid="1.2"))
        with contextlib.suppress(DuplicateStep):
            index.procedures.create("1.2.3", "CT1", begun(study_uid="1.2"))
        assert (1, 1) == (count(index, ImagingOrder), count(index, PerformedStep))


def test_a_connection_that_the_server_does_not_know_is_lost_does_not_keep_the_lock(
    url: str, tmp_path: Path
) -> None:
    """The daemon took its own connection for another daemon, and stopped."""
    fatal: list[object] = []
    settings = IndexSettings(url=SecretStr(url))
    with Index(tmp_path, STORAGE, settings, joins=True, on_fatal=fatal.append) as index:
        index._ownership.take(fatal.append, index.workers)
        lock = index._ownership._lock
        assert lock
        kept = lock._connection.connection()  # as seen by the server
        lock._connection._state.reset()
        with pytest.raises(peewee.OperationalError, match="is being ended"):
            lock.beat()
        assert eventually(lambda: beats(lock))
        kept.close()
    assert [] == fatal


def beats(lock: ServingLock) -> bool:
    try:
        return lock.beat()
    except peewee.OperationalError:
        return False


@contextmanager
def primary_and_replica() -> Iterator[tuple[str, DatabaseProxy, Server, Server, DatabaseProxy]]:
    """Yield the URL of both, the proxy before the first, both servers, and the proxy between them."""
    with server() as url:
        primary = Server(Path(url.rpartition("host=")[2]))
        with (
            DatabaseProxy.before(url) as between,
            replica_of(between.port) as replica,
            DatabaseProxy.before(url) as first,
            DatabaseProxy.before(replica.url) as second,
        ):
            hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
            yield f"postgresql://postgres@{hosts}/postgres", first, primary, replica, between


@pytest.mark.parametrize("behind", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_replica_takes_over(tmp_path: Path, *, behind: bool) -> None:
    """PostgreSQL, 26.3 Failover. A replica that is `behind` lacks what was settled: objects tell of it."""
    with primary_and_replica() as (url, first, primary, replica, between):
        with serving(tmp_path / "data", url) as index:
            for number in range(1, 4):
                keep(index, instance(number=number))
            assert eventually(lambda: is_whole(index, 3))
            assert eventually(lambda: 3 == len(rows(replica.url)))
            if behind:
                between.close()
            for number in range(4, 7):
                keep(index, instance(number=number))
                assert eventually(lambda: index._reception._settling._settled == index._reception._log.last)
            assert eventually(lambda: is_whole(index, 6))
            assert behind or eventually(lambda: 6 == len(rows(replica.url)))
            first.close()
            primary.stop()
            receive(index, instance(number=7))
            replica.control("promote")
            assert eventually(lambda: is_whole(index, 7))
            keep(index, instance(number=8))
            assert eventually(lambda: is_whole(index, 8))
            assert [] == list(index.verify(grace=0))
            shown = {name: index.resource(f"{ROOT}.1", name)[0] for name in ("dstu2", "r4", "r5")}
            for name, content in shown.items():
                assert content == (index.data / f"fhir/{name}/ImagingStudy/{ROOT}.1.json").read_bytes()
        primary.start()


def rows(url: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute("SELECT uid FROM instance").fetchall()
