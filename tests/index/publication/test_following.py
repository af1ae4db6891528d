"""The files below `fhir/` follow the change feed, in every data directory on its own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import FhirSettings, Index, PublishSettings
from index.database.tables import Change
from index.publication import following as following_module
from index.publication.directory import Directory
from index.publication.feed import prune
from index.publication.following import DirectoryFollower
from index.storage.durable import temporary_of
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep

R4 = FhirSettings(versions=("r4",))


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE, fhir=R4) as index:
        yield index


@pytest.fixture
def node(index: Index, tmp_path: Path) -> DirectoryFollower:
    """Another data directory that follows the same index."""
    return follower(index, tmp_path / "other")


def follower(index: Index, data: Path) -> DirectoryFollower:
    data.mkdir(exist_ok=True)
    return DirectoryFollower(index._database, Directory(data, sync=False))


def fill(index: Index, *studies: int, number: int = 1) -> None:
    for study in studies:
        keep(index, instance(study, 1, number))
    index.publish()


def both(index: Index, other: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    return files(index.data / "fhir"), files(other / "fhir")


def equal(index: Index, other: Path) -> bool:
    mine, theirs = both(index, other)
    return bool(mine) and mine == theirs


def test_the_folder_of_another_node_is_caught_up(
    index: Index, node: DirectoryFollower, tmp_path: Path
) -> None:
    node.follow()
    fill(index, 1, 2)
    index.delete(f"{ROOT}.2")
    fill(index, 3)
    node.follow()
    assert equal(index, tmp_path / "other")
    # A new process goes on from where that one was.
    fill(index, 1, number=2)
    again = follower(index, tmp_path / "other")
    again.follow()
    assert not again.is_comparing
    assert equal(index, tmp_path / "other")


@pytest.mark.parametrize("compared", [2, 100])
def test_a_folder_that_was_down_while_the_feed_was_pruned_is_compared(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compared: int
) -> None:
    monkeypatch.setattr(following_module, "COMPARED", compared)
    other = tmp_path / "other"
    fill(index, 1, 2)
    first = follower(index, other)
    first.follow()
    first.compare_all()
    fill(index, 1, number=2)
    index.delete(f"{ROOT}.2")
    fill(index, 3)
    prune(index._database, 1)
    node = follower(index, other)
    node.follow()
    assert node.is_comparing
    # What is published meanwhile is written at once.
    fill(index, 4)
    node.follow()
    assert (other / f"fhir/r4/ImagingStudy/{ROOT}.4.json").exists()
    node.compare_all()
    assert equal(index, other)
    assert not follower_after(index, other).is_comparing


def follower_after(index: Index, data: Path) -> DirectoryFollower:
    node = follower(index, data)
    node.open()
    return node


def test_a_folder_of_another_feed_is_compared(index: Index) -> None:
    """Its position may be a number of this feed too; the time of that entry is another."""
    fill(index, 1)
    position = index.data / "fhir.position"
    number, at = position.read_text().split()
    assert not follower_after(index, index.data).is_comparing
    position.write_text(f"{number} {int(at) - 1}\n")
    assert follower_after(index, index.data).is_comparing
    position.write_text("not a position")
    assert follower_after(index, index.data).is_comparing


def test_what_a_kill_left_of_a_file_that_is_right_goes_when_files_are_compared(index: Index) -> None:
    """Two entries of one resource on two pages write it twice; the kill came in the second writing."""
    fill(index, 1)
    right = index.data / f"fhir/r4/ImagingStudy/{ROOT}.1.json"
    half, of_deleted = temporary_of(right), temporary_of(right.with_name(f"{ROOT}.2.json"))
    half.write_bytes(right.read_bytes()[:10])
    fill(index, 2)
    index.delete(f"{ROOT}.2")
    index.publish()
    of_deleted.write_bytes(b"{")
    (index.data / "fhir.position").unlink()
    node = follower(index, index.data)
    node.follow()
    node.compare_all()
    assert [] == list(index.data.glob("fhir/**/*.tmp"))
    assert right.exists()


def test_a_folder_that_was_removed_is_made_anew(index: Index) -> None:
    fill(index, 1, 2)
    expected = files(index.data / "fhir")
    shutil.rmtree(index.data / "fhir")
    with Index(index.data, STORAGE, fhir=R4) as again:
        again.publish()
    assert expected == files(index.data / "fhir")


def test_after_a_fault_between_commit_and_files_the_files_follow(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(index, 1)
    keep(index, instance(1, 1, 2))

    def fail(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as full:
        full.setattr(Directory, "write", fail)
        index.publish()
    assert 3 == len(index._database.rows(Change.select(Change.id)))
    # The process may have ended meanwhile.
    with Index(index.data, STORAGE, fhir=R4) as again:
        again.publish()
        assert [] == list(again.verify(grace=0))


def test_without_a_folder_the_index_has_the_resources(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE, fhir=R4, publish=PublishSettings(directory=False)) as index:
        fill(index, 1)
        assert not (tmp_path / "fhir").exists()
        assert index.resources.read("r4", "ImagingStudy", f"{ROOT}.1") is not None
        assert [] == list(index.verify(grace=0))
    with Index(tmp_path, STORAGE, fhir=R4) as index:
        index.publish()
        assert [] == list(index.verify(grace=0))
        assert f"r4/ImagingStudy/{ROOT}.1.json" in files(tmp_path / "fhir")
