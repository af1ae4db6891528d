"""Without a log each instance is durable, whole and indexed before it is acknowledged."""

import errno
import os
from pathlib import Path

import pytest

from index import DatabaseFault, Index, NotKept, Origin, StorageSettings
from index.reception.indexing import Indexing
from index.storage import object_store
from support.dicom import instance
from support.filling import begun, files, keep

STORAGE = StorageSettings(watermark=0)


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_object_stands_in_its_place_when_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut never leaves half an object in `objects/`: the next start would index it."""
    calls: list[str] = []
    sync, move = object_store.sync_content, object_store.ObjectStore.move
    monkeypatch.setattr(
        object_store, "sync_content", lambda path: (calls.append(Path(path).parent.name), sync(path))
    )
    monkeypatch.setattr(object_store.ObjectStore, "move", lambda *names: (calls.append("move"), move(*names)))
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance())
    assert ["incoming", "move"] == calls


def test_each_association_is_told_its_own_studies(tmp_path: Path) -> None:
    told: dict[str, int] = {}
    with Index(tmp_path, STORAGE) as index:
        direct = index._reception._direct
        direct._reporter._on_indexed = lambda association, studies: told.update({association: len(studies)})
        receivers = [
            begun(index, instance(study), Origin("CT", "ARCHIVE", "127.0.0.1", association))
            for study, association in ((1, "one"), (2, "two"), (3, "two"))
        ]
        direct._act([receiver.finish() for receiver in receivers])
    assert {"one": 1, "two": 2} == told


def test_a_data_set_that_is_kept_aside_stays_whole_on_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = instance(StudyDescription="Other")
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance())
        keep(index, other)
        before = files(index.data / "conflicts")
        with monkeypatch.context() as patched:
            patched.setattr(os, "write", full)
            with pytest.raises(NotKept, match="No space left on device"):
                keep(index, other)
        assert before == files(index.data / "conflicts")
        assert {} == files(index.data / "incoming")


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_of_unknown_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, committed: bool
) -> None:
    """The connection ends during COMMIT: a row that is there keeps its object, another leaves nothing."""
    plain = Indexing._index

    def index_and_fail(self: Indexing, *arguments, **options) -> None:
        if committed:
            plain(self, *arguments, **options)
            for arrival in arguments[0]:
                arrival.is_indexed = False
        raise NotKept("database: the connection was closed")

    with Index(tmp_path, STORAGE) as index:
        with monkeypatch.context() as patched:
            patched.setattr(Indexing, "_index", index_and_fail)
            with pytest.raises(NotKept):
                keep(index, instance())
        assert int(committed) == len(files(index.data / "objects"))
        assert {} == files(index.data / "incoming")
        assert ("duplicate" if committed else "stored") == keep(index, instance()).outcome
        assert [] == [finding.kind for finding in index.verify(grace=0) if "object" in finding.kind]


def test_an_object_stays_where_nothing_tells_whether_it_has_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise DatabaseFault("index.sqlite: disk I/O error")

    with Index(tmp_path, STORAGE) as index:
        with monkeypatch.context() as patched:
            patched.setattr(Indexing, "_write_rows", fault)
            patched.setattr(Indexing, "known", fault)
            with pytest.raises(DatabaseFault):
                keep(index, instance())
        assert 1 == len(files(index.data / "objects"))
    with Index(tmp_path, STORAGE) as index:
        index.serve()
        assert 1 == len(index.studies())
