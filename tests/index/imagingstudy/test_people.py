"""Names, identifiers and the people that they belong to."""

from typing import Any

import pytest

from index.imagingstudy import Rules, build
from index.imagingstudy.elements.names import REPRESENTATION, human_names, plain_text
from index.imagingstudy.terminology.systems import DIALECTS
from index.records import Attributes, Patient, Study
from support.fhirjudges import judge
from support.imagingstudies import CT, RULES, images, person, series


def study(patient: Attributes | None = None, **attributes: Any) -> Study:
    return Study(
        "1.2.3", Patient("p", patient or {}), attributes, [series("1.2.3.4", images("1.2.3.4", 1, CT, []))]
    )


def patient_of(patient: Attributes, rules: Rules = RULES) -> dict[str, Any]:
    return build(study(patient), "r4", rules).resources[1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", []),
        ("^^^^", []),
        ("==", []),
        ("Doe", [{"text": "Doe", "family": "Doe"}]),
        ("^Jane", [{"text": "Jane", "given": ["Jane"]}]),
        (
            "A^B^C^D^E^F",
            [{"text": "D B C A E F", "family": "A", "given": ["B", "C"], "prefix": ["D"], "suffix": ["E F"]}],
        ),
        ("Doe\x00^\x01Jane", [{"text": "Jane Doe", "family": "Doe", "given": ["Jane"]}]),
    ],
)
def test_alphabetic_names(value: str, expected: list[dict[str, Any]]) -> None:
    assert expected == human_names(value, DIALECTS["r4"])


def test_dstu2_family_is_a_list() -> None:
    assert [{"text": "Jane Doe", "family": ["Doe"], "given": ["Jane"]}] == human_names(
        "Doe^Jane", DIALECTS["dstu2"]
    )


def test_representation_is_told_of_each_group() -> None:
    names = human_names("Yamada^Tarou=山田^太郎=やまだ^たろう", DIALECTS["r5"])
    assert ["ABC", "IDE", "SYL"] == [name["extension"][0]["valueCode"] for name in names]
    assert {REPRESENTATION} == {name["extension"][0]["url"] for name in names}
    assert "山田 太郎" == names[1]["text"]


def test_plain_text_is_of_the_first_group_that_says_something() -> None:
    assert "鈴木 花子" == plain_text("=鈴木^花子")
    assert not plain_text("==")


def test_patient_id_without_issuer_has_the_configured_system() -> None:
    assert ["https://example.org/patients"] == [
        found["system"] for found in patient_of({"PatientID": "1"})["identifier"]
    ]


def test_issuer_decides_the_system() -> None:
    found = patient_of({"PatientID": "1", "IssuerOfPatientID": "CITY"})["identifier"][0]
    assert ("urn:oid:2.999.1", "1") == (found["system"], found["value"])


def test_unknown_issuer_is_the_assigner_and_not_us() -> None:
    found = patient_of({"PatientID": "1", "IssuerOfPatientID": "FAR"})["identifier"][0]
    assert {"display": "FAR"} == found["assigner"]
    assert "system" not in found


@pytest.mark.parametrize(
    ("entity", "kind", "expected"),
    [
        ("2.999.7", "ISO", "urn:oid:2.999.7"),
        ("urn:x:y", "URI", "urn:x:y"),
        (
            "F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6",
            "UUID",
            "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        ),
        ("02.9", "ISO", "https://example.org/patients"),
        ("no uri", "URI", "https://example.org/patients"),
        ("example.org", "DNS", "https://example.org/patients"),
    ],
)
def test_qualifiers_decide_the_system(entity: str, kind: str, expected: str) -> None:
    qualifiers = [{"UniversalEntityID": entity, "UniversalEntityIDType": kind}]
    found = patient_of({"PatientID": "1", "IssuerOfPatientIDQualifiersSequence": qualifiers})
    assert expected == found["identifier"][0]["system"]


def other(value: str, kind: str = "", device: str = "", **more: str) -> Attributes:
    """Return an item of OtherPatientIDsSequence (PS3.3 Table C.7-1)."""
    qualifiers = {"IssuerOfPatientIDQualifiersSequence": [{"IdentifierTypeCode": kind}]} if kind else {}
    return {"PatientID": value, **qualifiers, **({"TypeOfPatientID": device} if device else {}), **more}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (other("1", "SS", "TEXT"), "SS"),
        (other("1", "pi"), "PI"),
        (other("1", "MR", IssuerOfPatientID="CITY"), "MR"),
        (other("1", "NNDEU"), "NNDEU"),
        (other("1", "our own"), "text: our own"),
        (other("1", device="RFID"), "text: RFID"),
        (other("1", device="barcode"), "text: Barcode"),
        (other("1", "MR", "BARCODE"), "MR"),
        (other("1"), None),
        (other("1", device="TEXT", IssuerOfPatientID="CITY"), None),
    ],
)
@pytest.mark.parametrize("version", ["dstu2", "r4", "r5"])
def test_other_identifiers_are_of_their_own_type(
    version: str, source: Attributes, expected: str | None
) -> None:
    """HL7 v2 Table 0203 by (0040,0035); what a device reads (0010,0022) is no medical record number."""
    made = build(study({"PatientID": "P", "OtherPatientIDsSequence": [source]}), version, RULES)
    judge(made.resources, version)
    own, found = made.resources[1]["identifier"]
    kind = found.get("type", {})
    said = [f"text: {kind['text']}"] if "text" in kind else [one["code"] for one in kind.get("coding", [])]
    assert "MR" == own["type"]["coding"][0]["code"]
    assert ([] if expected is None else [expected]) == said
    # Nobody says whose number it is: it is not ours.
    assert found.get("system") == ("urn:oid:2.999.1" if "IssuerOfPatientID" in source else None)


@pytest.mark.parametrize(
    ("source", "system", "code"),
    [
        (other("1"), "https://example.org/patients", "MR"),
        (other("1", "PI"), "https://example.org/patients", "PI"),
        (other("1", device="RFID"), None, None),
        (other("1", device="RFID", IssuerOfPatientID="CITY"), "urn:oid:2.999.1", None),
    ],
)
def test_patient_id_has_the_type_that_it_says(
    source: Attributes, system: str | None, code: str | None
) -> None:
    (found,) = patient_of(source)["identifier"]
    coding = found["type"].get("coding", [{}])[0]
    assert (system, code) == (found.get("system"), coding.get("code"))


def test_a_number_is_told_once() -> None:
    others = [other("1", IssuerOfPatientID="CITY"), other("1"), other("1", "PI", IssuerOfPatientID="CITY")]
    found = patient_of({"PatientID": "1", "IssuerOfPatientID": "CITY", "OtherPatientIDsSequence": others})
    assert ["MR", "PI"] == [one["type"]["coding"][0]["code"] for one in found["identifier"]]


def test_patient_says_what_it_cannot_say() -> None:
    made = build(study({"PatientSex": "X", "PatientBirthDate": "1970.01.01"}), "r4", RULES)
    assert {"resourceType": "Patient", "id": "p"} == made.resources[1]
    assert [
        "patient of study 1.2.3: PatientSex is not M, F or O, left out",
        "patient of study 1.2.3: PatientBirthDate is no date, left out",
    ] == [doubt for doubt in made.issues if "patient" in doubt]


def readers(version: str, names: list[str], numbers: list[Attributes]) -> list[dict[str, Any]]:
    made = study(NameOfPhysiciansReadingStudy=names, PhysiciansReadingStudyIdentificationSequence=numbers)
    return [
        found for found in build(made, version, RULES).resources if found["resourceType"] == "Practitioner"
    ]


def test_nth_identification_belongs_to_the_nth_name() -> None:
    found = readers("r4", ["A^B", "C^D"], [person("1"), person("2")])
    assert [("A", "1"), ("C", "2")] == [(p["name"][0]["family"], p["identifier"][0]["value"]) for p in found]


def test_identifications_that_do_not_match_the_names_are_left_out() -> None:
    assert [None, None] == [found.get("identifier") for found in readers("r4", ["A^B", "C^D"], [person("1")])]


def test_dstu2_holds_one_interpreter_and_one_practitioner() -> None:
    assert 1 == len(readers("dstu2", ["A^B", "C^D"], []))


def test_practitioner_id_is_a_function_of_name_and_codes() -> None:
    one, two = (readers("r4", ["A^B"], [person(number)])[0]["id"] for number in "12")
    assert one != two
    assert one == readers("dstu2", ["A^B"], [person("1")])[0]["id"]


def test_known_scheme_of_a_person_code_is_its_system() -> None:
    found = readers("r4", ["A^B"], [person("1", "99RIS")])[0]["identifier"]
    assert [{"system": "https://example.org/procedures", "value": "1"}] == found
