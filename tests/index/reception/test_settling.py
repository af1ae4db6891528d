"""A part of the journal is free when all that its records tell of is durable elsewhere, and not before."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import Index, NotKept, StorageSettings
from index.reception import settling
from index.storage import object_store
from index.storage.journal import read
from support.daemon import eventually
from support.dicom import instance
from support.filling import keep, receive, served

STORAGE = StorageSettings(watermark=0)
LARGE = {"EncapsulatedDocument": bytes(range(256)) * 400}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = served(tmp_path / "data", STORAGE)
    yield index
    index.close()


def is_settled(index: Index) -> bool:
    number, settled = index._reception._replay._position.read()
    return 0 < number == settled


def instances(data: Path) -> int:
    with served(data, STORAGE) as index:
        return sum(study["instances"] for study in index.studies())


@pytest.mark.parametrize("more", [{}, LARGE], ids=["small", "large"])
def test_objects_are_synced_one_by_one_where_no_sync_covers_them_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, bytes]
) -> None:
    """A kernel before Linux 5.8, whose syncfs(2) does not tell of failures."""
    monkeypatch.setattr(object_store, "can_sync_filesystem", lambda: False)
    synced: list[str] = []

    def noted(sync):
        def call(descriptor: int) -> None:
            synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            sync(descriptor)

        return call

    monkeypatch.setattr(os, "fdatasync", noted(os.fdatasync))
    monkeypatch.setattr(os, "fsync", noted(os.fsync))
    with served(tmp_path / "data", STORAGE) as index:
        path = keep(index, instance(**more)).arrival.stored.path
        assert eventually(lambda: is_settled(index))
        before = list(synced)
    file = str(tmp_path / "data" / path)
    assert file in before
    # Its name comes last: by then the content is there.
    assert before.index(file) < len(before) - 1 - before[::-1].index(str(Path(file).parent))


def test_a_fault_leaves_the_part_that_is_not_settled(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread starts again: it does not turn back into the part whose records are needed."""
    plain, faults = settling.Settling._settle, [1]
    again, held = threading.Event(), threading.Event()

    def settle(self: settling.Settling, number: int) -> bool:
        if faults:
            raise RuntimeError(faults.pop())
        again.set()
        held.wait(60)
        return plain(self, number)

    monkeypatch.setattr(settling.Settling, "_settle", settle)
    keep(index, instance(number=1))
    assert eventually(lambda: not faults)
    keep(index, instance(number=2))
    assert again.wait(60)
    keep(index, instance(number=3))
    assert 3 == len(read(index.data / "journal"))
    held.set()
    assert eventually(lambda: is_settled(index))


def test_a_journal_is_kept_where_the_last_records_are_not_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = served(tmp_path / "data", STORAGE)
    looked: list[None] = []

    def look(_: object) -> bool:
        looked.append(None)
        raise RuntimeError

    def busy(*_: object, **__: object) -> None:
        raise NotKept("database: database is locked")

    with monkeypatch.context() as patched:
        patched.setattr(settling.Deletions, "look", look)
        keep(index, instance(number=1))
        assert eventually(lambda: looked)
        patched.setattr(index._reception._indexing, "_index", busy)
        receive(index, instance(number=2))
        index.close()
    assert 2 == instances(tmp_path / "data")


def test_the_name_of_a_large_object_is_synced_again_after_a_sync_that_failed(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    plain = object_store.sync_folder

    def fail_once(_: int) -> None:
        calls.append("filesystem")
        if 1 == len(calls):
            raise OSError(5, "Input/output error")

    def folder(path: str) -> None:
        calls.append(Path(path).name)
        plain(path)

    monkeypatch.setattr(object_store, "sync_filesystem", fail_once)
    path = keep(index, instance(**LARGE)).arrival.stored.path
    monkeypatch.setattr(object_store, "sync_folder", folder)
    assert eventually(lambda: is_settled(index))
    assert path.split("/")[1] in calls[1:]


def test_a_part_that_could_not_be_wiped_is_wiped_later(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    wiped, plain = [], index._reception._log.wipe

    def wipe() -> None:
        wiped.append(None)
        if 1 == len(wiped):
            raise OSError(5, "Input/output error")
        plain()

    deletions = index._reception._settling._deletions
    monkeypatch.setattr(index._reception._log, "wipe", wipe)
    monkeypatch.setattr(settling, "LOOK_SECONDS", 0.01)
    deletions._look_again = 0.0
    uid = keep(index, instance(PatientName="Secret^Name")).header.sop_instance_uid
    assert eventually(lambda: is_settled(index))
    index.delete(uid)
    journal = [index.data / "journal" / name for name in ("0", "1")]
    assert eventually(lambda: not any(b"Secret" in path.read_bytes() for path in journal))
    assert eventually(lambda: not deletions._parts)
    assert 3 == len(wiped)


def test_a_daemon_ends_while_its_indexer_waits_after_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, faults = served(tmp_path / "data", STORAGE), []

    def fault(*_: object) -> bool:
        faults.append(None)
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(index._reception._indexer, "_index", fault)
        receive(index, instance())
        assert eventually(lambda: faults)
        closing = threading.Thread(target=index.close, daemon=True)
        closing.start()
        closing.join(120)
        assert not closing.is_alive()
    assert 1 == instances(tmp_path / "data")
