"""What a study refers to: the visit, the institution, the order's schedule, specimens."""

from dataclasses import replace
from typing import Any, Literal

import pytest

from index.imagingstudy import Resource, build
from index.records import Attributes, Disagreed, Order, Patient, Study
from support.fhirjudges import judge
from support.imagingstudies import CT, RULES, code, ct_two_series, instance, series

MODERN = pytest.mark.parametrize("version", ["r4", "r5"])


def made(version: str, study: Study) -> list[Resource]:
    found = build(study, version, RULES).resources
    judge(found, version)
    return found


def one(kind: str, resources: list[Resource]) -> Resource:
    (found,) = [resource for resource in resources if resource["resourceType"] == kind]
    return found


def bare(study: Attributes = {}, orders: tuple[Order, ...] = (), **of_series: Any) -> Study:  # noqa: B006
    of = series("1.2.3.4", [instance("1.2.3.4.5", CT)], Modality="CT", **of_series)
    return Study("1.2.3", Patient("p", {}), study, [of], orders=orders)


@MODERN
@pytest.mark.parametrize(
    ("issuer", "expected"),
    [
        ({"LocalNamespaceEntityID": "CITY"}, {"system": "urn:oid:2.999.1"}),
        ({"UniversalEntityID": "2.999.7", "UniversalEntityIDType": "ISO"}, {"system": "urn:oid:2.999.7"}),
        ({"LocalNamespaceEntityID": "FAR"}, {"assigner": {"display": "FAR"}}),
        ({}, {}),
    ],
)
def test_encounter_is_the_visit_by_its_number(version: str, issuer: Attributes, expected: Resource) -> None:
    """AdmissionID (0038,0010) and its issuer (0038,0014): a reference without an address, by identifier."""
    study = bare({"AdmissionID": "V-1", **({"IssuerOfAdmissionIDSequence": [issuer]} if issuer else {})})
    assert {"type": "Encounter", "identifier": {"value": "V-1", **expected}} == made(version, study)[0][
        "encounter"
    ]


@MODERN
def test_encounter_is_that_of_the_order_where_instances_name_none(version: str) -> None:
    rules = replace(RULES, admission_system="https://example.org/visits")
    study = bare(orders=(Order("o", "COMPLETED", {"AdmissionID": "V-2"}),))
    found = build(study, version, rules).resources[0]["encounter"]["identifier"]
    assert {"system": "https://example.org/visits", "value": "V-2"} == found
    assert "encounter" not in made(version, bare())[0]


@MODERN
def test_no_encounter_where_instances_name_several_visits(version: str) -> None:
    """Nor does an order settle it: a visit is one patient's."""
    said = Disagreed("study", "1.2.3", "AdmissionID", (("V-1", 2), ("V-2", 1)))
    study = bare(orders=(Order("o", "COMPLETED", {"AdmissionID": "V-1"}),))
    assert "encounter" not in made(version, replace(study, disagreements=[said]))[0]


@MODERN
@pytest.mark.parametrize("profile", [None, "mado"])
def test_an_order_is_for_its_own_patient(version: str, profile: Literal["mado"] | None) -> None:
    order = Order("o", "COMPLETED", {"AccessionNumber": "A"}, Patient("other", {"PatientID": "2"}))
    found = build(bare(orders=(order,)), version, replace(RULES, profile=profile)).resources
    judge(found, version)
    assert {"reference": "Patient/p"} == found[0]["subject"]
    assert {"reference": "Patient/other"} == one("ServiceRequest", found)["subject"]
    assert ["p", "other"] == [one["id"] for one in found if one["resourceType"] == "Patient"]
    own = bare(orders=(replace(order, patient=Patient("p", {})),))
    assert "p" == one("Patient", made(version, own))["id"]


@MODERN
def test_endpoint_is_the_institutions(version: str) -> None:
    found = made(version, bare(InstitutionName="City Hospital"))
    endpoint, organization = one("Endpoint", found), one("Organization", found)
    assert ("City Hospital", "City Hospital") == (endpoint["name"], organization["name"])
    assert f"Organization/{organization['id']}" == endpoint["managingOrganization"]["reference"]


@MODERN
def test_endpoint_is_nobodys_where_institutions_differ(version: str) -> None:
    study = bare(InstitutionName="City Hospital")
    other = series("1.2.3.9", [instance("1.2.3.9.5", CT)], Modality="CT", InstitutionName="Elsewhere")
    found = made(version, replace(study, series=[*study.series, other]))
    assert not {"name", "managingOrganization"} & set(one("Endpoint", found))


@MODERN
def test_an_endpoint_has_an_id_for_each_institution(version: str) -> None:
    """Studies share it: its content is a function of its id."""
    names = ("", "City Hospital", "Elsewhere")
    ids = {one("Endpoint", made(version, bare(InstitutionName=name)))["id"] for name in names}
    assert len(names) == len(ids)


@MODERN
def test_order_says_that_it_is_for_imaging_and_when(version: str) -> None:
    step = "ScheduledProcedureStepStart"
    starts = [
        {f"{step}Date": "20240703", f"{step}Time": "0800"},
        {f"{step}Date": "20240702", f"{step}Time": "1000"},
        {f"{step}Date": "", f"{step}Time": ""},
    ]
    orders = (
        Order("o", "SCHEDULED", {"ScheduledProcedureStepSequence": starts}),
        Order("p", "SCHEDULED", {}),
    )
    found = [r for r in made(version, bare(orders=orders)) if r["resourceType"] == "ServiceRequest"]
    assert ["2024-07-02T10:00:00+02:00", None] == [request.get("occurrenceDateTime") for request in found]
    imaging = {"system": "http://snomed.info/sct", "code": "363679005", "display": "Imaging"}
    assert [[{"coding": [imaging]}]] * 2 == [request["category"] for request in found]


@MODERN
def test_specimen_has_its_type(version: str) -> None:
    item = {
        "SpecimenIdentifier": "S1",
        "SpecimenTypeCodeSequence": [code("G-803C", "SRT", "Tissue specimen")],
    }
    found = one("Specimen", made(version, bare(SpecimenDescriptionSequence=[item])))
    assert "Tissue specimen" == found["type"]["text"]


@MODERN
def test_location_is_the_department_of_the_series(version: str) -> None:
    found = made(version, bare(InstitutionalDepartmentName="Radiology"))
    assert "Radiology" == one("Location", found)["name"]


def test_dstu2_has_no_place_for_them() -> None:
    found = made("dstu2", ct_two_series())
    assert not {"Organization", "Endpoint"} & {resource["resourceType"] for resource in found}
    assert "encounter" not in found[0]
