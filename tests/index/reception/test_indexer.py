"""Small objects: acknowledged when the journal has them, made whole whatever is lost before the sync."""

import itertools
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from index import Index, NotKept, Origin, Outcome, StorageSettings
from index.database.settings import IndexSettings
from index.facade import reindex
from index.imagingstudy.settings import FhirSettings
from index.reception import indexer as spool
from index.storage import durable, journal
from index.storage.journal import is_left, read
from index.storage.object_store import ObjectStore
from index.storage.object_writer import JournaledObject
from support.daemon import eventually
from support.dicom import instance
from support.filling import files, keep, keep_by_threads

STORAGE = StorageSettings(watermark=0)
ORIGIN = Origin("CT1", "ARCHIVE", "10.0.0.7", "abc")

pytestmark = pytest.mark.usefixtures("_patient_spool")


@pytest.fixture
def _patient_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    """It syncs when a test closes the index, not before."""
    monkeypatch.setattr(spool, "SETTLE_SECONDS", 60)


def served(data: Path, storage: StorageSettings = STORAGE) -> Index:
    index = Index(data, storage)
    index.serve()
    return index


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = served(tmp_path / "data")
    yield index
    index.close()


def crashed(index: Index, target: Path, *lost: str) -> Path:
    """Copy what a crash leaves; what fits the patterns is lost as well."""
    shutil.copytree(index.data, target)
    for path in [path for pattern in lost for path in target.glob(pattern)]:
        path.unlink()
    return target


def described(data: Path) -> dict[str, bytes]:
    """Publish, close, and return the resources; a daemon has done all that is to be recovered."""
    with served(data) as index:
        assert eventually(lambda: not index.state().unpublished)
        assert [] == [finding for finding in index.verify(grace=0) if finding.kind != "study-unpublished"]
    return files(data / "fhir")


def small(count: int) -> list[Path]:
    return [Path(f"objects/000000/{number:03x}.dcm") for number in range(count)]


def test_the_journal_is_needed_until_files_and_rows_are_synced(index: Index) -> None:
    for number in range(1, 4):
        keep(index, instance(number=number))
    assert 3 == index.state().spooled
    assert 3 == len(read(index.data / "journal"))
    assert all((index.data / path).exists() for path in small(3))
    index.close()
    assert not is_left(index.data / "journal")
    assert [] == list((index.data / "incoming").iterdir())
    # By a commit that was synced: the index may lie on another disk.
    positions = sqlite3.connect(index.data / "index.sqlite").execute(
        "SELECT number, settled FROM spool_position"
    )
    assert [(3, 3)] == positions.fetchall()
    with Index(index.data, STORAGE) as again:
        assert [3] == [study["instances"] for study in again.studies()]


@pytest.mark.parametrize(
    "lost",
    [
        (),
        ("objects/*/*.dcm",),
        ("index.sqlite-*",),
        ("objects/*/*.dcm", "index.sqlite-*"),
        ("objects/*/001.dcm", "index.sqlite-shm"),
    ],
)
def test_what_a_power_cut_takes_is_made_again(index: Index, tmp_path: Path, lost: tuple[str, ...]) -> None:
    index._database.checkpoint()
    keep_by_threads(index, [instance(study, 1, number) for study in (1, 2) for number in range(1, 6)], 4)
    data = crashed(index, tmp_path / "crashed", *lost)
    index.close()
    expected = described(index.data)
    assert expected == described(data)
    assert {path.read_bytes() for path in index.data.glob("objects/*/*")} == {
        path.read_bytes() for path in data.glob("objects/*/*")
    }


def test_origin_and_time_are_kept(index: Index, tmp_path: Path) -> None:
    keep(index, instance(), ORIGIN)
    columns = "SELECT uid, path, received, sha1, size, calling_aet, called_aet, address"
    query = f"{columns} FROM instance JOIN source ON source.id = source_id"
    expected = sqlite3.connect(index.data / "index.sqlite").execute(query).fetchall()
    data = crashed(index, tmp_path / "crashed", "index.sqlite-*", "objects/*/*.dcm")
    served(data).close()
    assert expected == sqlite3.connect(data / "index.sqlite").execute(query).fetchall()


def test_a_torn_file_is_written_again(index: Index, tmp_path: Path) -> None:
    keep(index, instance())
    whole = (index.data / small(1)[0]).read_bytes()
    data = crashed(index, tmp_path / "crashed")
    (data / small(1)[0]).write_bytes(whole[:100])
    Index(data, STORAGE).close()  # any command does it
    assert whole == (data / small(1)[0]).read_bytes()
    assert not is_left(data / "journal")


def test_what_was_deleted_stays_deleted(index: Index, tmp_path: Path) -> None:
    keep(index, instance())
    keep(index, instance(2))
    index.delete(instance().StudyInstanceUID)
    for number, lost in enumerate(((), ("objects/*/*.dcm",))):
        data = crashed(index, tmp_path / str(number), *lost)
        with served(data) as after:
            assert [instance(2).StudyInstanceUID] == [study["uid"] for study in after.studies()]
        assert [small(2)[1]] == [path.relative_to(data) for path in data.glob("objects/*/*")]


def test_a_deletion_before_the_file_is_there(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    write = JournaledObject.write

    def late(unsynced: JournaledObject) -> None:
        with Index(index.data, STORAGE) as other:
            other.delete(instance().SOPInstanceUID)
        write(unsynced)

    monkeypatch.setattr(JournaledObject, "write", late)
    keep(index, instance())
    assert (index.data / small(1)[0]).exists()
    index.close()
    assert [] == list(index.data.glob("objects/*/*"))


def test_a_file_that_cannot_be_written_is_written_later(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: JournaledObject) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(JournaledObject, "write", full)
        assert Outcome.STORED is keep(index, instance()).outcome
    assert not (index.data / small(1)[0]).exists()
    assert ["object-missing"] == [one.kind for one in index.verify() if "object" in one.kind]
    index.close()
    with Index(index.data, STORAGE) as again:
        again.publish()
        assert [] == list(again.verify(grace=0))


def test_files_that_the_disk_did_not_take_are_written_again(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a sync that failed the kernel may show what the disk has not got: here it shows rubbish."""

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    keep(index, instance())
    keep(index, instance(2))
    path = index.data / small(2)[1]
    whole = path.read_bytes()
    path.write_bytes(b"rubbish")
    monkeypatch.setattr(spool, "sync_filesystem", fail)
    index.close()
    assert whole == path.read_bytes()


def test_a_disk_that_fails_for_long_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(spool, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(spool, "RETRY_SECONDS", 0.01)
    index = served(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(spool, "sync_filesystem", fail)
        patched.setattr(ObjectStore, "put", fail)
        keep(index, instance())
        for number in range(2, 5):
            keep(index, instance(number=number))
        index.close()
    assert is_left(tmp_path / "journal")
    (tmp_path / small(1)[0]).unlink()
    # While it cannot be mended, the records stay.
    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "put", fail)
        index = served(tmp_path)
        assert Outcome.STORED is keep(index, instance(number=9)).outcome
        index.close()
    assert is_left(tmp_path / "journal")
    described(tmp_path)
    assert not is_left(tmp_path / "journal")


def test_a_full_journal_is_turned_and_meanwhile_files_are_synced(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "SEGMENT", 3000)
    datasets = [instance(study, 1, number) for study in range(1, 5) for number in range(1, 30)]
    keep_by_threads(index, datasets, 4)
    assert 4 * [29] == [study["instances"] for study in index.studies()]
    assert eventually(lambda: index.state().spooled < 10)
    data = index.data
    index.close()
    described(data)


def test_a_journal_that_is_full_of_failures_is_turned_too(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise NotKept("database: database or disk is full")

    monkeypatch.setattr(journal, "SEGMENT", 2000)
    with monkeypatch.context() as patched:
        patched.setattr(index._commits._rows, "add", full)
        for number in itertools.takewhile(lambda _: index._spool.has_room(), range(100)):
            with pytest.raises(NotKept, match="disk is full"):
                keep(index, instance(number=number))
    assert eventually(index._spool.has_room)
    assert Outcome.STORED is keep(index, instance()).outcome


@pytest.mark.parametrize("is_late", [False, True], ids=["there", "not there yet"])
def test_one_that_is_replaced_is_kept_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_late: bool
) -> None:
    index = served(tmp_path / "data", STORAGE.model_copy(update={"duplicates": "replace"}))
    with monkeypatch.context() as patched:
        if is_late:
            patched.setattr(JournaledObject, "write", lambda _: None)
        keep(index, instance())
    assert Outcome.REPLACED is keep(index, instance(StudyDescription="Other")).outcome
    data = crashed(index, tmp_path / "crashed", "index.sqlite-shm")
    for path in (index.data, data):
        (aside,) = (path / "conflicts").iterdir()
        assert b"Head" in aside.read_bytes()
    index.close()
    for path in (index.data, data):
        with served(path) as again:
            assert [] == [one for one in again.verify(grace=0) if not one.kind.startswith("study")]
        assert [b"Other" in one.read_bytes() for one in path.glob("objects/*/*")] == [True]


def test_a_conflict_is_durable_before_it_is_acknowledged(index: Index, tmp_path: Path) -> None:
    keep(index, instance())
    assert Outcome.CONFLICT is keep(index, instance(StudyDescription="Other")).outcome
    assert Outcome.DUPLICATE is keep(index, instance()).outcome
    assert Outcome.CONFLICT is keep(index, instance(StudyDescription="Other")).outcome
    data = crashed(index, tmp_path / "crashed")
    for path in (index.data, data):
        (aside,) = (path / "conflicts").iterdir()
        assert b"Other" in aside.read_bytes()
    assert described(data)
    assert [small(1)[0]] == [path.relative_to(data) for path in data.glob("objects/*/*")]


@pytest.mark.parametrize("lost", [(), ("index.sqlite*",)], ids=["old index", "no index"])
def test_reindex_after_a_power_cut(index: Index, tmp_path: Path, lost: tuple[str, ...]) -> None:
    keep(index, instance())
    keep(index, instance(number=2))
    data = crashed(index, tmp_path / "crashed", "objects/*/*.dcm", *lost)
    assert 2 == reindex(data, STORAGE, IndexSettings(), FhirSettings()).instances
    index.close()
    expected = described(index.data)
    assert expected == described(data)


def test_no_syncs_no_journal(tmp_path: Path) -> None:
    with served(tmp_path, STORAGE.model_copy(update={"durability": "process-crash"})) as index:
        keep(index, instance())
        assert 0 == index.state().spooled
    assert not (tmp_path / "journal").exists()


def test_the_journal_is_not_written_over_while_a_file_is_on_its_way(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SETTLE_SECONDS", 0.01)
    write, begun, go_on = JournaledObject.write, threading.Event(), threading.Event()

    def slow(unsynced: JournaledObject) -> None:
        if b"P7" in unsynced.record:
            begun.set()
            go_on.wait(120)
        write(unsynced)

    monkeypatch.setattr(JournaledObject, "write", slow)
    sender = threading.Thread(target=keep, args=(index, instance(7)))
    sender.start()
    assert begun.wait(120)
    for number in range(1, 20):
        keep(index, instance(number=number))
        time.sleep(0.02)
    data = crashed(index, tmp_path / "crashed")
    go_on.set()
    sender.join(120)
    for path in (index.data, data):
        index.close()
        with served(path) as again:
            assert [] == [one for one in again.verify(grace=0) if one.kind.startswith("object")]
            assert [1, 19] == sorted(study["instances"] for study in again.studies())


def test_what_the_journal_would_not_tell_is_committed_durably(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, commits = index._database.writing, []

    def noting(*, durable: bool = True, at_once: bool = False) -> AbstractContextManager[None]:
        if threading.current_thread() is threading.main_thread():  # the publisher writes too
            commits.append(durable)
        return writing(durable=durable, at_once=at_once)

    monkeypatch.setattr(index._database, "writing", noting)
    outcomes = []
    for description in ("Head", "Head", "Other"):
        commits.clear()
        outcomes.append((keep(index, instance(StudyDescription=description)).outcome, commits[-1]))
    assert [(Outcome.STORED, False), (Outcome.DUPLICATE, False), (Outcome.CONFLICT, True)] == outcomes
    large = instance(2, EncapsulatedDocument=bytes(100_000))
    assert Outcome.STORED is keep(index, large).outcome
    assert commits[-1]


def test_a_journal_that_breaks_while_it_is_settled_loses_nothing(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged since it was turned is in the part that broke: that is settled first."""
    events: list[str] = []

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    def slow(descriptor: int) -> None:
        if not events:
            events.append(f"{keep(index, instance(2)).outcome} meanwhile")
            with monkeypatch.context() as patched:
                patched.setattr(journal.os, "fdatasync", fail)
                with pytest.raises(NotKept, match="journal: Input/output error"):
                    keep(index, instance(3))
        durable.sync_filesystem(descriptor)
        events.append("synced")

    def renew(one: journal.Journal) -> None:
        renew_plain(one)
        events.append("renewed")

    renew_plain = journal.Journal.renew
    monkeypatch.setattr(journal.Journal, "renew", renew)
    monkeypatch.setattr(spool, "sync_filesystem", slow)
    monkeypatch.setattr(spool, "SETTLE_SECONDS", 0)
    keep(index, instance(1))
    assert eventually(lambda: "renewed" in events)
    assert ["stored meanwhile", "synced", "synced", "renewed"] == events
    assert eventually(index._spool.has_room)
    assert Outcome.STORED is keep(index, instance(3)).outcome
    index.close()
    described(index.data)


def test_whatever_fault_while_a_part_is_settled_keeps_its_records(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun anew, the thread would turn the journal back into the part whose records are not settled yet."""
    parts: list[list[str]] = []

    def odd(_: int) -> None:
        parts.append([record.facts["uid"] for record in read(index.data / "journal")])
        if len(parts) == 1:
            keep(index, instance(2))
            raise RuntimeError("odd")
        durable.sync_filesystem(_)

    monkeypatch.setattr(spool, "sync_filesystem", odd)
    monkeypatch.setattr(spool, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(spool, "RETRY_SECONDS", 0)
    keep(index, instance(1))
    assert eventually(lambda: len(parts) >= 2 and not index.state().spooled)
    first = str(instance(1).SOPInstanceUID)
    assert first in parts[0]
    assert first in parts[1]
    (state,) = (one for one in index.workers.states() if one.name == "journal")
    assert (1, "ok") == (state.failures, state.summary)


def test_verify_waits_for_a_file_that_is_on_its_way(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    write, begun = JournaledObject.write, threading.Event()

    def slow(unsynced: JournaledObject) -> None:
        begun.set()
        time.sleep(0.5)
        write(unsynced)

    monkeypatch.setattr(JournaledObject, "write", slow)
    sender = threading.Thread(target=keep, args=(index, instance()))
    sender.start()
    assert begun.wait(120)
    assert not (index.data / small(1)[0]).exists()
    assert [] == [one for one in index.verify() if "object" in one.kind]
    sender.join(120)
