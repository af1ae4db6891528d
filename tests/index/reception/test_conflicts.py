"""A study of which every data set has the SOP Instance UID of another one is named, not only logged."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from index import Finding, Index, NotFound, Outcome
from support.daemon import cli
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep

FIRST, LOST = f"{ROOT}.1", f"{ROOT}.2"


def copy(number: int, **changes: Any) -> Dataset:
    """An instance of another study and patient under the SOP Instance UID of one of the first study."""
    return instance(2, 1, number, SOPInstanceUID=f"{FIRST}.1.{number}", **changes)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE) as index:
        for number in (1, 2):
            keep(index, instance(1, 1, number))
            assert Outcome.CONFLICT is keep(index, copy(number)).outcome
        index.publish()
        yield index


def verify(index: Index, *, repair: bool = False) -> list[Finding]:
    return list(index.verify(grace=0, repair=repair))


def aside(index: Index) -> list[str]:
    return sorted(f"conflicts/{name}" for name in files(index.data / "conflicts"))


def test_studies_tells_what_its_first_data_set_says(index: Index) -> None:
    assert [FIRST] == [one["uid"] for one in index.studies()]
    assert [
        {
            "uid": LOST,
            "patient_id": "P2",
            "accession": "A2",
            "modalities": ("CT",),
            "series": 0,
            "instances": 0,
            "started": "2026-01-02",
            "conflicts": 2,
        }
    ] == index.studies_in_conflict()


def test_a_file_that_cannot_be_read_is_named_all_the_same(index: Index) -> None:
    for path in aside(index):
        (index.data / path).unlink()
    (found,) = index.studies_in_conflict()
    assert (LOST, None, 2) == (found["uid"], found["patient_id"], found["conflicts"])


def test_verify_names_it_and_its_files(index: Index) -> None:
    (found,) = verify(index)
    assert ("study-in-conflict", LOST, False) == (found.kind, found.what, found.mended)
    assert all(path in found.detail for path in aside(index))
    assert f"study {FIRST}" in found.detail
    assert found == verify(index, repair=True)[0]


def test_show_says_why_there_is_no_resource(index: Index) -> None:
    with pytest.raises(
        NotFound, match="is not in the index; it has no other data sets than 2 in conflict"
    ) as said:
        index.resource(LOST)
    assert all(path in str(said.value) for path in aside(index))


def test_one_data_set_of_its_own_is_enough(index: Index) -> None:
    keep(index, instance(2, 1, 9))
    index.publish()
    assert ([], []) == (index.studies_in_conflict(), verify(index))
    assert 2 == len(index.kept_aside(LOST))


def test_the_study_that_lost_its_place_by_replacement(tmp_path: Path) -> None:
    with Index(tmp_path / "data", STORAGE.model_copy(update={"duplicates": "replace"})) as index:
        keep(index, instance(1, 1, 1))
        assert Outcome.REPLACED is keep(index, copy(1)).outcome
        index.publish()
        assert [(FIRST, 1)] == [(one["uid"], one["conflicts"]) for one in index.studies_in_conflict()]
        assert [("study-in-conflict", FIRST)] == [(one.kind, one.what) for one in verify(index)]


def test_it_can_be_deleted(index: Index) -> None:
    assert 2 == index.delete(LOST).conflicts
    assert ([], [], []) == (index.studies_in_conflict(), verify(index), aside(index))
    assert [FIRST] == [one["uid"] for one in index.studies()]


def test_it_takes_the_place_of_the_other_one(index: Index) -> None:
    """What `verify` advises."""
    index.delete(FIRST)
    report = index.import_files([index.data / path for path in aside(index)])
    index.publish()
    assert {Outcome.STORED: 2} == report.outcomes
    assert [(LOST, 2)] == [(one["uid"], one["instances"]) for one in index.studies()]
    assert ([], [], []) == (index.studies_in_conflict(), index.kept_aside(LOST), verify(index))


@pytest.mark.sqlite
def test_the_command_line(index: Index) -> None:
    where = ("--data", str(index.data))
    listed = cli("studies", "--json", *where)
    assert [(FIRST, None), (LOST, 2)] == [
        (one["uid"], one.get("conflicts")) for one in json.loads(listed.stdout)
    ]
    table = cli("studies", *where)
    assert LOST in table.stdout
    assert f"study {LOST} has only data sets in conflict, 2" in table.stderr
    shown = cli("show", LOST, *where)
    assert (1, "") == (shown.returncode, shown.stdout)
    assert all(path in shown.stderr for path in aside(index))
    verified = cli("verify", "--grace", "0", *where)
    assert 1 == verified.returncode
    assert f"FAULT study-in-conflict {LOST}" in verified.stdout
    keep(index, instance(2, 1, 9))
    index.publish()
    assert "kept aside: conflicts/" in cli("show", LOST, *where).stderr
