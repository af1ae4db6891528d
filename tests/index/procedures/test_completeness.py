"""Which studies are not complete by what their performed steps say, also where nothing of them has come."""

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from index import BadStepValue, Index
from support.daemon import cli
from support.dicom import ROOT, instance
from support.filling import STORAGE, keep
from support.modality import begun, ended

NOTHING = "1.2.826.0.1.55.1"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE) as index:
        yield index


def step(index: Index, study_uid: str, made: list[str], number: int = 1, **changes: object) -> None:
    uid = f"1.2.826.0.1.55.9.{number}"
    index.procedures.create(uid, "CT1", begun(study_uid=study_uid, **changes))
    if made:
        index.procedures.update(uid, ended("COMPLETED", f"{study_uid}.1", made))


def requested(study_uid: str, accession: str) -> list[Dataset]:
    made = Dataset()
    made.StudyInstanceUID, made.AccessionNumber = study_uid, accession
    return [made]


@pytest.mark.sqlite
def test_a_study_of_which_nothing_arrived_is_named(index: Index, tmp_path: Path) -> None:
    step(
        index,
        NOTHING,
        ["1.2.3.1", "1.2.3.2"],
        PatientID="P9",
        ScheduledStepAttributesSequence=requested(NOTHING, "A9"),
    )
    step(index, "1.2.826.0.1.55.2", [], 2)
    keep(index, instance(1))
    index.publish()
    index.close()
    found = json.loads(cli("studies", "--incomplete", "--json", "--data", str(tmp_path / "data")).stdout)
    expected = {
        "uid": NOTHING,
        "patient_id": "P9",
        "accession": "A9",
        "modalities": ["CT"],
        "series": 0,
        "instances": 0,
        "started": "2026-01-02",
        "in_progress": 0,
        "missing": ["1.2.3.1", "1.2.3.2"],
    }
    assert expected == found[0]
    assert [("1.2.826.0.1.55.2", 1, [])] == [(o["uid"], o["in_progress"], o["missing"]) for o in found[1:]]
    shown = cli("studies", "--incomplete", "--data", str(tmp_path / "data"))
    assert (0, True) == (shown.returncode, NOTHING in shown.stdout)
    both = cli("studies", "--incomplete", "--unmatched", "--json", "--data", str(tmp_path / "data"))
    assert (0, []) == (both.returncode, json.loads(both.stdout))


def test_a_study_that_was_deleted_is_not_missed(index: Index) -> None:
    uid = f"{ROOT}.1"
    keep(index, instance(1))
    step(index, uid, [str(instance(1).SOPInstanceUID)])
    assert [] == index.procedures.incomplete()
    index.delete(uid)
    assert [] == index.procedures.incomplete()
    deleted = index.procedures.completeness(uid)
    assert (1, (str(instance(1).SOPInstanceUID),)) == (deleted.expected, deleted.missing)


def test_what_arrives_later_completes_it(index: Index) -> None:
    uid = f"{ROOT}.1"
    step(index, uid, [str(instance(1).SOPInstanceUID)])
    assert [uid] == [one.uid for one in index.procedures.incomplete()]
    assert [uid] == [one["uid"] for one in index.announced()]
    keep(index, instance(1))
    index.publish()
    assert ([], []) == (index.procedures.incomplete(), index.announced())


def test_a_step_that_is_cut_off_is_refused(index: Index) -> None:
    """Half of what a step made would be all of it, and half a UID another instance's."""
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, True
    write_dataset(stream, ended("COMPLETED", "1.2.3", ["1.2.3.1", "1.2.3.2"]))
    index.procedures.create("1.2.826.0.1.55.9.1", "CT1", begun(study_uid="1.2.3"))
    told = dcmread(BytesIO(stream.getvalue()[:-10]), force=True)
    with pytest.raises(BadStepValue, match="ends within its value"):
        index.procedures.update("1.2.826.0.1.55.9.1", told)


@pytest.mark.parametrize("implicit", [True, False])
def test_a_step_whose_items_are_cut_off_is_refused(index: Index, *, implicit: bool) -> None:
    """A UID that ends before its length, within items whose own lengths are right."""

    def read(dataset: Dataset, uid: bytes) -> Dataset:
        stream = DicomBytesIO()
        stream.is_little_endian, stream.is_implicit_VR = True, implicit
        write_dataset(stream, dataset)
        content = stream.getvalue()
        at = content.index(uid) - (4 if implicit else 2)
        return read_dataset(
            BytesIO(content[:at] + b"\x1e" + content[at + 1 :]), implicit, is_little_endian=True
        )

    with pytest.raises(BadStepValue, match="StudyInstanceUID ends within its value"):
        index.procedures.create("1.2.3.9", "CT1", read(begun(study_uid="1.2.3.45"), b"1.2.3.45"))
    index.procedures.create("1.2.3.9", "CT1", begun(study_uid="1.2.3.45"))
    with pytest.raises(BadStepValue, match="ReferencedSOPInstanceUID ends within its value"):
        index.procedures.update("1.2.3.9", read(ended("COMPLETED", "1.2.3", ["1.2.3.67"]), b"1.2.3.67"))
    assert 0 == index.procedures.completeness("1.2.3.45").expected
