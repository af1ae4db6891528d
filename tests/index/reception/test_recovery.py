"""What a crash or a power cut leaves is made whole from the journal, however often, whatever was lost."""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import FhirSettings, Index, IndexSettings, NotKept, Origin, StorageSettings, reindex
from index.reception import recovery, settling
from index.reception.indexing import Indexing
from index.storage.journal import is_left, read
from index.storage.object_store import ObjectStore
from support.daemon import eventually
from support.dicom import instance
from support.filling import crashed, files, keep, keep_by_threads, receive, served

STORAGE = StorageSettings(watermark=0)
ORIGIN = Origin("CT1", "ARCHIVE", "10.0.0.7", "abc")
LARGE = {"EncapsulatedDocument": bytes(range(256)) * 400}


@pytest.fixture(autouse=True)
def _settles_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 3600)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = served(tmp_path / "data", STORAGE)
    yield index
    index.close()


def described(data: Path, storage: StorageSettings = STORAGE) -> dict[str, bytes]:
    """Publish, close, and return the resources; a daemon has done all that is to be recovered."""
    with served(data, storage) as index:
        assert eventually(lambda: not index.state().unpublished)
        assert [] == [finding for finding in index.verify(grace=0) if finding.kind != "study-unpublished"]
    assert not is_left(data / "journal")
    assert [] == list((data / "incoming").iterdir())
    return files(data / "fhir")


def objects(data: Path) -> set[bytes]:
    return set(files(data / "objects").values())


def positions(data: Path) -> list[tuple[int, int]]:
    return (
        sqlite3.connect(data / "index.sqlite")
        .execute("SELECT number, settled FROM journal_position")
        .fetchall()
    )


@pytest.mark.sqlite
def test_the_journal_is_needed_until_files_and_rows_are_synced(index: Index) -> None:
    for number in range(1, 4):
        keep(index, instance(number=number))
    assert 3 == len(read(index.data / "journal"))
    ((indexed, settled),) = positions(index.data)
    assert (0, indexed) == (settled, read(index.data / "journal")[-1].number)
    index.close()
    assert not is_left(index.data / "journal")
    assert [(indexed, indexed)] == positions(index.data)
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
    assert objects(index.data) == objects(data)


def test_a_kill_between_log_and_index(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Acknowledged, and nothing of it in the index: small ones, large ones, duplicates and conflicts."""
    with monkeypatch.context() as patched:
        patched.setattr("index.reception.indexer.RETRY_SECONDS", 3600)
        patched.setattr(index._reception._indexing, "_index", _busy)
        for number in (1, 2):
            receive(index, instance(number=number))
            receive(index, instance(2, number=number, **LARGE))
        receive(index, instance(number=1))
        receive(index, instance(number=1, StudyDescription="Other"))
        receive(index, instance(2, number=2, StudyDescription="Other", **LARGE))
        data = crashed(index, tmp_path / "crashed")
        index.close()
    for folder in (index.data, data):
        described(folder)
        assert 4 == len(objects(folder))
        assert 2 == len(files(folder / "conflicts"))


def _busy(*_: object, **__: object) -> None:
    raise NotKept("database: database is locked")


def test_a_replay_that_is_killed_again_and_again(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_by_threads(index, [instance(1, 1, number) for number in range(1, 31)], 2)
    keep(index, instance(2, **LARGE))
    data = crashed(index, tmp_path / "crashed", "index.sqlite-*", "objects/*/*.dcm")
    shutil.copytree(index.data / "objects", data / "objects", dirs_exist_ok=True)
    monkeypatch.setattr(recovery, "BATCH", 4)
    plain, left = Indexing._index, [0]

    def die(*arguments: object, **options: object) -> None:
        if not left[0]:
            raise NotKept("killed")
        left[0] -= 1
        plain(*arguments, **options)

    for left[0] in range(1, 4):
        with monkeypatch.context() as patched:
            patched.setattr(Indexing, "_index", die)
            Index(data, STORAGE).close()
        assert is_left(data / "journal")
    index.close()
    expected = described(index.data)
    assert expected == described(data)


@pytest.mark.sqlite
def test_origin_and_time_are_kept(index: Index, tmp_path: Path) -> None:
    keep(index, instance(), ORIGIN)
    columns = "SELECT uid, path, received, sha1, size, calling_aet, called_aet, address"
    query = f"{columns} FROM instance JOIN source ON source.id = source_id"
    expected = sqlite3.connect(index.data / "index.sqlite").execute(query).fetchall()
    data = crashed(index, tmp_path / "crashed", "index.sqlite-*", "objects/*/*.dcm")
    served(data, STORAGE).close()
    assert expected == sqlite3.connect(data / "index.sqlite").execute(query).fetchall()


def test_a_torn_file_is_written_again(index: Index, tmp_path: Path) -> None:
    keep(index, instance())
    (path,) = files(index.data / "objects")
    whole = (index.data / "objects" / path).read_bytes()
    data = crashed(index, tmp_path / "crashed")
    (data / "objects" / path).write_bytes(whole[:100])
    Index(data, STORAGE).close()  # any command does it
    assert whole == (data / "objects" / path).read_bytes()
    assert not is_left(data / "journal")


def test_a_large_object_whose_rename_was_lost(index: Index, tmp_path: Path) -> None:
    keep(index, instance(**LARGE))
    (record,) = read(index.data / "journal")
    assert b"" == record.content
    data = crashed(index, tmp_path / "crashed")
    (data / record.facts["path"]).rename(data / record.facts["incoming"])
    index.close()
    expected = described(index.data)
    assert expected == described(data)


def test_a_large_object_whose_row_was_lost_after_its_rename(index: Index, tmp_path: Path) -> None:
    index._database.checkpoint()
    keep(index, instance(**LARGE))
    data = crashed(index, tmp_path / "crashed", "index.sqlite-*")
    index.close()
    expected = described(index.data)
    assert expected == described(data)


@pytest.mark.sqlite
def test_what_was_deleted_stays_deleted(index: Index, tmp_path: Path) -> None:
    keep(index, instance())
    keep(index, instance(2))
    keep(index, instance(3, **LARGE))
    index.delete(instance().StudyInstanceUID)
    index.delete(instance(3).StudyInstanceUID)
    for number, lost in enumerate(((), ("objects/*/*.dcm",))):
        data = crashed(index, tmp_path / str(number), *lost)
        with served(data, STORAGE) as after:
            assert [instance(2).StudyInstanceUID] == [study["uid"] for study in after.studies()]
        assert 1 == len(objects(data))


def test_files_that_the_disk_did_not_take_are_written_again(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a sync that failed the kernel may show what the disk has not got: here it shows rubbish."""

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    keep(index, instance())
    (path,) = (index.data / "objects").glob("*/*")
    whole = path.read_bytes()
    path.write_bytes(b"rubbish")
    monkeypatch.setattr("index.storage.object_store.sync_filesystem", fail)
    index.close()
    assert whole == path.read_bytes()


def test_a_disk_that_fails_for_long_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(settling, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(settling, "RETRY_SECONDS", 0.01)
    index = served(tmp_path, STORAGE)
    with monkeypatch.context() as patched:
        patched.setattr("index.storage.object_store.sync_filesystem", fail)
        patched.setattr(ObjectStore, "put", fail)
        for number in range(1, 5):
            keep(index, instance(number=number))
        index.close()
    assert is_left(tmp_path / "journal")
    next((tmp_path / "objects").glob("*/*")).unlink()
    described(tmp_path)
    assert 4 == len(objects(tmp_path))


def test_a_replacement_survives_a_crash(index: Index, tmp_path: Path) -> None:
    index.close()
    storage = STORAGE.model_copy(update={"duplicates": "replace"})
    index = served(tmp_path / "data", storage)
    keep(index, instance())
    keep(index, instance(StudyDescription="Other"))
    data = crashed(index, tmp_path / "crashed", "index.sqlite-shm")
    index.close()
    for path in (index.data, data):
        described(path, storage)
        (aside,) = files(path / "conflicts").values()
        assert b"Head" in aside
        (kept,) = objects(path)
        assert b"Other" in kept


@pytest.mark.parametrize("lost", [(), ("index.sqlite*",)], ids=["old index", "no index"])
def test_reindex_after_a_power_cut(index: Index, tmp_path: Path, lost: tuple[str, ...]) -> None:
    keep(index, instance())
    keep(index, instance(number=2))
    data = crashed(index, tmp_path / "crashed", "objects/*/*.dcm", *lost)
    assert 2 == reindex(data, STORAGE, IndexSettings(), FhirSettings()).instances
    index.close()
    expected = described(index.data)
    assert expected == described(data)


@pytest.mark.sqlite
def test_an_object_without_a_row_or_a_record_is_indexed(tmp_path: Path) -> None:
    """After an index was restored from a backup, say: it was acknowledged once, and is never thrown away."""
    index = served(tmp_path / "data", STORAGE)
    keep(index, instance())
    index.close()
    old = (tmp_path / "data/index.sqlite").read_bytes()
    index = served(tmp_path / "data", STORAGE)
    keep(index, instance(number=2))
    keep(index, instance(3))
    index.close()
    (tmp_path / "data/index.sqlite").write_bytes(old)
    (tmp_path / "data/objects/000000/fff.dcm").write_bytes(b"rubbish")
    with served(tmp_path / "data", STORAGE) as again:
        assert [2, 1] == [study["instances"] for study in again.studies()]
    assert b"rubbish" in objects(tmp_path / "data")


def test_what_an_ended_process_left_in_incoming_is_swept(tmp_path: Path) -> None:
    Index(tmp_path, STORAGE).close()
    mine = tmp_path / "incoming" / f"{os.getpid()}-0"
    for path in (mine, tmp_path / "incoming" / "99999999-0"):
        path.write_bytes(b"half")
    served(tmp_path, STORAGE).close()
    assert [] == list((tmp_path / "incoming").iterdir())
