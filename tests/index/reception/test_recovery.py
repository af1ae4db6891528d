"""What a crash leaves between filing and committing."""

import shutil
from pathlib import Path

import pytest

from index import DatabaseFault, Index, NotKept, StorageSettings
from index.reception.group_commit import GroupCommit
from support.dicom import instance
from support.filling import STORAGE, files, keep


def served(data: Path, storage: StorageSettings = STORAGE) -> Index:
    index = Index(data, storage)
    index.serve()
    return index


def objects(data: Path) -> set[str]:
    return {path for path in files(data) if path.startswith("objects")}


def crash(index: Index, monkeypatch: pytest.MonkeyPatch, **attributes: str) -> None:
    """File an object and end before its commit."""

    def end(*_: object, **__: object) -> None:
        raise DatabaseFault("crash")

    with monkeypatch.context() as patched:
        patched.setattr(GroupCommit, "submit", end)
        with pytest.raises(DatabaseFault):
            keep(index, instance(**attributes))
    index.close()


def test_what_was_filed_and_not_committed_is_indexed_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash(served(tmp_path), monkeypatch)
    before = objects(tmp_path)
    index = served(tmp_path)
    assert [1] == [study["instances"] for study in index.studies()]
    index.close()
    assert before == objects(tmp_path)


def test_what_was_filed_twice_is_there_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = served(tmp_path)
    keep(index, instance())
    before = objects(tmp_path)
    crash(index, monkeypatch)
    served(tmp_path).close()
    assert before == objects(tmp_path)


def test_an_old_object_replaces_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With duplicates = replace, a crash between commit and tidying up leaves the replaced object."""
    storage = STORAGE.model_copy(update={"duplicates": "replace"})
    index = served(tmp_path, storage)
    keep(index, instance(StudyDescription="Old"))
    with monkeypatch.context() as patched:
        patched.setattr(index._objects, "set_aside", lambda *_: None)
        keep(index, instance(StudyDescription="New"))
    index.close()
    index = served(tmp_path, storage)
    content, _ = index.resource(instance().StudyInstanceUID)
    assert b"New" in content
    index.close()
    assert 1 == len(objects(tmp_path))


def test_objects_of_rows_are_not_touched_though_the_rows_are_not_the_latest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = served(tmp_path)
    for number in range(1, 6):
        keep(index, instance(number=number))
    index.close()
    before = files(tmp_path / "objects")
    monkeypatch.setattr("index.reception.recovery._without_recent_row", lambda _, paths: list(paths))
    index = served(tmp_path)
    assert [5] == [study["instances"] for study in index.studies()]
    index.close()
    assert before == files(tmp_path / "objects")


def test_what_cannot_be_indexed_now_is_not_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash(served(tmp_path), monkeypatch)
    before = objects(tmp_path)

    def full(*_: object) -> None:
        raise NotKept("database: database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(GroupCommit, "_commit_all", full)
        served(tmp_path).close()
    assert before == objects(tmp_path)
    index = served(tmp_path)
    assert [1] == [study["instances"] for study in index.studies()]
    index.close()


def test_an_object_that_is_none_stays_and_stops_nothing(tmp_path: Path) -> None:
    index = served(tmp_path)
    keep(index, instance())
    index.close()
    (tmp_path / "objects" / "000000" / "fff.dcm").write_bytes(b"rubbish")
    index = served(tmp_path)
    assert [1] == [study["instances"] for study in index.studies()]
    index.close()
    assert b"rubbish" == files(tmp_path)["objects/000000/fff.dcm"]


@pytest.mark.parametrize("duplicates", ["keep-first", "replace"])
def test_what_was_about_to_be_set_aside_is_set_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, duplicates: str
) -> None:
    """A power cut between the row of a conflict and the move of its file; the journal has the content."""
    storage = StorageSettings(watermark=0, duplicates=duplicates)
    index = served(tmp_path / "data", storage)
    monkeypatch.setattr(index._objects, "set_aside", lambda *_: None)
    keep(index, instance(StudyDescription="One"))
    keep(index, instance(StudyDescription="Another"))
    shutil.copytree(tmp_path / "data", tmp_path / "cut")
    index.close()
    served(tmp_path / "cut", storage).close()
    with Index(tmp_path / "cut", storage) as index:
        assert [] == list(index.verify(grace=0))
    ((_, aside),) = files(tmp_path / "cut/conflicts").items()
    assert (b"Another" if duplicates == "keep-first" else b"One") in aside
    assert 1 == len(objects(tmp_path / "cut"))
