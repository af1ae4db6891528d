"""A journal that cannot be replayed now stays, with all that it names, until it can be."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import FhirSettings, Index, IndexSettings, NotKept, StorageSettings, reindex
from index.reception import settling
from index.reception.recovery import Replay
from index.storage.journal import is_left
from index.storage.object_store import ObjectStore
from support.daemon import eventually
from support.dicom import instance
from support.filling import crashed, files, keep, receive, served

STORAGE = StorageSettings(watermark=0)
SMALL = {"EncapsulatedDocument": bytes(1000)}
LARGE = {"EncapsulatedDocument": bytes(range(256)) * 400}
SIZES = pytest.mark.parametrize("more", [SMALL, LARGE], ids=["small", "large"])


def busy(*_: object, **__: object) -> None:
    raise NotKept("database: database is locked")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index whose database takes nothing: what it acknowledges is in the journal alone."""
    index = served(tmp_path / "data", STORAGE)
    with monkeypatch.context() as patched:
        patched.setattr(index._reception._indexing, "_index", busy)
        yield index
    index.close()


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The replay fails while this is not undone."""
    with monkeypatch.context() as patched:
        patched.setattr(Replay, "_index", busy)
        yield patched


def instances(index: Index) -> int:
    return sum(study["instances"] for study in index.studies())


@SIZES
def test_verify_removes_nothing_that_the_journal_names(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, bytes]
) -> None:
    receive(index, instance(**more))
    data = crashed(index, tmp_path / "crashed")
    # As after a restart: the process that received it has ended.
    monkeypatch.setattr(ObjectStore, "_is_arriving", lambda *_: False)
    with monkeypatch.context() as failing:
        failing.setattr(Replay, "_index", busy)
        with Index(data, STORAGE) as other:
            list(other.verify(repair=True, grace=0))
    with served(data, STORAGE) as again:
        assert 1 == instances(again)


def test_a_torn_object_is_not_indexed_before_its_record_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 3600)
    index = served(tmp_path / "data", STORAGE)
    index._database.checkpoint()
    keep(index, instance(**SMALL))
    data = crashed(index, tmp_path / "crashed", "index.sqlite-*")
    index.close()
    (path,) = (data / "objects").glob("*/*.dcm")
    path.write_bytes(path.read_bytes()[:-100])
    with monkeypatch.context() as failing:
        failing.setattr(Replay, "_index", busy)
        served(data, STORAGE).close()
    with served(data, STORAGE) as again:
        assert [] == [finding for finding in again.verify(grace=0) if "object" in finding.kind]
        assert {} == files(data / "conflicts")


@SIZES
def test_the_daemon_tries_again_while_it_receives(
    index: Index,
    tmp_path: Path,
    failing: pytest.MonkeyPatch,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, bytes],
) -> None:
    receive(index, instance(number=1, **more))
    data = crashed(index, tmp_path / "crashed")
    with served(data, STORAGE) as again:
        receive(again, instance(number=2, **more))
        # What is committed, or found by C-FIND, would leave out the first one.
        assert not again.catch_up(0)
        assert again.state().index_failing
        failing.undo()
        monkeypatch.setattr(again._reception, "_open_again", 0.0)
        receive(again, instance(number=3, **more))
        assert again.catch_up(60)
        assert 3 == instances(again)
        assert not again.state().index_failing
        assert again._reception._log.is_open


@pytest.mark.sqlite
def test_an_older_instance_replaces_no_newer_one(
    index: Index, tmp_path: Path, failing: pytest.MonkeyPatch
) -> None:
    storage = STORAGE.model_copy(update={"duplicates": "replace"})
    receive(index, instance(StudyDescription="Old"))
    data = crashed(index, tmp_path / "crashed")
    with served(data, storage) as again:
        receive(again, instance(StudyDescription="New"))
    failing.undo()
    with served(data, storage) as again:
        assert 1 == instances(again)
        assert again.catch_up(60)
    connection = sqlite3.connect(data / "index.sqlite")
    query = "SELECT attributes FROM study_variant WHERE instance_count > 0"
    assert ["New"] == [text.partition('"StudyDescription":"')[2][:3] for (text,) in connection.execute(query)]
    connection.close()


def test_commitment_is_not_answered_before_the_journal_is_replayed(
    index: Index, tmp_path: Path, failing: pytest.MonkeyPatch
) -> None:
    header = receive(index, instance()).header
    data = crashed(index, tmp_path / "crashed")
    with served(data, STORAGE) as again:
        again.commitments.ask("PACS", "1.2.3", [(header.sop_class_uid, header.sop_instance_uid)])
        assert [] == list(again.commitments.due())
    assert failing


def test_the_folder_of_a_large_object_is_missing(index: Index, tmp_path: Path) -> None:
    """Objects were restored from an older backup."""
    receive(index, instance(**LARGE))
    data = crashed(index, tmp_path / "crashed")
    for folder in (data / "objects").iterdir():
        folder.rmdir()
    with served(data, STORAGE) as again:
        assert 1 == instances(again)


@pytest.mark.sqlite
def test_numbers_do_not_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is restored from a backup that is newer than the one that `reindex` made."""
    data = tmp_path / "data"
    with served(data, STORAGE) as index:
        for number in range(1, 4):
            keep(index, instance(number=number))
    backup = (data / "index.sqlite").read_bytes()
    reindex(data, STORAGE, IndexSettings(), FhirSettings())
    with served(data, STORAGE) as renewed:
        monkeypatch.setattr(renewed._reception._indexing, "_index", busy)
        receive(renewed, instance(number=4))
        left = crashed(renewed, tmp_path / "crashed", "index.sqlite*")
        monkeypatch.undo()
    (left / "index.sqlite").write_bytes(backup)
    with served(left, STORAGE) as restored:
        assert 4 == instances(restored)


@pytest.mark.parametrize("command", [True, False])
def test_what_is_settled_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, command: bool
) -> None:
    """After a deletion and `reindex` it would come back."""
    with served(tmp_path / "data", STORAGE) as index:
        for study in (1, 2):
            keep(index, instance(study))
        assert eventually(lambda: index._reception._settling._settled == index._reception._log.last)
        data = crashed(index, tmp_path / "crashed")
    if command:
        with Index(data, STORAGE) as other:
            assert not is_left(data / "journal")
            other.delete(other.studies()[0]["uid"])
    else:
        with served(data, STORAGE) as again:
            again.delete(again.studies()[0]["uid"])
            monkeypatch.setattr(again._reception._log, "close", lambda *, settled: settled)
    reindex(data, STORAGE, IndexSettings(), FhirSettings())
    with Index(data, STORAGE) as renewed:
        assert 1 == len(renewed.studies())


def test_a_log_that_cannot_be_begun_is_not_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as failing:
        failing.setattr(settling.Deletions, "begin", busy)
        index = served(tmp_path, STORAGE)
        receive(index, instance(number=1))
        assert not index._reception._log.is_open
    monkeypatch.setattr(index._reception, "_open_again", 0.0)
    receive(index, instance(number=2))
    assert index._reception._log.is_open
    assert eventually(lambda: index._reception._settling._settled == index._reception._log.last)
    index.close()
