"""What a retrieval finds, and how its keys are read (PS3.4 Sections C.4.2.1.4 and C.6)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

from index import BadIdentifier, Index, NotFound, RetrieveKeys, Unreadable
from index.orders.patients.merges import Merge, Patients, PatientUpdate
from index.query import retrieval
from index.query.retrieval import PAGE
from index.query.retrieve_keys import read_retrieve_keys
from support.archive import identifier
from support.dicom import ROOT, encoded, instance
from support.filling import keep, receive, served

MR = "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Index]:
    """Two studies of one patient, and one of another: 2 series with 2 instances, 1 with 1, 1 with 1."""
    index = served(tmp_path)
    for study, series, number in ((1, 1, 1), (1, 1, 2), (1, 2, 1), (1, 2, 2), (2, 1, 1), (3, 1, 1)):
        patient = "P3" if study == 3 else "P1"
        receive(index, instance(study, series, number, PatientID=patient))
    yield index
    index.close()


def found(index: Index, wanted: Dataset, *, patient_root: bool = True) -> set[str]:
    selection = index.retrieval.select(wanted, patient_root=patient_root)
    uids = [one.uid.removeprefix(f"{ROOT}.") for one in selection.instances()]
    assert len(uids) == len(set(uids)) == selection.total
    return set(uids)


FIRST = {"1.1.1", "1.1.2", "1.2.1", "1.2.2"}


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (identifier("PATIENT", PatientID="P1"), {*FIRST, "2.1.1"}),
        (identifier("PATIENT", PatientID="P9"), set()),
        (identifier("PATIENT", PatientID="*"), set()),  # no wildcards: not the whole archive
        (identifier("STUDY", PatientID="P1", StudyInstanceUID=f"{ROOT}.1"), FIRST),
        (identifier("STUDY", StudyInstanceUID=f"{ROOT}.1"), FIRST),
        (identifier("STUDY", PatientID="P3", StudyInstanceUID=f"{ROOT}.1"), set()),
        (identifier("STUDY", PatientID="P1", StudyInstanceUID=[f"{ROOT}.1", f"{ROOT}.2"]), {*FIRST, "2.1.1"}),
        (
            identifier("SERIES", StudyInstanceUID=f"{ROOT}.1", SeriesInstanceUID=f"{ROOT}.1.2"),
            {"1.2.1", "1.2.2"},
        ),
        (identifier("SERIES", SeriesInstanceUID=[f"{ROOT}.1.2", f"{ROOT}.3.1"]), {"1.2.1", "1.2.2", "3.1.1"}),
        (identifier("SERIES", StudyInstanceUID=f"{ROOT}.2", SeriesInstanceUID=f"{ROOT}.1.2"), set()),
        (identifier("IMAGE", SOPInstanceUID=f"{ROOT}.1.1.2"), {"1.1.2"}),
        (
            identifier("IMAGE", SOPInstanceUID=[f"{ROOT}.1.1.2", f"{ROOT}.3.1.1", "9.9"]),
            {"1.1.2", "3.1.1"},
        ),
        (
            identifier(
                "IMAGE",
                PatientID="P1",
                StudyInstanceUID=f"{ROOT}.1",
                SeriesInstanceUID=f"{ROOT}.1.1",
                SOPInstanceUID=[f"{ROOT}.1.1.2", f"{ROOT}.1.2.1"],
            ),
            {"1.1.2"},
        ),
        # Attributes that are no unique keys are not matched (PS3.4 Section C.4.2.1.4).
        (identifier("IMAGE", SOPInstanceUID=f"{ROOT}.1.1.2", Modality="MR", PatientName="X"), {"1.1.2"}),
    ],
)
def test_the_keys_select(filled: Index, wanted: Dataset, expected: set[str]) -> None:
    assert expected == found(filled, wanted)


def test_in_the_study_root_the_patient_is_not_a_unique_key(filled: Index) -> None:
    wanted = identifier("STUDY", PatientID="P9", StudyInstanceUID=f"{ROOT}.1")
    assert FIRST == found(filled, wanted, patient_root=False)


def test_what_was_acknowledged_is_found_at_once(tmp_path: Path) -> None:
    with served(tmp_path) as index:
        for number in range(1, 30):
            receive(index, instance(number=number))
            assert number == index.retrieval.find(RetrieveKeys(studies=(f"{ROOT}.1",))).total


def test_patients_with_the_same_id_are_told_apart_by_the_issuer(tmp_path: Path) -> None:
    with served(tmp_path) as index:
        keep(index, instance(1, PatientID="P", IssuerOfPatientID="A"))
        keep(index, instance(2, PatientID="P", IssuerOfPatientID="B"))
        assert {"1.1.1"} == found(index, identifier("PATIENT", PatientID="P", IssuerOfPatientID="A"))
        assert {"1.1.1", "2.1.1"} == found(index, identifier("PATIENT", PatientID="P"))


def test_a_merged_patient_is_found_by_both_ids(tmp_path: Path) -> None:
    with served(tmp_path) as index:
        keep(index, instance(1, PatientID="OLD"))
        keep(index, instance(2, PatientID="OTHER"))
        survivor = PatientUpdate([{"PatientID": "NEW"}], {})
        Patients(index._database).merge_all([Merge([{"PatientID": "OLD"}], survivor)])
        for number in ("OLD", "NEW"):
            assert {"1.1.1"} == found(index, identifier("PATIENT", PatientID=number))
            wanted = identifier("STUDY", PatientID=number, StudyInstanceUID=f"{ROOT}.1")
            assert {"1.1.1"} == found(index, wanted)


def test_pages_and_kinds(tmp_path: Path) -> None:
    with served(tmp_path) as index:
        for number in range(PAGE + 2):
            receive(index, instance(number=number, **({"SOPClassUID": MR} if number % 2 else {})))
        selection = index.retrieval.find(RetrieveKeys(studies=(f"{ROOT}.1",)))
        receive(index, instance(number=PAGE + 3))
        assert index.catch_up(60)
        assert [f"{ROOT}.1.1.{n}" for n in range(PAGE + 2)] == [one.uid for one in selection.instances()]
        assert (PAGE + 2) // 2 == len(list(selection.instances({MR})))
        assert 2 == len(selection.kinds)
        assert PAGE + 2 == selection.total


def test_many_uids_in_one_list(tmp_path: Path) -> None:
    with served(tmp_path) as index:
        keep(index, instance(number=5))
        uids = [f"{ROOT}.1.1.{number}" for number in range(10_000)]
        assert {"1.1.5"} == found(index, identifier("IMAGE", SOPInstanceUID=uids))
        assert {"1.1.5"} == found(
            index, identifier("IMAGE", StudyInstanceUID=f"{ROOT}.1", SOPInstanceUID=uids)
        )
        assert {"1.1.5"} == found(index, identifier("STUDY", StudyInstanceUID=[f"{ROOT}.1", *uids]))


def test_by_a_uid_of_any_level(filled: Index) -> None:
    find = filled.retrieval.find_uid
    assert [4, 2, 1] == [find(f"{ROOT}.{uid}").total for uid in ("1", "1.2", "1.2.1")]
    with pytest.raises(NotFound, match=r"9\.9 is no study, series or instance"):
        find("9.9")


def test_the_data_set_is_as_stored(tmp_path: Path) -> None:
    with served(tmp_path) as index:
        keep(index, instance())
        (stored,) = index.retrieval.find_uid(f"{ROOT}.1").instances()
        with index.retrieval.open(stored) as file:
            assert encoded(instance()) == file.read()
            halves = memoryview(bytearray(10)), memoryview(bytearray(6))
            file.read_into(halves, 4)
            assert encoded(instance())[4:20] == b"".join(halves)


def test_a_damaged_or_missing_object_is_not_sent(tmp_path: Path) -> None:
    with served(tmp_path) as index:
        keep(index, instance())
        (stored,) = index.retrieval.find_uid(f"{ROOT}.1").instances()
        path = tmp_path / stored.path
        content = path.read_bytes()
        path.write_bytes(content[:-2])
        with pytest.raises(Unreadable, match="damaged"):
            index.retrieval.open(stored)
        path.unlink()
        with pytest.raises(NotFound, match="missing"):
            index.retrieval.open(stored)
        index.delete(f"{ROOT}.1")
        with pytest.raises(NotFound, match="deleted"):
            index.retrieval.open(stored)


def wrong(keyword: str, vr: str, value: object) -> Dataset:
    made = identifier("STUDY", StudyInstanceUID="1.2")
    made[keyword] = DataElement(keyword, vr, value)
    return made


@pytest.mark.parametrize(
    ("bad", "keyword"),
    [
        (Dataset(), "QueryRetrieveLevel"),
        (identifier("FRAME"), "QueryRetrieveLevel"),
        (identifier(["STUDY", "SERIES"]), "QueryRetrieveLevel"),
        (identifier("PATIENT"), "PatientID"),
        (identifier("PATIENT", PatientID=["A", "B"]), "PatientID"),
        (identifier("PATIENT", PatientID="A", StudyInstanceUID="1.2"), "StudyInstanceUID"),
        (identifier("STUDY"), "StudyInstanceUID"),
        (identifier("STUDY", StudyInstanceUID=""), "StudyInstanceUID"),
        (identifier("STUDY", StudyInstanceUID="1.2.*"), "StudyInstanceUID"),
        (identifier("STUDY", StudyInstanceUID="1" * 65), "StudyInstanceUID"),
        (identifier("STUDY", StudyInstanceUID="1.2", SeriesInstanceUID="1.3"), "SeriesInstanceUID"),
        (identifier("SERIES", StudyInstanceUID=["1.2", "1.3"], SeriesInstanceUID="1.3"), "StudyInstanceUID"),
        (wrong("StudyInstanceUID", "SQ", [Dataset()]), "StudyInstanceUID"),
        (wrong("StudyInstanceUID", "UL", 7), "StudyInstanceUID"),
        (wrong("StudyInstanceUID", "OB", b"1.2\0"), "StudyInstanceUID"),
    ],
)
def test_a_bad_identifier_is_refused(bad: Dataset, keyword: str) -> None:
    with pytest.raises(BadIdentifier) as raised:
        read_retrieve_keys(bad, patient_root=True)
    assert keyword == raised.value.keyword


def test_the_patient_level_is_not_in_the_study_root() -> None:
    with pytest.raises(BadIdentifier, match="allowed are STUDY, SERIES, IMAGE"):
        read_retrieve_keys(identifier("PATIENT", PatientID="A"), patient_root=False)


def test_what_comes_in_goes_first(filled: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is sent pauses as long as it took, within bounds; not where nothing comes."""
    paused: list[float] = []
    monkeypatch.setattr(retrieval, "RECEIVING_SECONDS", 3600)
    monkeypatch.setattr(retrieval.time, "sleep", paused.append)
    filled.retrieval.give_way(0.01)
    filled.retrieval.give_way(60)
    assert [0.01, retrieval.LONGEST_PAUSE] == paused
    monkeypatch.setattr(retrieval, "RECEIVING_SECONDS", 0)
    filled.retrieval.give_way(0.01)
    assert 2 == len(paused)
