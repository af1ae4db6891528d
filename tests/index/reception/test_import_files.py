"""An import that is stopped: what has begun is ended and reported."""

from pathlib import Path

import pytest

from index import Index
from index.reception.import_files import AHEAD
from support.dicom import instance, save
from support.filling import STORAGE


def sent(folder: Path, count: int) -> Path:
    for number in range(1, count + 1):
        save(instance(number, 1, 1), folder / f"{number:03}.dcm")
    return folder


@pytest.mark.parametrize("after", [0, 1, AHEAD, 2 * AHEAD])
def test_no_file_is_begun_once_it_is_stopped(tmp_path: Path, after: int) -> None:
    folder = sent(tmp_path / "send", 3 * AHEAD)
    done: list[None] = []
    with Index(tmp_path / "data", STORAGE) as index:
        report = index.import_files([folder], lambda: done.append(None), lambda: len(done) >= after)
        assert report.interrupted
        stored = report.outcomes["stored"]
        assert after <= stored <= after + AHEAD
        assert [stored, []] == [len(index.studies()), report.failed]
        again = index.import_files([folder]).outcomes
        assert (3 * AHEAD - stored, stored) == (again["stored"], again["duplicate"])


def test_one_that_is_stopped_at_its_very_end_was_not_interrupted(tmp_path: Path) -> None:
    folder = sent(tmp_path / "send", 3)
    done: list[None] = []
    with Index(tmp_path / "data", STORAGE) as index:
        report = index.import_files([folder], lambda: done.append(None), lambda: len(done) >= 3)
        assert (3, False) == (report.outcomes["stored"], report.interrupted)
