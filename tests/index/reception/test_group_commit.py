"""Group commit when things fail: an answer of success is never wrong, and one failure is not another's."""

import errno
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import peewee
import pytest

from index import DatabaseFault, Index, IndexFault, NotKept, Outcome
from index.database.instance_rows import StoredObject
from index.reception.group_commit import GroupCommit
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path, STORAGE)


def fail(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def together(index: Index, monkeypatch: pytest.MonkeyPatch, count: int) -> list[Exception | Outcome]:
    """Keep so many instances in one group; return what came of each."""
    waiting = threading.Barrier(count + 1)
    submit = GroupCommit.submit
    results: list[Exception | Outcome] = []

    def submit_at_once(commits: GroupCommit, filed: StoredObject, **options: object) -> object:
        waiting.wait(120)
        return submit(commits, filed, **options)

    def one(number: int) -> None:
        try:
            results.append(keep(index, instance(number=number)).outcome)
        except (IndexFault, OSError) as error:
            results.append(error)

    monkeypatch.setattr(GroupCommit, "submit", submit_at_once)
    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    with index._commits._committing._acting:
        for thread in threads:
            thread.start()
        waiting.wait(120)
        while index._commits._committing.waiting() < count:
            pass
    for thread in threads:
        thread.join(120)
    return results


def test_a_failed_group_is_refused_even_where_its_objects_cannot_be_removed(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise NotKept("database: database or disk is full")

    monkeypatch.setattr(index._commits, "_commit_all", full)
    monkeypatch.setattr(index._objects, "remove", fail)
    results = together(index, monkeypatch, 4)
    assert [NotKept] * 4 == [type(result) for result in results]
    assert [] == index.studies()


def test_names_that_cannot_be_synced(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index._objects, "sync_folders", fail)
    with pytest.raises(NotKept, match="objects: Input/output error"):
        keep(index, instance())
    assert [] == index.studies()
    assert {} == files(index.data / "objects")


def test_whatever_ends_a_commit_nobody_is_told_success(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(index._commits._rows, "add", end)
    results = together(index, monkeypatch, 3)
    assert [NotKept] * 3 == [type(result) for result in results]


def test_an_instance_is_kept_though_tidying_up_fails(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(index, instance())
    monkeypatch.setattr(index._objects, "remove", fail)
    monkeypatch.setattr(index._objects, "set_aside", fail)
    assert Outcome.DUPLICATE == keep(index, instance()).outcome
    assert Outcome.CONFLICT == keep(index, instance(StudyDescription="Other")).outcome
    assert [1] == [study["instances"] for study in index.studies()]


def test_a_replacement_is_kept_though_tidying_up_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(tmp_path, STORAGE.model_copy(update={"duplicates": "replace"}))
    keep(index, instance())
    monkeypatch.setattr(index._objects, "set_aside", fail)
    assert Outcome.REPLACED == keep(index, instance(StudyDescription="Other")).outcome
    path = index._commits._rows.find(instance().SOPInstanceUID).path
    assert (tmp_path / path).exists()


def test_a_folder_whose_sync_failed_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later sync may say success though the kernel has dropped what the first could not write."""
    index = Index(tmp_path, STORAGE.model_copy(update={"durability": "power-loss"}))
    keep(index, instance(number=1))
    with monkeypatch.context() as patched:
        patched.setattr("index.storage.object_store.sync_folder", fail)
        with pytest.raises(NotKept, match="Input/output error"):
            keep(index, instance(number=2))
    keep(index, instance(number=3))
    assert ["objects/000000/000.dcm", "objects/000001/000.dcm"] == sorted(
        path for path in files(tmp_path) if path.startswith("objects")
    )


def damaged(error: Exception) -> Callable[..., None]:
    def raising(*_: object, **__: object) -> None:
        raise error

    return raising


def test_a_damaged_database_is_told_whoever_meets_it_first(tmp_path: Path) -> None:
    told: list[DatabaseFault] = []
    index = Index(tmp_path, STORAGE, on_fatal=told.append)
    keep(index, instance())
    index._database.peewee.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    index._database.close()
    path = tmp_path / "index.sqlite"
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(DatabaseFault, match=r"index.sqlite.*malformed"):
        index.studies()
    assert ["malformed" in str(fault) for fault in told] == [True]
    with pytest.raises(DatabaseFault):
        keep(index, instance(number=2))
    assert 1 == len(told)


def test_a_failed_rollback_does_not_hide_the_fault(index: Index) -> None:
    """SQLite ends a transaction by itself when its commit fails; peewee then fails to roll it back."""
    damage = sqlite3.OperationalError("disk I/O error")
    damage.sqlite_errorcode, damage.sqlite_errorname = sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC"
    rollback = peewee.OperationalError("cannot rollback - no transaction is active")
    rollback.__context__ = damage
    assert "disk I/O error (SQLITE_IOERR_FSYNC)" in str(index._database.translate(rollback))


def test_rows_that_another_process_removed_are_made_again(index: Index) -> None:
    """The rows of a series that arrives are remembered; an operator's `delete` may take some or all away."""
    uids = {1: f"{ROOT}.1.1", 2: f"{ROOT}.1"}  # the series alone, then its study
    for series in (1, 2):
        keep(index, instance(1, series, 1))
        keep(index, instance(1, series, 2))
    for number, uid in uids.items():
        with Index(index.data, STORAGE) as other:
            other.delete(uid)
        keep(index, instance(1, 1, 10 + number))
        keep(index, instance(1, 1, 20 + number))
        ((series, instances),) = [(one["series"], one["instances"]) for one in index.studies()]
        assert {1: (2, 4), 2: (1, 2)}[number] == (series, instances)
    index.publish()
    assert [] == list(index.verify(grace=0))


def test_ids_of_a_failed_commit_are_forgotten(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite gives the ids of a transaction that was rolled back to the next one."""
    rows = index._commits._rows
    with monkeypatch.context() as patched:
        patched.setattr(rows._sql.instance, "run", damaged(peewee.OperationalError("no")))
        with pytest.raises(NotKept):
            keep(index, instance(1))
    keep(index, instance(2))
    keep(index, instance(1))
    keep(index, instance(1, number=2))
    assert [2, 1] == [study["instances"] for study in sorted(index.studies(), key=lambda one: one["uid"])]
    index.publish()
    assert [] == list(index.verify(grace=0))
