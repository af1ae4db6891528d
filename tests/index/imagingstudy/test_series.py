"""Series and instances: codes, titles, addresses, counts, and what is left out of them."""

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from index.imagingstudy import VERSIONS, Built, Rules, build
from index.imagingstudy.terminology.body_parts import BODY_PARTS
from index.imagingstudy.terminology.modalities import ACQUISITION, MODALITIES, NON_ACQUISITION, RETIRED
from index.imagingstudy.terminology.systems import DIALECTS
from index.records import Instance, Patient, Series, Study
from support.fhirjudges import judge
from support.imagingstudies import CT, KO, RULES, code, images, instance, series


def built(version: str, *of: Series, rules: Rules = RULES) -> Built:
    return build(Study("1.2.3", Patient("p", {}), {}, of), version, rules)


def one(version: str, rules: Rules = RULES, **attributes: Any) -> dict[str, Any]:
    made = built(version, series("1.2.3.4", [instance("1.2.3.4.5", CT)], **attributes), rules=rules)
    return made.resources[0]["series"][0]


def first_instance(version: str, of: Instance) -> dict[str, Any]:
    return built(version, series("1.2.3.4", [of])).resources[0]["series"][0]["instance"][0]


def test_tables_are_whole() -> None:
    assert 317 == len(BODY_PARTS)
    assert (51, 23, 79, 18) == (len(ACQUISITION), len(NON_ACQUISITION), len(MODALITIES), len(RETIRED))
    assert ("818981001", "Abdomen") == BODY_PARTS["ABDOMEN"]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("dstu2", {"system": "http://nema.org/dicom/dicm", "code": "CT", "display": "Computed Tomography"}),
        (
            "r4",
            {
                "system": "http://dicom.nema.org/resources/ontology/DCM",
                "code": "CT",
                "display": "Computed Tomography",
            },
        ),
    ],
)
def test_modality_system_is_the_versions(version: str, expected: dict[str, str]) -> None:
    assert expected == one(version, Modality="CT")["modality"]


def test_missing_modality_is_other_and_a_doubt() -> None:
    made = built("dstu2", series("1.2.3.4", [instance("1.2.3.4.5", CT)]))
    assert "OT" == made.resources[0]["series"][0]["modality"]["code"]
    assert "series 1.2.3.4: Modality is missing or no code, written as OT" in made.issues


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("term", sorted(MODALITIES | RETIRED))
def test_every_defined_term_is_a_code_of_dicom(version: str, term: str) -> None:
    """PS3.3 C.7.3.1.1.1, retired ones too; case and padding are forgiven."""
    for written in (term, f" {term.lower()} \0"):
        made = built(version, series("1.2.3.4", [instance("1.2.3.4.5", CT)], Modality=written))
        found = made.resources[0]["series"][0]["modality"]
        found = found["coding"][0] if version == "r5" else found
        assert (DIALECTS[version].dicom, term) == (found["system"], found["code"])
        assert [] == made.issues


@pytest.mark.parametrize("version", VERSIONS)
def test_a_modality_in_lower_case_is_one_of_the_study(version: str) -> None:
    made = built(version, series("1.2.3.4", [instance("1.2.3.4.5", CT)], Modality="ct")).resources[0]
    (found,) = made["modalityList" if version == "dstu2" else "modality"]
    assert "CT" == (found["coding"][0] if version == "r5" else found)["code"]


@pytest.mark.parametrize("written", ["C SPINE", "c-spine", "C_SPINE", " CSPINE", "cspine", "C - Spine"])
def test_body_part_is_found_without_regard_to_spelling(written: str) -> None:
    assert "122494005" == one("r4", BodyPartExamined=written)["bodySite"]["code"]


def test_unknown_modality_stands_without_a_system() -> None:
    assert {"coding": [{"code": "XYZ"}]} == one("r5", Modality="XYZ")["modality"]


@pytest.mark.parametrize(
    ("version", "expected"), [("dstu2", ["CT"]), ("r4", ["CT"]), ("r5", ["CT", "OT", "SR"])]
)
def test_study_modalities(version: str, expected: list[str]) -> None:
    kinds = ("SR", "CT", "CT", "XYZ", "")
    made = built(
        version,
        *(series(f"1.2.3.{n}", [instance(f"1.2.3.{n}.5", CT)], Modality=m) for n, m in enumerate(kinds)),
    )
    listed = made.resources[0]["modalityList" if version == "dstu2" else "modality"]
    assert expected == [(found["coding"][0] if version == "r5" else found)["code"] for found in listed]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        (
            {"BodyPartExamined": "HEAD"},
            {"system": "http://snomed.info/sct", "code": "69536005", "display": "Head"},
        ),
        ({"BodyPartExamined": "Elsewhere"}, {"display": "Elsewhere"}),
        (
            {"BodyPartExamined": "HEAD", "AnatomicRegionSequence": [code("1", "SCT", "One")]},
            {"system": "http://snomed.info/sct", "code": "1", "display": "One"},
        ),
        (
            {"BodyPartExamined": "HEAD", "AnatomicRegionSequence": [code("T-1", "SRT", "One")]},
            {"system": "http://snomed.info/sct", "code": "69536005", "display": "Head"},
        ),
        ({"AnatomicRegionSequence": [code("T-1", "SRT", "One")]}, {"code": "T-1", "display": "One"}),
        (
            {"BodyPartExamined": "HEAD", "AnatomicRegionSequence": [code("T-57000", "SRT", "Stomach")]},
            {"system": "http://snomed.info/sct", "code": "69695003", "display": "Stomach"},
        ),
        (
            {"BodyPartExamined": "HEAD", "AnatomicRegionSequence": [{}]},
            {"system": "http://snomed.info/sct", "code": "69536005", "display": "Head"},
        ),
    ],
)
def test_body_site(attributes: dict[str, Any], expected: dict[str, str]) -> None:
    assert expected == one("dstu2", **attributes)["bodySite"]


def test_body_site_without_a_code_is_text_in_r5() -> None:
    assert {"concept": {"text": "Elsewhere"}} == one("r5", BodyPartExamined="Elsewhere")["bodySite"]


@pytest.mark.parametrize(
    ("version", "side", "expected"),
    [
        ("dstu2", "L", "419161000"),
        ("r4", "R", "419465000"),
        ("dstu2", "B", "51440002"),
        ("r5", "L", "7771000"),
        ("r5", "R", "24028007"),
        ("r5", "B", "51440002"),
        ("dstu2", "U", None),
        ("r4", "?", None),
    ],
)
def test_laterality(version: str, side: str, expected: str | None) -> None:
    found = one(version, ImageLaterality=side)["laterality"]
    assert expected == (found["coding"][0] if version == "r5" else found).get("code")


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"ContentLabel": "A", "DocumentTitle": "B", "ImageType": ["C"]}, "A"),
        ({"ConceptNameCodeSequence": [code("1", "DCM", "Of Interest")], "DocumentTitle": "B"}, "Of Interest"),
        ({"ConceptNameCodeSequence": [], "DocumentTitle": "B"}, "B"),
        ({"ContentLabel": "\x00", "ImageType": ["ORIGINAL", "", "X"]}, "ORIGINAL\\\\X"),
        ({"ImageType": "ORIGINAL"}, "ORIGINAL"),
        ({"ImageType": ["", ""]}, None),
        ({}, None),
    ],
)
@pytest.mark.parametrize("version", ["dstu2", "r4", "r5"])
def test_title(version: str, attributes: dict[str, Any], expected: str | None) -> None:
    assert expected == first_instance(version, instance("1.2.3.4.5", KO, **attributes)).get("title")


def test_content_of_a_served_instance() -> None:
    found = first_instance(
        "dstu2", Instance("1.2.3.4.5", CT, 12, "a9993e364706816aba3e25717850c26c9cd0d89d", {})
    )
    assert [
        {
            "contentType": "application/dicom",
            "url": "https://pacs.example.org/dicom-web/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.5",
            "size": 12,
            "hash": "qZk+NkcGgWq6PiVxeFDCbJzQ2J0=",
        }
    ] == found["content"]


def test_size_beyond_unsigned_int_is_left_out() -> None:
    assert "size" not in first_instance("dstu2", instance("1.2.3.4.5", CT, 2147483648))["content"][0]


@pytest.mark.parametrize("version", ["dstu2", "r4", "r5"])
def test_no_addresses_without_a_base(version: str) -> None:
    made = built(version, series("1.2.3.4", [instance("1.2.3.4.5", CT)]), rules=Rules()).resources
    assert {"ImagingStudy", "Patient"} == {found["resourceType"] for found in made}
    assert not {"url", "endpoint"} & {*made[0], *made[0]["series"][0]}
    assert "content" not in made[0]["series"][0]["instance"][0]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ((None, "ONLINE"), "ONLINE"),
        (("ONLINE", "NEARLINE"), "NEARLINE"),
        (("OFFLINE", "NEARLINE"), "OFFLINE"),
        (("UNAVAILABLE", None), "UNAVAILABLE"),
        (("SOMEWHERE",), "ONLINE"),
    ],
)
def test_availability_is_that_of_the_worst(said: tuple[str | None, ...], expected: str) -> None:
    of = [
        instance(f"1.2.3.4.{n}", CT, **({"InstanceAvailability": word} if word else {}))
        for n, word in enumerate(said)
    ]
    study = built("dstu2", series("1.2.3.4", of)).resources[0]
    assert (expected, expected) == (study["availability"], study["series"][0]["availability"])


def test_dstu2_leaves_out_what_is_no_oid_and_still_counts_it() -> None:
    made = built(
        "dstu2",
        series("1.2.3.4", [instance("1.2.3.4.5", CT), instance("1.2.3.4.06", CT), instance("1.2.3.4.7", "")]),
        series("1.2.3.05", [instance("1.2.3.5.1", CT)]),
    )
    study = made.resources[0]
    assert (2, 4, 3) == (
        study["numberOfSeries"],
        study["numberOfInstances"],
        study["series"][0]["numberOfInstances"],
    )
    assert ["urn:oid:1.2.3.4"] == [found["uid"] for found in study["series"]]
    assert ["urn:oid:1.2.3.4.5"] == [found["uid"] for found in study["series"][0]["instance"]]
    for doubt in (
        "instance 1.2.3.4.06: UID is no valid urn:oid, left out",
        "instance 1.2.3.4.7: SOP Class UID is no valid urn:oid, left out",
        "series 1.2.3.05: UID is no valid urn:oid, left out",
    ):
        assert doubt in made.issues


@pytest.mark.parametrize("version", ["r4", "r5"])
def test_r4_and_r5_hold_any_uid(version: str) -> None:
    made = built(version, series("1.2.3.05", [instance("1.2.3.4.06", CT)])).resources[0]["series"][0]
    assert ("1.2.3.05", "1.2.3.4.06") == (made["uid"], made["instance"][0]["uid"])


def test_number_that_is_none_is_a_doubt_once() -> None:
    of = [instance(f"1.2.3.4.{n}", CT, InstanceNumber="-1") for n in range(100)]
    made = built("r5", series("1.2.3.4", of, Modality="CT"))
    assert ["series 1.2.3.4: InstanceNumber is no unsignedInt, left out"] == made.issues
    assert not any("number" in found for found in made.resources[0]["series"][0]["instance"])


def test_doubts_of_many_instances_are_bounded() -> None:
    of = [instance(f"1.2.3.4.0{n}", CT) for n in range(1000)]
    made = built("dstu2", series("1.2.3.4", of, Modality="CT"))
    assert 21 == len(made.issues)
    assert "980 more: UID is no valid urn:oid, left out" == made.issues[-1]


def test_private_sop_class_has_no_name() -> None:
    assert {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2.999"} == first_instance(
        "r4", instance("1.2.3.4.5", "1.2.999")
    )["sopClass"]
    assert "type" not in first_instance("dstu2", instance("1.2.3.4.5", "1.2.999"))


def test_doubts_hold_no_patient_data() -> None:
    odd = Study(
        "1.2.3",
        Patient(
            "p",
            {
                "PatientID": "SECRET",
                "PatientName": "SECRET",
                "PatientSex": "SECRET",
                "PatientBirthDate": "SECRET",
            },
        ),
        {"StudyDate": "SECRET", "StudyTime": "SECRET", "StudyDescription": "\x00"},
        [
            series(
                "1.2.3.4",
                [instance("1.2.3.4.5", CT, InstanceNumber="SECRET")],
                Modality="SECRET",
                SeriesNumber="SECRET",
            )
        ],
    )
    for version in ("dstu2", "r4", "r5"):
        made = build(replace(odd), version, RULES)
        assert made.issues
        assert not any("SECRET" in doubt for doubt in made.issues)


@pytest.mark.parametrize("version", ["dstu2", "r4", "r5"])
def test_oversized_text_is_left_out_and_a_doubt(version: str) -> None:
    long = "x" * 1_100_000
    attributes = {"StudyDescription": long, "StudyID": long, "ReferringPhysicianName": f"{long}^A"}
    of = [series("1.2.3.4", [instance("1.2.3.4.5", CT, ImageType=[long, "A"])], SeriesDescription=long)]
    patient = Patient("p", {"PatientName": long, "PatientID": long})
    made = build(Study("1.2.3", patient, attributes, of), version, RULES)
    judge(made.resources, version)
    assert "study 1.2.3: StudyDescription is no text that FHIR holds, left out" in made.issues
    assert "series 1.2.3.4: SeriesDescription is no text that FHIR holds, left out" in made.issues


@pytest.mark.parametrize("version", ["dstu2", "r4", "r5"])
def test_two_thousand_instances_are_built_as_fast_as_their_json_is_copied(version: str) -> None:
    """Some 3 to 6 ms here; a machine that is slower is slower in both."""
    of = images("1.2.3.4", 2000, CT, ["ORIGINAL", "PRIMARY", "AXIAL"])
    study = Study("1.2.3", Patient("p", {}), {}, [series("1.2.3.4", of, Modality="CT", SeriesNumber="1")])
    building, copying = [], []
    for _ in range(10):
        begun = time.process_time()
        made = build(study, version, RULES)
        built = time.process_time()
        json.loads(json.dumps(made.resources))
        building.append(built - begun)
        copying.append(time.process_time() - built)
    assert min(building) < 1.2 * min(copying)
