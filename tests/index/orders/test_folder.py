"""Worklist files that cannot be read for a while: a fault of a disk or of the network, or missing rights."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from structlog.testing import capture_logs

from index import Index
from index.orders import folder as followed
from index.orders.dicom import BadItem
from index.orders.folder import WorklistFolder
from support.filling import STORAGE
from support.worklist import item, selected, write


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE) as index:
        yield index


@pytest.fixture
def follower(index: Index, tmp_path: Path) -> WorklistFolder:
    for number in (1, 2):
        write(item(number), tmp_path / "wl" / f"{number}.wl")
    return WorklistFolder(index.orders.store, tmp_path / "wl", 1.0)


def accessions(index: Index) -> list[str]:
    return sorted(one.attributes["AccessionNumber"] for one in selected(index))


def failing(name: str, *errors: Exception) -> tuple[Callable[[Path], Dataset], list[str]]:
    """Return a function that reads files and first fails for one of them, and the files that it has read."""
    read_file, left, read = followed.read_file, list(errors), []

    def read_or_fail(path: Path) -> Dataset:
        read.append(path.name)
        if path.name == name and left:
            raise left.pop(0)
        return read_file(path)

    return read_or_fail, read


def os_error(number: int, name: str = "1.wl") -> OSError:
    return OSError(number, errno.errorcode[number], name)


@pytest.mark.parametrize(
    "number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ETIMEDOUT, errno.ENOENT]
)
def test_a_file_that_cannot_be_read_now_is_tried_again(
    index: Index, follower: WorklistFolder, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    read_file, read = failing("1.wl", os_error(number), os_error(number))
    monkeypatch.setattr(followed, "read_file", read_file)
    with capture_logs() as logs:
        for expected in (["A2"], ["A2"], ["A1", "A2"], ["A1", "A2"]):
            follower.update()
            assert expected == accessions(index)
    assert ["1.wl", "2.wl", "1.wl", "1.wl"] == read
    passed_over = [one for one in logs if one["event"] == "worklist_file_passed_over"]
    # A file that is gone (ENOENT) is no fault; others are logged once while the reason is the same.
    assert len(passed_over) == (0 if number == errno.ENOENT else 1)


def test_another_reason_is_logged(follower: WorklistFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = [os_error(number) for number in (errno.EIO, errno.EIO, errno.ESTALE, errno.EIO)]
    monkeypatch.setattr(followed, "read_file", failing("1.wl", *errors)[0])
    with capture_logs() as logs:
        for _ in range(5):
            follower.update()
    reasons = [one["reason"] for one in logs if one["event"] == "worklist_file_passed_over"]
    assert [str(errors[number]) for number in (0, 2, 3)] == reasons


def test_an_order_whose_file_cannot_be_read_again_stays(
    index: Index, follower: WorklistFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower.update()
    write(item(1, AccessionNumber="A1-changed"), tmp_path / "wl/1.wl")
    monkeypatch.setattr(followed, "read_file", failing("1.wl", os_error(errno.EIO))[0])
    follower.update()
    assert ["A1", "A2"] == accessions(index)
    follower.update()
    assert ["A1-changed", "A2"] == accessions(index)


def test_a_file_that_is_not_a_worklist_item_is_read_once(
    index: Index, follower: WorklistFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_file, read = failing("1.wl", os_error(errno.EIO), BadItem("is bad"))
    monkeypatch.setattr(followed, "read_file", read_file)
    for _ in range(4):
        follower.update()
    assert (["1.wl", "2.wl", "1.wl"], ["A2"]) == (read, accessions(index))
