"""The profile IHE RAD MADO: what it adds and changes, and that every resource keeps its constraints."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from pydicom.sr.codedict import codes
from test_builders_fuzz import STUDIES as ANY_STUDIES

from index import FhirSettings, Index
from index.errors import NotExpressible
from index.imagingstudy import Rules, build
from index.imagingstudy.versions.mado import TITLES
from index.records import Order, Patient, Study
from support.dicom import instance as stored_instance
from support.fhirjudges import judge
from support.filling import STORAGE, keep
from support.imagingstudies import CT, KO, RULES, STUDIES, code, ct_two_series, instance, resources, series
from support.mado import ABSENT, BASE, DCM, conforms

MADO = replace(RULES, profile="mado")
BARE = Rules(profile="mado")
UID = "1.2.3"


def made(study: Study, rules: Rules = MADO) -> list[dict[str, Any]]:
    found = resources(study, "r4", rules)
    judge(found, "r4")
    conforms(found)
    return found


def one_series(*instances: Any, study: dict[str, Any] | None = None, **attributes: Any) -> Study:
    held = list(instances) or [instance(f"{UID}.1.1", CT)]
    found = series(f"{UID}.1", held, Modality="CT", **attributes)
    return Study(UID, Patient("p", {"PatientID": "1"}), study or {}, [found])


@pytest.mark.parametrize("rules", [MADO, BARE])
@pytest.mark.parametrize("name", STUDIES)
def test_every_study_conforms(name: str, rules: Rules) -> None:
    made(STUDIES[name](), rules)


@pytest.mark.parametrize("version", ["dstu2", "r5"])
@pytest.mark.parametrize("name", STUDIES)
def test_other_versions_are_as_they_are(name: str, version: str) -> None:
    assert resources(STUDIES[name](), version, RULES) == resources(STUDIES[name](), version, MADO)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(study=ANY_STUDIES)
def test_whatever_is_stored_conforms(study: Study) -> None:
    for rules in (MADO, BARE):
        try:
            made(study, rules)
        except NotExpressible:
            return


def test_the_study_is_named_by_type_110180() -> None:
    assert {
        "type": {"coding": [{"system": DCM, "code": "110180", "display": "Study Instance UID"}]},
        "system": "urn:dicom:uid",
        "value": f"urn:oid:{UID}",
    } == made(one_series())[0]["identifier"][0]


@pytest.mark.parametrize(
    ("rules", "system"),
    [(MADO, {"system": "https://example.org/accessions"}), (BARE, {"_system": ABSENT})],
)
def test_a_logical_request(rules: Rules, system: dict[str, Any]) -> None:
    found = made(one_series(study={"AccessionNumber": "A-1"}), rules)[0]
    types = [
        {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"},
        {"system": DCM, "code": "121022", "display": "Accession Number"},
    ]
    expected = {"type": {"coding": types}, **system, "value": "A-1"}
    (asked,) = found["basedOn"]
    assert "ServiceRequest" == asked["type"]
    assert expected == asked["identifier"] == found["identifier"][1]


def test_the_identifiers_of_a_matched_order() -> None:
    found = made(ct_two_series())
    (asked,) = found[0]["basedOn"]
    (order,) = (one for one in found if one["resourceType"] == "ServiceRequest")
    assert "ServiceRequest/order-1" == asked["reference"]
    assert asked["identifier"] in order["identifier"]


def test_one_request_and_no_order_that_nothing_refers_to() -> None:
    orders = [Order("a", "STARTED"), *(Order(name, "STARTED", {"AccessionNumber": name}) for name in "bc")]
    found = build(replace(one_series(study={"AccessionNumber": "d"}), orders=orders), "r4", MADO)
    judge(found.resources, "r4")
    conforms(found.resources)
    assert ["ServiceRequest/b"] == [one["reference"] for one in found.resources[0]["basedOn"]]
    assert ["d", "b", "c"] == [one["value"] for one in found.resources[0]["identifier"][1:]]
    assert any("MADO holds one request" in doubt for doubt in found.issues)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, {"_text": ABSENT}),
        ({"StudyDescription": "CT head"}, {"text": "CT head"}),
        (
            {"StudyDescription": "CT head", "ProcedureCodeSequence": [code("X", "99RIS", "Head")]},
            {
                "coding": [{"system": "https://example.org/procedures", "code": "X", "display": "Head"}],
                "text": "Head",
            },
        ),
    ],
)
def test_a_procedure_that_can_be_shown(attributes: dict[str, Any], expected: dict[str, Any]) -> None:
    """Invariant mado-reqproc-1."""
    assert [expected] == made(one_series(study=attributes))[0]["procedureCode"]


def test_a_code_without_meaning_gets_a_text_beside_it() -> None:
    nameless = {"CodeValue": "X", "CodingSchemeDesignator": "99RIS"}
    attributes = {"StudyDescription": "CT head", "ProcedureCodeSequence": [nameless]}
    coded = {"coding": [{"system": "https://example.org/procedures", "code": "X"}]}
    assert [coded, {"text": "CT head"}] == made(one_series(study=attributes))[0]["procedureCode"]


def endpoint(study: Study, rules: Rules) -> dict[str, Any]:
    (found,) = (one for one in made(study, rules) if one["resourceType"] == "Endpoint")
    return found


@pytest.mark.parametrize(
    ("attributes", "configured", "expected"),
    [
        ({}, None, {"_valueString": ABSENT}),
        ({}, "2.999.1", {"valueString": "2.999.1"}),
        ({"RetrieveLocationUID": "2.999.2"}, "2.999.1", {"valueString": "2.999.2"}),
    ],
)
def test_the_place_of_retrieval(
    attributes: dict[str, Any], configured: str | None, expected: dict[str, Any]
) -> None:
    """RetrieveLocationUID (0040,E011), else ours."""
    found = endpoint(one_series(**attributes), replace(MADO, retrieve_location_uid=configured))
    assert [{"url": f"{BASE}MadoRetrieveLocationUIDExtension", **expected}] == found["extension"]
    assert "https://pacs.example.org/dicom-web" == found["address"]


def test_an_address_that_is_not_known() -> None:
    found = endpoint(one_series(), BARE)
    assert ("http://notspecified", ABSENT) == (found["address"], found["_address"])


def test_series_of_two_places_have_two_endpoints() -> None:
    places = ("2.999.1", "2.999.2", "2.999.1")
    held = [
        series(f"{UID}.{n}", [instance(f"{UID}.{n}.1", CT)], Modality="CT", RetrieveLocationUID=place)
        for n, place in enumerate(places)
    ]
    found = made(replace(one_series(), series=held))
    first, second, third = (one["endpoint"] for one in found[0]["series"])
    assert first == third != second
    assert [*first, *second] == found[0]["endpoint"]
    assert 2 == sum(one["resourceType"] == "Endpoint" for one in found)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, None),
        ("120", 120),
        ("1", 1),
        ("0", None),
        ("-1", None),
        ("many", None),
    ],
)
def test_number_of_frames(said: str | None, expected: int | None) -> None:
    attributes = {"NumberOfFrames": said} if said else {}
    ((one,),) = (
        entry["instance"] for entry in made(one_series(instance("1.2.3.4", CT, **attributes)))[0]["series"]
    )
    extension = [{"url": f"{BASE}MadoNumberOfFrames", "valueInteger": expected}] if expected else None
    assert extension == one.get("extension")


@pytest.mark.parametrize(
    ("title", "is_held"),
    [
        (code("113000", "DCM", "Of Interest"), True),
        (code("113001", "DCM", "Rejected for Quality Reasons"), True),
        (code("121144", "DCM", "Document Title"), False),
        (code("113000", "99RIS", "Another scheme"), False),
    ],
)
def test_the_title_of_a_key_object_selection(title: dict[str, str], is_held: bool) -> None:  # noqa: FBT001
    """Value set PS3.16 CID 7010, required."""
    found = build(one_series(instance("1.2.3.4", KO, ConceptNameCodeSequence=[title])), "r4", MADO)
    conforms(found.resources)
    ((one,),) = (entry["instance"] for entry in found.resources[0]["series"])
    coding = {"system": DCM, "code": title["CodeValue"], "display": title["CodeMeaning"]}
    extension = {"url": f"{BASE}MadoKeyObjectDocumentTitle", "valueCodeableConcept": {"coding": [coding]}}
    assert ([extension] if is_held else None) == one.get("extension")
    assert title["CodeMeaning"] == one["title"]
    assert is_held is not any("CID 7010" in doubt for doubt in found.issues)


def test_titles_are_those_of_cid_7010() -> None:
    assert {getattr(codes.cid7010, name).value for name in codes.cid7010.dir()} <= TITLES


def regions(*sites: dict[str, Any]) -> list[dict[str, Any]]:
    held = [
        series(f"{UID}.{n}", [instance(f"{UID}.{n}.1", CT)], Modality="CT", **site)
        for n, site in enumerate(sites)
    ]
    found = made(replace(one_series(), series=held))[0].get("extension", [])
    assert {f"{BASE}MadoAnatomicalRegionExtension"} >= {one["url"] for one in found}
    return [one["valueCodeableConcept"] for one in found]


def coded(value: str, display: str) -> dict[str, Any]:
    return {"coding": [{"system": "http://snomed.info/sct", "code": value, "display": display}]}


HEAD_NECK = coded("774007", "Structure of head and/or neck")
THORAX = coded("67734004", "Thoracic segment of trunk")
LOWER_TRUNK = coded("63337009", "Abdominopelvic segment of trunk")


@pytest.mark.parametrize(
    ("sites", "expected"),
    [
        ([{}], []),
        ([{"BodyPartExamined": "HEAD"}, {"BodyPartExamined": "BRAIN"}], [HEAD_NECK]),
        ([{"BodyPartExamined": "NECKCHESTABDPELV"}], [HEAD_NECK, THORAX, LOWER_TRUNK]),
        ([{"BodyPartExamined": "CHEST"}, {"BodyPartExamined": "KIDNEY"}], [THORAX, LOWER_TRUNK]),
        ([{"AnatomicRegionSequence": [code("64033007", "SCT", "Kidney")]}], [LOWER_TRUNK]),
        (
            [{"AnatomicRegionSequence": [code("44029006", "SCT", "Left lung")]}],
            [coded("44029006", "Left lung")],
        ),
        ([{"BodyPartExamined": "SOMEWHERE"}], [{"text": "SOMEWHERE"}]),
        # A code of another scheme is no SNOMED CT code, whatever its digits are.
        (
            [{"AnatomicRegionSequence": [code("64033007", "99RIS", "Ward")]}],
            [
                {
                    "coding": [
                        {"system": "https://example.org/procedures", "code": "64033007", "display": "Ward"}
                    ]
                }
            ],
        ),
    ],
)
def test_anatomical_regions(sites: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert expected == regions(*sites)


def test_a_series_without_instances_is_left_out() -> None:
    """series.instance is 1..*; numbers count what there is."""
    bad = series(f"{UID}.2", [instance("1.2.a/b", CT)], Modality="CT")
    study = one_series()
    found = build(replace(study, series=[*study.series, bad]), "r4", MADO)
    judge(found.resources, "r4")
    conforms(found.resources)
    assert 1 == len(found.resources[0]["series"])
    assert any("which MADO wants" in doubt for doubt in found.issues)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"profile": "mdo"}, "profile"), ({"retrieve_location_uid": "x"}, "retrieve_location_uid")],
)
def test_wrong_rules_are_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Rules(**wrong)


def test_the_profile_is_set_by_configuration(tmp_path: Path) -> None:
    fhir = FhirSettings(profile="mado", retrieve_location_uid="2.999.1")
    with Index(tmp_path / "data", STORAGE, fhir=fhir) as index:
        sent = stored_instance(NumberOfFrames="3", RetrieveLocationUID="2.999.4")
        keep(index, sent)
        index.publish()
        study = orjson.loads(index.resource(sent.StudyInstanceUID, "r4")[0])
    found = [
        study,
        *(orjson.loads(path.read_bytes()) for path in (tmp_path / "data/fhir/r4/Endpoint").iterdir()),
    ]
    conforms(found)
    assert {"valueInteger": 3}.items() <= study["series"][0]["instance"][0]["extension"][0].items()
    assert ["2.999.4"] == [one["valueString"] for one in found[1]["extension"]]


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"profile": "mdo"}, "profile"), ({"retrieve_location_uid": "x y"}, "retrieve_location_uid")],
)
def test_wrong_settings_are_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        FhirSettings(**wrong)


def test_an_institution_and_a_visit_stay() -> None:
    """MADO endpoints are the plain ones with more: also of an institution, whose Organization comes along."""
    found = made(one_series(InstitutionName="City Hospital", study={"AdmissionID": "V-1"}))
    assert "V-1" == found[0]["encounter"]["identifier"]["value"]
    (organization,) = (one for one in found if one["resourceType"] == "Organization")
    (held,) = (one for one in found if one["resourceType"] == "Endpoint")
    assert ("City Hospital", f"Organization/{organization['id']}") == (
        held["name"],
        held["managingOrganization"]["reference"],
    )
    elsewhere = endpoint(one_series(InstitutionName="Elsewhere"), MADO)
    assert held["id"] != elsewhere["id"] != endpoint(one_series(), MADO)["id"]
