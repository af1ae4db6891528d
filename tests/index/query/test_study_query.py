"""Queries for patients, studies, series and instances in the index (PS3.4 Annex C), without a network."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence

from index import BadIdentifier, Index
from index.database.instance_rows import identity_key
from index.database.tables import Patient
from index.query import study_query
from index.query.information_models import KEYS, Level
from support.dicom import ROOT, encoded, instance
from support.filling import STORAGE, keep
from support.query import ask, identifier
from support.worklist import item, write

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"

# Study 1 has two series of two modalities; 2 is of the same patient.
INSTANCES = [
    instance(1, 1, 1, PatientName="Doe^Jane", PatientBirthDate="19700101", PatientSex="F"),
    instance(1, 1, 2, PatientName="Doe^Jane", PatientBirthDate="19700101", PatientSex="F"),
    instance(
        1, 2, 1, PatientName="Doe^Jane", PatientBirthDate="19700101", PatientSex="F", Modality="MR",
        SOPClassUID=MR_IMAGE_STORAGE, SeriesDescription="T1 axial", BodyPartExamined="HEAD",
    ),
    instance(
        2, 1, 1, PatientID="P1", PatientName="Doe^Jane", PatientBirthDate="19700101", PatientSex="F",
        StudyDate="20260105", StudyTime="0815", StudyDescription="Knee 50%_",
    ),
    instance(3, 1, 1, SpecificCharacterSet="ISO_IR 192", PatientName="Müller^Hänsel", StudyDate="20260110",
             StudyTime="235959", ReferringPhysicianName="Straße^Öde"),
    instance(4, 1, 1, SpecificCharacterSet="ISO_IR 192", StudyDate="20251231", StudyTime="120000",
             PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう"),
    instance(5, 1, 1, PatientName="O'Neil ^Ann^Mary", AccessionNumber=None, StudyDate=None, StudyTime=None,
             TimezoneOffsetFromUTC="+0100", StudyID="A LONG STUDY ID 5"),
    instance(6, 1, 1, PatientID="", PatientName="Nobody", StudyDate="20260111"),
]  # fmt: skip


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with Index(tmp_path_factory.mktemp("query"), STORAGE) as made:
        for one in INSTANCES:
            keep(made, one)
        yield made


OPTIONS = ("relational", "combined_times", "ignore_accents")


def studies(index: Index, **keys: Any) -> list[int]:
    options = {name: keys.pop(name) for name in OPTIONS if name in keys}
    _, answers = ask(index, identifier("STUDY", **{"StudyInstanceUID": None, **keys}), **options)
    return sorted(int(answer.StudyInstanceUID.rpartition(".")[2]) for answer in answers)


EVERY = [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("keys", "matches"),
    [
        ({}, EVERY),
        ({"PatientName": "*"}, EVERY),
        ({"PatientID": "P1"}, [1, 2]),
        ({"PatientID": "p1"}, []),
        ({"PatientID": "P?"}, [1, 2, 3, 4, 5]),
        ({"PatientID": "*1"}, [1, 2]),
        ({"PatientName": "DOE^JANE"}, [1, 2]),
        ({"PatientName": "doe*"}, [1, 2]),
        ({"PatientName": "*ane"}, [1, 2]),
        ({"PatientName": "D?e^J*"}, [1, 2]),
        ({"PatientName": "MÜLLER*"}, [3]),
        ({"PatientName": "Muller*"}, []),
        ({"PatientName": "山田*"}, [4]),
        ({"PatientName": "yamada^tarou"}, [4]),
        ({"PatientName": "=山田^太郎"}, [4]),
        ({"PatientName": "o'neil^ann*"}, [5]),
        ({"ReferringPhysicianName": "STRASSE*"}, [3]),
        ({"AccessionNumber": "A3"}, [3]),
        ({"AccessionNumber": "A*"}, [1, 2, 3, 4, 6]),
        ({"AccessionNumber": ["A1", "A4"]}, [1, 4]),
        ({"StudyDate": "20260102"}, [1]),
        ({"StudyDate": "20260102-20260110"}, [1, 2, 3]),
        ({"StudyDate": "-20260102"}, [1, 4]),
        ({"StudyDate": "20260110-"}, [3, 6]),
        ({"StudyDate": "2026.01.02"}, [1]),
        ({"StudyTime": "1200-"}, [3, 4]),
        ({"StudyTime": "081500"}, [2]),
        ({"StudyDate": "20260102-20260110", "StudyTime": "1200-"}, [3]),
        ({"StudyDescription": "Knee*"}, [2]),
        ({"StudyDescription": "*50%_"}, [2]),
        ({"StudyDescription": "knee*"}, []),
        ({"StudyID": "A LONG STUDY ID 5"}, [5]),
        ({"ModalitiesInStudy": "MR"}, [1]),
        ({"ModalitiesInStudy": ["MR", "CT"]}, EVERY),
        ({"ModalitiesInStudy": "M*"}, [1]),
        ({"ModalitiesInStudy": "US"}, []),
        ({"SOPClassesInStudy": MR_IMAGE_STORAGE}, [1]),
        ({"NumberOfStudyRelatedInstances": "3"}, [1]),
        ({"NumberOfStudyRelatedSeries": "2"}, [1]),
        ({"PatientBirthDate": "19700101"}, [1, 2]),
        ({"PatientBirthDate": "19600101-19751231"}, [1, 2]),
        ({"PatientSex": "F", "StudyDate": "20260105"}, [2]),
        ({"StudyInstanceUID": [f"{ROOT}.1", f"{ROOT}.4", "1.2.3"]}, [1, 4]),
        ({"StudyInstanceUID": f"{ROOT}.1", "PatientID": "P2"}, []),
        ({"TimezoneOffsetFromUTC": "+0900"}, EVERY),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_matches_of_studies(index: Index, keys: dict[str, Any], matches: list[int]) -> None:
    assert matches == studies(index, **keys)


def test_names_without_accents(index: Index) -> None:
    assert [3] == studies(index, ignore_accents=True, PatientName="muller^HANSEL")


def test_date_and_time_as_one_period(index: Index) -> None:
    """PS3.4 Section C.2.2.2.5.3, where it is negotiated."""
    period = {"StudyDate": "20260102-20260110", "StudyTime": "1200-0900"}
    assert [2] == studies(index, combined_times=True, **period)


def test_all_that_is_asked_for_of_a_study(index: Index) -> None:
    asked = dict.fromkeys(
        (
            "PatientName", "PatientBirthDate", "PatientSex", "ModalitiesInStudy", "SOPClassesInStudy",
            "NumberOfStudyRelatedSeries", "NumberOfStudyRelatedInstances", "NumberOfPatientRelatedStudies",
            "NumberOfPatientRelatedSeries", "NumberOfPatientRelatedInstances", "InstanceAvailability",
            "StudyDescription", "RetrieveAETitle", "StudyID",
        )
    )  # fmt: skip
    query, (answer,) = ask(index, identifier("STUDY", StudyInstanceUID=f"{ROOT}.1", **asked))
    assert () == query.unsupported
    expected = {
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19700101",
        "PatientSex": "F",
        "ModalitiesInStudy": ["CT", "MR"],
        "SOPClassesInStudy": ["1.2.840.10008.5.1.4.1.1.2", MR_IMAGE_STORAGE],
        "StudyID": None,
        "NumberOfStudyRelatedSeries": 2,
        "NumberOfStudyRelatedInstances": 3,
        "NumberOfPatientRelatedStudies": 2,
        "NumberOfPatientRelatedSeries": 3,
        "NumberOfPatientRelatedInstances": 4,
        "InstanceAvailability": "ONLINE",
        "StudyDescription": "Head",
        "RetrieveAETitle": "US",
        "QueryRetrieveLevel": "STUDY",
        "StudyInstanceUID": f"{ROOT}.1",
    }
    assert expected == {element.keyword: element.value or None for element in answer}


def test_series_and_instances(index: Index) -> None:
    asked = identifier(
        "SERIES", StudyInstanceUID=f"{ROOT}.1", SeriesInstanceUID=None, Modality="MR", SeriesDescription=None,
        BodyPartExamined=None, NumberOfSeriesRelatedInstances=None, PatientID=None,
    )  # fmt: skip
    _, (series,) = ask(index, asked)
    assert [f"{ROOT}.1.2", "T1 axial", "HEAD", 1, "P1"] == [
        series.SeriesInstanceUID,
        series.SeriesDescription,
        series.BodyPartExamined,
        series.NumberOfSeriesRelatedInstances,
        series.PatientID,
    ]
    above = {"StudyInstanceUID": f"{ROOT}.1", "SeriesInstanceUID": f"{ROOT}.1.1"}
    _, images = ask(index, identifier("IMAGE", **above, SOPInstanceUID=None, SOPClassUID=None))
    assert [f"{ROOT}.1.1.1", f"{ROOT}.1.1.2"] == [image.SOPInstanceUID for image in images]
    _, images = ask(index, identifier("IMAGE", **above, SOPInstanceUID=None, InstanceNumber="2"))
    assert [f"{ROOT}.1.1.2"] == [image.SOPInstanceUID for image in images]


def test_patients(index: Index) -> None:
    asked = identifier("PATIENT", PatientID=None, PatientName=None, NumberOfPatientRelatedInstances=None)
    _, patients = ask(index, asked, patient_root=True)
    assert {"P1": 4, "P3": 1, "P4": 1, "P5": 1, None: 1} == {
        patient.PatientID or None: int(patient.NumberOfPatientRelatedInstances) for patient in patients
    }
    _, patients = ask(index, identifier("PATIENT", PatientID=None, PatientName="DOE*"), patient_root=True)
    assert ["P1"] == [patient.PatientID for patient in patients]
    of_patient = identifier("STUDY", PatientID="P1", StudyInstanceUID=None)
    _, answers = ask(index, of_patient, patient_root=True)
    assert [f"{ROOT}.2", f"{ROOT}.1"] == [answer.StudyInstanceUID for answer in answers]


def test_relational_queries(index: Index) -> None:
    """PS3.4 Section C.4.1.2.2.1: any combination of keys, at any level; one answer for each entity."""
    assert [1] == studies(index, relational=True, SOPInstanceUID=f"{ROOT}.1.1.2")
    assert [1] == studies(index, relational=True, Modality="MR")
    assert [] == studies(index, relational=True, Modality="MR", SOPInstanceUID=f"{ROOT}.1.1.2")
    _, images = ask(index, identifier("IMAGE", PatientID="P1", SOPInstanceUID=None), relational=True)
    assert 4 == len(images)
    _, (patient,) = ask(
        index, identifier("PATIENT", PatientID=None, SeriesInstanceUID=f"{ROOT}.3.1"), relational=True,
        patient_root=True,
    )  # fmt: skip
    assert ("P3", None) == (patient.PatientID, patient.SeriesInstanceUID)


def test_keys_that_are_not_supported_are_answered_empty(index: Index) -> None:
    asked = identifier("STUDY", StudyInstanceUID=f"{ROOT}.1", SeriesNumber=None, PatientComments="x")
    asked.ReferencedStudySequence = [Dataset()]
    asked.add_new(0x00091001, "LO", "private")
    asked.SmallestImagePixelValue = 0  # US or SS
    query, (answer,) = ask(index, asked)
    names = {
        "SeriesNumber",
        "PatientComments",
        "ReferencedStudySequence",
        "(0009,1001)",
        "SmallestImagePixelValue",
    }
    assert names == set(query.unsupported)
    assert [True] * 5 == [
        not answer[tag].value
        for tag in (0x00200011, 0x00104000, 0x00081110, 0x00091001, 0x00280106)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "keyword"),
    [
        (identifier(None, StudyInstanceUID=None), "QueryRetrieveLevel"),
        (identifier("PATIENT", PatientID=None), "QueryRetrieveLevel"),
        (identifier("FRAME", SOPInstanceUID=None), "QueryRetrieveLevel"),
        (identifier("SERIES", SeriesInstanceUID=None), "StudyInstanceUID"),
        (identifier("SERIES", StudyInstanceUID=["1.2", "1.3"]), "StudyInstanceUID"),
        (identifier("IMAGE", StudyInstanceUID="1.2"), "SeriesInstanceUID"),
        (identifier("STUDY", StudyTime="noon"), "StudyTime"),
    ],
)
def test_bad_identifiers(index: Index, asked: Dataset, keyword: str) -> None:
    with pytest.raises(BadIdentifier) as raised:
        ask(index, asked)
    assert keyword == raised.value.keyword


@pytest.mark.parametrize("given", ["*", "P1\\P2", "", "P?"])
def test_one_patient_id_is_needed_in_patient_root(index: Index, given: str) -> None:
    with pytest.raises(BadIdentifier, match="PatientID: level STUDY needs one value"):
        ask(index, identifier("STUDY", PatientID=given, StudyInstanceUID=None), patient_root=True)


@pytest.mark.parametrize("keyword", ["PatientName", "StudyDate", "StudyInstanceUID", "QueryRetrieveLevel"])
def test_a_sequence_where_a_value_should_be(index: Index, keyword: str) -> None:
    asked = identifier("STUDY", StudyInstanceUID=None)
    item = Dataset()
    item.PatientID = "P1"
    asked.add_new(keyword, "SQ", Sequence([item]))
    with pytest.raises(BadIdentifier, match=keyword):
        ask(index, asked)


def test_ten_thousand_uids(index: Index) -> None:
    uids = [f"{ROOT}.77.{number}" for number in range(10_000)]
    assert [1, 6] == studies(index, StudyInstanceUID=[f"{ROOT}.1", *uids, f"{ROOT}.6"])


def test_pages(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block is selected behind the last one, and the caller may stop after each page."""
    monkeypatch.setattr(study_query, "BLOCK", 2)
    monkeypatch.setattr(study_query, "PAGE", 1)
    assert EVERY == studies(index)
    query, answers = ask(index, identifier("IMAGE", SOPInstanceUID=None), relational=True)
    assert len(INSTANCES) == len(answers)
    assert len(INSTANCES) == sum(answer is None for answer in query)


def test_a_limit(index: Index) -> None:
    query, answers = ask(index, identifier("STUDY", StudyInstanceUID=None), limit=6)
    assert (6, False) == (len(answers), query.is_cut_short)
    query, answers = ask(index, identifier("STUDY", StudyInstanceUID=None), limit=5)
    assert (5, True) == (len(answers), query.is_cut_short)


def test_character_sets(index: Index) -> None:
    asked = identifier("STUDY", StudyInstanceUID=None, PatientName="Müller*")
    asked.SpecificCharacterSet = "ISO_IR 100"
    _, (answer,) = ask(index, asked)
    assert "ISO_IR 100" == answer.SpecificCharacterSet
    _, (answer,) = ask(index, asked, charset="ISO_IR 13")
    assert "ISO_IR 192" == answer.SpecificCharacterSet
    _, (answer,) = ask(index, identifier("STUDY", StudyInstanceUID=f"{ROOT}.1", PatientName=None))
    assert "SpecificCharacterSet" not in answer


@pytest.mark.parametrize(
    ("name", "charset", "matches"),
    [
        ("Müller*".encode(), None, [3]),  # of a terminal: findscu -k PatientName=Müller*
        ("Müller*".encode("latin_1"), None, [3]),
        ("山田*".encode(), None, [4]),
        ("Müller*".encode("latin_1"), "ISO_IR 100", [3]),
        ("Müller*".encode(), "ISO_IR 100", []),  # what is declared counts
    ],
)
def test_a_text_without_a_character_set(
    index: Index, name: bytes, charset: str | None, matches: list[int]
) -> None:
    asked = identifier("STUDY", StudyInstanceUID=None, PatientName="NAME")
    del asked.SpecificCharacterSet
    if charset:
        asked.SpecificCharacterSet = charset
    name += b" " * (len(name) % 2)
    encoded_name = b"\x10\0\x10\0PN" + len(name).to_bytes(2, "little") + name
    content = encoded(asked).replace(b"\x10\0\x10\0PN\4\0NAME", encoded_name)
    read = read_dataset(BytesIO(content), is_implicit_VR=False, is_little_endian=True)
    assert matches == sorted(
        int(answer.StudyInstanceUID.rpartition(".")[2]) for answer in ask(index, read)[1]
    )


def test_what_was_acknowledged_before_is_found(tmp_path: Path) -> None:
    from support.filling import receive, served

    with served(tmp_path) as index:
        receive(index, instance(9))
        _, answers = ask(index, identifier("STUDY", StudyInstanceUID=f"{ROOT}.9"))
        assert 1 == len(answers)


def test_instances_that_disagree_are_answered_as_the_resource_has_them(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE) as index:
        for number, name in enumerate(("Doe^Jane", "Doe^Jane", "Doe^J"), start=1):
            keep(
                index,
                instance(
                    1, 1, number, PatientName=name, StudyDate=f"2026010{number}", PatientSex="FFM"[number - 1]
                ),
            )
        keys = {"PatientName": None, "StudyDate": None, "PatientSex": None, "StudyInstanceUID": None}
        _, (answer,) = ask(index, identifier("STUDY", **keys))
        assert ("Doe^Jane", "20260101", None) == (answer.PatientName, answer.StudyDate, answer.PatientSex)
        assert [] == studies(index, PatientName="Doe^J")
        assert [] == studies(index, StudyDate="20260102")
        assert [] == studies(index, PatientSex="M")


def test_instances_of_two_patients_are_of_a_patient_of_their_own(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE) as index:
        for number, patient in enumerate(("P1", "P1", "P2"), start=1):
            keep(index, instance(1, 1, number, PatientID=patient))
        keep(index, instance(2, 1, 1, PatientID="P1"))
        _, patients = ask(index, identifier("PATIENT", PatientID=None, PatientName=None), patient_root=True)
        assert [("", "Doe^Jane"), ("P1", "Doe^Jane")] == sorted(
            (patient.PatientID or "", str(patient.PatientName)) for patient in patients
        )
        assert [2] == studies(index, PatientID="P1")
        assert [1, 2] == studies(index, PatientName="Doe^Jane")


def test_values_of_adt_messages_and_of_orders(tmp_path: Path) -> None:
    """A patient's name is that of the last ADT message; the order's where no instance has one."""
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance(1, PatientName="Doe^Jane"))
        keep(index, instance(2, PatientName="", PatientSex=""))
        with index._database.writing():
            by_adt = Patient.update(attributes={"PatientName": "Roe^Jane", "PatientID": "P1"})
            index._database.execute(by_adt.where(Patient.key == identity_key({"PatientID": "P1"}, "")))
        write(item(2, PatientName="Ordered^Ann", PatientSex="F"), tmp_path / "orders" / "2.wl")
        assert 1 == index.orders.import_files([tmp_path / "orders"]).taken
        assert [1] == studies(index, PatientName="ROE*")
        assert [] == studies(index, PatientName="Doe*")
        assert [1] == studies(index, PatientID="P1")
        assert [2] == studies(index, PatientName="ordered^ann")
        assert [2] == studies(index, PatientSex="F")


def test_a_deleted_study_is_not_answered(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance(1))
        index.delete(f"{ROOT}.1")
        assert [] == studies(index)


def test_every_attribute_of_the_index_is_a_key() -> None:
    assert {"PatientSex", "StudyDescription", "SeriesDescription", "Rows"} <= {
        keyword for level in Level for keyword in KEYS[level]
    }
