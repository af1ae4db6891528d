"""Objects that are in no collection of test files: made by DCMTK, in every character set, with odd values.

Each must be kept. Its resources must be valid in every version that can express it.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydicom.charset import python_encoding
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from index import FhirSettings, Index, NewOrder, Source
from support.daemon import run
from support.dicom import ROOT, encoded, instance, sample, save
from support.fhirjudges import judge
from support.filling import ORIGIN, STORAGE, keep

VERSIONS = ("dstu2", "r4", "r5")
FHIR = FhirSettings(base_url="https://pacs.example.org/dicom-web", timezone="+01:00")

# ISO_IR 13 and the ISO 2022 sets of one byte stand for themselves; texts that each can hold.
TEXTS = {
    "ISO_IR 6": "Doe^Jane",
    "ISO_IR 13": "ﾔﾏﾀﾞ^ﾀﾛｳ",
    "ISO_IR 100": "Müller^Zoë",
    "ISO_IR 101": "Łukasz^Śmiały",
    "ISO_IR 109": "Ġorġ^Ħal",
    "ISO_IR 110": "Jānis^Bērziņš",
    "ISO_IR 126": "Διονυσιος",
    "ISO_IR 127": "قباني^لنزار",
    "ISO_IR 138": "שרון^דבורה",
    "ISO_IR 144": "Люкceмбypг",  # noqa: RUF001  Cyrillic is what is tested
    "ISO_IR 148": "Çavuşoğlu^Şule",
    "ISO_IR 166": "นามสกุล^ชื่อ",
    "ISO_IR 192": "Wang^XiaoDong=王^小东=",
    "GB18030": "Wang^XiaoDong=王^小东=",
    "GBK": "Wang^XiaoDong=王^小东=",
    "ISO 2022 IR 87": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "ISO 2022 IR 149": "Hong^Gildong=洪^吉洞=홍^길동",
    "ISO 2022 IR 58": "Wang^XiaoDong=王^小东=",
}

ODD: dict[str, dict[str, Any]] = {
    "negative numbers": {"SeriesNumber": "-1", "InstanceNumber": "-7"},
    "huge numbers": {"InstanceNumber": "999999999999"},
    "empty strings": {"StudyDescription": "", "Modality": "", "PatientName": "", "AccessionNumber": " "},
    "oversized strings": {"StudyDescription": "x" * 40_000, "StudyID": "y" * 3_000},
    "control characters": {"StudyDescription": "a\x01b\x1fc\x7f", "SeriesDescription": "\x0b\x0c"},
    "a date with dots": {"StudyDate": "1999.01.02", "SeriesDate": "1999.01.02"},
    "dates of zeros": {"StudyDate": "00000000", "PatientBirthDate": "19000230"},
    "a time beyond the day": {"StudyTime": "240000", "SeriesTime": "9"},
    "an unknown character set": {"SpecificCharacterSet": "ISO_IR 999", "StudyDescription": "plain"},
    "no modality": {"Modality": None},
    "a modality that is no code": {"Modality": "made up\\CT"},
    "no patient": {"PatientID": None, "PatientName": None},
    "a UID with leading zeros": {"SeriesInstanceUID": f"{ROOT}.01.007"},
    "a UID with a trailing dot": {"SOPInstanceUID": f"{ROOT}.1."},
    "a study UID that is no OID": {"StudyInstanceUID": "0.1..2"},
    "an unknown SOP Class": {"SOPClassUID": "1.2.826.0.1.3680043.10.1555.99"},
}


def published(index: Index) -> dict[str, list[dict[str, Any]]]:
    """Publish, judge every study in every version that has it, and return the ImagingStudies."""
    index.publish()
    found: dict[str, list[dict[str, Any]]] = {}
    for version in VERSIONS:
        folder = index.data / "fhir" / version
        studies = [json.loads(path.read_bytes()) for path in sorted(folder.glob("ImagingStudy/*.json"))]
        others = {
            f"{path.parent.name}/{path.stem}": json.loads(path.read_bytes())
            for path in folder.rglob("*.json")
            if path.parent.name != "ImagingStudy"
        }
        for study in studies:
            judge([study, *_referred(study, others)], version)
        found[version] = studies
    return found


def _referred(study: dict[str, Any], others: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a study refers to, and what that refers to."""
    wanted, seen = [study], {}
    while wanted:
        text = orjson.dumps(wanted.pop()).decode()
        for name, resource in others.items():
            if f'"{name}"' in text and name not in seen:
                seen[name] = resource
                wanted.append(resource)
    return list(seen.values())


@pytest.fixture
def index(tmp_path: Path) -> Any:
    index = Index(tmp_path / "data", STORAGE, fhir=FHIR)
    yield index
    index.close()


def imported(index: Index, *paths: Path) -> None:
    report = index.import_files(paths)
    assert ([], [], len(paths)) == (report.failed, report.passed_over, report.outcomes.total())


def test_an_encapsulated_pdf(index: Index, tmp_path: Path) -> None:
    pdf = tmp_path / "report.pdf"
    pdf.write_bytes(b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n")
    made = run(
        "pdf2dcm", "--title", "Discharge letter", "+se", str(sample()), str(pdf), str(tmp_path / "pdf.dcm")
    )
    assert 0 == made.returncode, made.stderr
    imported(index, sample(), tmp_path / "pdf.dcm")
    for version, (study,) in published(index).items():
        titles = [one.get("title") for series in study["series"] for one in series["instance"]]
        assert "Discharge letter" in titles, version
        assert 2 == study["numberOfInstances"]


def test_a_presentation_state(index: Index, tmp_path: Path) -> None:
    made = run("dcmpsmk", str(sample()), str(tmp_path / "pr.dcm"))
    assert 0 == made.returncode, made.stderr
    imported(index, sample(), tmp_path / "pr.dcm")
    found = published(index)
    (r5,) = found["r5"]
    assert {"CT", "PR"} == {concept["coding"][0]["code"] for concept in r5["modality"]}
    (dstu2,) = found["dstu2"]
    assert ["CT"] == [coding["code"] for coding in dstu2["modalityList"]]


def test_a_key_object_selection(index: Index, tmp_path: Path) -> None:
    concept = Dataset()
    concept.CodeValue, concept.CodingSchemeDesignator, concept.CodeMeaning = "113000", "DCM", "Of Interest"
    keys = instance(
        1, 2, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.59", Modality="KO", ConceptNameCodeSequence=[concept]
    )
    imported(index, save(instance(), tmp_path / "ct.dcm"), save(keys, tmp_path / "ko.dcm"))
    for version, (study,) in published(index).items():
        assert "Of Interest" == study["series"][1]["instance"][0]["title"], version


@pytest.mark.parametrize("charset", TEXTS)
def test_every_character_set(index: Index, charset: str) -> None:
    name = TEXTS[charset]
    assert charset in python_encoding or charset == "ISO_IR 6"
    charsets = ["", charset] if charset.startswith("ISO 2022") else charset
    keep(index, instance(SpecificCharacterSet=charsets, PatientName=name))
    index.publish()
    (patient,) = (index.data / "fhir/r4/Patient").iterdir()
    family = json.loads(patient.read_bytes())["name"][0]["family"]
    assert name.split("=")[0].split("^")[0] == family
    assert all(published(index).values())


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.filterwarnings("ignore")
def test_every_odd_value(index: Index, odd: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = instance(**ODD[odd])
        keep(index, dataset)
    found = published(index)
    assert 1 == len(found["r4"])
    assert 1 == len(found["r5"])
    assert (odd != "a study UID that is no OID") == bool(found["dstu2"])


def test_textual_numbers(index: Index) -> None:
    """pydicom refuses to encode them: they replace the bytes of valid ones."""
    dataset = instance(series=7, number=77)
    content = (
        encoded(dataset).replace(b"IS\x02\x007 ", b"IS\x02\x00x ").replace(b"IS\x02\x0077", b"IS\x02\x00A1")
    )
    incoming = index.receive(ORIGIN, dataset.SOPClassUID, dataset.SOPInstanceUID, ExplicitVRLittleEndian)
    incoming.write(content)
    incoming.keep()
    for version, (study,) in published(index).items():
        (series,) = study["series"]
        assert "number" not in series, version
        assert "number" not in series["instance"][0], version


def test_two_patients_in_one_study(index: Index) -> None:
    keep(index, instance(number=1, PatientID="A"))
    for number in (2, 3):
        keep(index, instance(number=number, PatientID="B"))
    for version, (study,) in published(index).items():
        assert 3 == study["numberOfInstances"], version
    _, disagreements = index.resource(f"{ROOT}.1")
    assert "patient" in {one.keyword for one in disagreements}


@pytest.mark.parametrize(
    ("patients", "numbers"),
    [
        # Two patients: the study is nobody's, and only what all say is said.
        ([{"PatientID": "A"}, {"PatientID": "B"}, {"PatientID": "B"}], []),
        ([{"IssuerOfPatientID": "X"}, {"IssuerOfPatientID": "Y"}, {"IssuerOfPatientID": "Y"}], []),
        # What one leaves out contradicts no other.
        ([{}, {"IssuerOfPatientID": "Y"}, {"IssuerOfPatientID": "Y"}], ["P1"]),
        ([{"PatientID": None}, {"PatientID": "A"}, {"PatientID": "A"}], ["A"]),
    ],
)
def test_a_study_of_two_patients_is_neither_ones(
    index: Index, patients: list[dict[str, Any]], numbers: list[str]
) -> None:
    """DESIGN.md, Promises: side, region, patient: what is true of all, or nothing."""
    for number, patient in enumerate(patients, start=1):
        keep(index, instance(number=number, PatientSex="F", PatientBirthDate=f"1970010{number}", **patient))
    keep(index, instance(study=2, PatientID="B", PatientName="Other^One"))
    for version, studies in published(index).items():
        (study,) = [one for one in studies if one["id"] == f"{ROOT}.1"]
        reference = study["patient" if version == "dstu2" else "subject"]["reference"]
        patient = json.loads((index.data / f"fhir/{version}/{reference}.json").read_bytes())
        assert numbers == [one["value"] for one in patient.get("identifier", [])]
        assert ("female", "Doe") == (patient["gender"], patient["name"][0]["text"].split()[-1])
        assert numbers or "birthDate" not in patient


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_an_order_of_several_studies_is_for_one_patient(index: Index, order: tuple[int, int]) -> None:
    """Its resource is one for all of them: also where one study has instances of two patients."""
    asked = NewOrder(Source.CLI, "", "1", {"PatientID": "B"}, {"AccessionNumber": "A1"})
    index.orders.add(asked)
    for study in order:
        keep(index, instance(study=study, number=1, PatientID="B", AccessionNumber="A1"))
        keep(index, instance(study=study, number=2, PatientID="B", AccessionNumber="A1"))
        if study == 1:
            keep(index, instance(study=study, number=3, PatientID="A", AccessionNumber="A1"))
        index.publish()
    for version, studies in published(index).items():
        assert 2 == len(studies)
        kind, element = ("DiagnosticOrder", "order") if version == "dstu2" else ("ServiceRequest", "basedOn")
        ((request,),) = {tuple(one["reference"] for one in study[element]) for study in studies}
        assert request.startswith(f"{kind}/")
        found = json.loads((index.data / f"fhir/{version}/{request}.json").read_bytes())
        patient = json.loads(
            (index.data / f"fhir/{version}/{found['subject']['reference']}.json").read_bytes()
        )
        assert ["B"] == [one["value"] for one in patient["identifier"]]
        whose = "patient" if version == "dstu2" else "subject"
        assert {one["id"]: one[whose] == found["subject"] for one in studies} == {
            f"{ROOT}.1": False,
            f"{ROOT}.2": True,
        }
