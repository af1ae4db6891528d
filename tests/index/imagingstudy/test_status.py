"""Orders, steps, withdrawal, and what a version cannot express."""

from dataclasses import replace

import pytest

from index.errors import NotExpressible
from index.imagingstudy import Rules, build
from index.records import Attributes, Order, Patient, ProcedureStep, Series, Study
from support.fhirjudges import judge
from support.imagingstudies import CT, RULES, code, ct_two_series, instance, resources, series

ORDERED = Study("1.2.3", Patient("p", {"PatientID": "1"}), {}, [], orders=[Order("o", "SCHEDULED", {})])


def with_steps(*states: str) -> Study:
    return replace(ORDERED, steps=[ProcedureStep(f"1.2.{n}", state, {}) for n, state in enumerate(states)])


def with_orders(*states: str) -> Study:
    return replace(ORDERED, orders=[Order(f"o{n}", state, {}) for n, state in enumerate(states)])


@pytest.mark.parametrize("version", ["r4", "r5"])
@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (ORDERED, "registered"),
        (with_steps("IN PROGRESS"), "registered"),
        (with_steps("DISCONTINUED", "IN PROGRESS"), "registered"),
        (with_steps("COMPLETED"), "registered"),
        (with_steps("DISCONTINUED"), "cancelled"),
        (with_orders("CANCELLED"), "cancelled"),
        (with_orders("CANCELLED", "STARTED"), "registered"),
        (replace(ORDERED, orders=()), "unknown"),
        (replace(ct_two_series(), steps=with_steps("DISCONTINUED").steps), "available"),
        (replace(ct_two_series(), withdrawn=True), "entered-in-error"),
    ],
)
def test_status(study: Study, version: str, expected: str) -> None:
    made = resources(study, version, RULES)
    judge(made, version)
    assert expected == made[0]["status"]


@pytest.mark.parametrize(
    ("study", "reason"),
    [
        (ORDERED, "no instance yet"),
        (replace(ct_two_series(), withdrawn=True), "withdrawn"),
        (replace(ct_two_series(), uid="1.02.3"), "no valid urn:oid"),
        (replace(ct_two_series(), series=[Series("1.2.4", {}, [])]), "no instance yet"),
    ],
)
def test_dstu2_says_what_it_cannot_express(study: Study, reason: str) -> None:
    with pytest.raises(NotExpressible, match=reason):
        build(study, "dstu2", RULES)


@pytest.mark.parametrize("version", ["r4", "r5"])
def test_withdrawn_is_gone_by_configuration(version: str) -> None:
    with pytest.raises(NotExpressible, match="by configuration"):
        build(replace(ct_two_series(), withdrawn=True), version, Rules(withdrawn="gone"))


@pytest.mark.parametrize("version", ["r4", "r5"])
def test_uid_with_leading_zeros_is_written_as_it_stands(version: str) -> None:
    made = build(replace(ct_two_series(), uid="1.02.3"), version, RULES)
    judge(made.resources, version)
    assert "urn:oid:1.02.3" == made.resources[0]["identifier"][0]["value"]
    assert "study 1.02.3: UID is no valid urn:oid, written as it stands" in made.issues


def test_unknown_version_is_refused() -> None:
    with pytest.raises(ValueError, match="'r3' is none of dstu2, r4, r5"):
        build(ORDERED, "r3", RULES)


@pytest.mark.parametrize("version", ["dstu2", "r4", "r5"])
def test_order_fills_what_the_instances_leave_out(version: str) -> None:
    order = Order(
        "order/1",
        "STARTED",
        {
            "AccessionNumber": "A-9",
            "IssuerOfAccessionNumberSequence": [{"LocalNamespaceEntityID": "CITY"}],
            "RequestedProcedureDescription": "Asked for",
            "RequestedProcedureCodeSequence": [code("X", "99RIS", "X-ray")],
            "ReferringPhysicianName": "House^Gregory",
            "ReasonForTheRequestedProcedure": "fall",
        },
    )
    bare = replace(ct_two_series(), attributes={}, orders=[order], steps=())
    made = resources(bare, version, RULES)
    judge(made, version)
    study = made[0]
    accession = study["accession"] if version == "dstu2" else study["identifier"][1]
    assert ("urn:oid:2.999.1", "A-9") == (accession["system"], accession["value"])
    assert "Asked for" == study["description"]
    assert "Gregory House" == study["referrer"]["display"]
    coded = {
        "coding": [{"system": "https://example.org/procedures", "code": "X", "display": "X-ray"}],
        "text": "X-ray",
    }
    if version == "dstu2":
        # What was only asked for is in the order, and no completed Procedure.
        assert "procedure" not in study
        (asked,) = [found for found in made if found["resourceType"] == "DiagnosticOrder"]
        assert [{"code": coded}] == asked["item"]
    elif version == "r4":
        assert ([coded], [{"text": "fall"}]) == (study["procedureCode"], study["reasonCode"])
    else:
        assert ([{"concept": coded}], [{"concept": {"text": "fall"}}]) == (
            study["procedure"],
            study["reason"],
        )


@pytest.mark.parametrize("version", ["dstu2", "r4", "r5"])
def test_a_code_that_was_only_requested_is_no_procedure(version: str) -> None:
    """FHIR DSTU2 ProcedureStatus has no word for it: completed would say what is not so."""
    asked = {"RequestedProcedureCodeSequence": [code("X", "99RIS", "X-ray")]}
    of = series("1.2.3.4", [instance("1.2.3.4.5", CT)], RequestAttributesSequence=[asked])
    made = resources(Study("1.2.3", Patient("p", {}), asked, [of]), version, RULES)
    assert not [found for found in made if found["resourceType"] == "Procedure"]


def started(version: str, study: Attributes, *of: Attributes) -> tuple[str, list[str], list[str]]:
    """Return when the study and its series start, and the doubts about that."""
    found = [
        series(f"1.2.3.{n}", [instance(f"1.2.3.{n}.1", CT)], Modality="CT", **one)
        for n, one in enumerate(of, start=4)
    ]
    made = build(Study("1.2.3", Patient("p", {}), study, found), version, RULES)
    judge(made.resources, version)
    main = made.resources[0]
    return main["started"], [one["started"] for one in main["series"]], made.issues


def at(level: str, date: str, time: str = "", zone: str = "") -> Attributes:
    """Return the date, time and zone attributes of a level."""
    found = {f"{level}Date": date, f"{level}Time": time, "TimezoneOffsetFromUTC": zone}
    return {keyword: value for keyword, value in found.items() if value}


@pytest.mark.parametrize("version", ["dstu2", "r4", "r5"])
@pytest.mark.parametrize(
    ("study", "of", "expected"),
    [
        (
            at("Study", "20240110", "101500"),
            [at("Series", "20240110", "101400")],
            "2024-01-10T10:14:00+01:00",
        ),
        (
            at("Study", "20240110", "101500"),
            [
                at("Series", "20240110", "101600"),
                at("Series", "20240109", "235959"),
                at("Series", "20240110"),
            ],
            "2024-01-09T23:59:59+01:00",
        ),
        (at("Study", "20240110", "101500"), [at("Series", "20240109")], "2024-01-09"),
        # The same moment, or later, in another zone.
        (
            at("Study", "20240110", "001000", "+0100"),
            [at("Series", "20240109", "235000", "+0000")],
            "2024-01-10T00:10:00+01:00",
        ),
        # A date alone holds every time of its day.
        (at("Study", "20240110"), [at("Series", "20240110", "080000")], "2024-01-10"),
        (at("Study", "20240110", "101500"), [at("Series", "20240110")], "2024-01-10T10:15:00+01:00"),
        (at("Study", "00010101", "000000", "+1400"), [at("Series", "99991231", "235959", "-1400")], None),
    ],
)
def test_no_series_starts_before_its_study(
    version: str, study: Attributes, of: list[Attributes], expected: str | None
) -> None:
    """FHIR R6 demands it; the study's start is the earliest of both."""
    found, _, said = started(version, study, *of)
    own, _, none = started(version, study, study | {"SeriesDate": "99991231"})
    assert (expected or own) == found
    assert (found != own) == any("starts before its study" in doubt for doubt in said)
    assert [] == none


def test_step_that_ends_before_it_starts_has_no_end() -> None:
    attributes = {
        "PerformedProcedureStepStartDate": "20240702",
        "PerformedProcedureStepEndDate": "20240701",
    }
    made = build(replace(ORDERED, steps=[ProcedureStep("1.9", "COMPLETED", attributes)]), "r5", RULES)
    procedure = next(found for found in made.resources if found["resourceType"] == "Procedure")
    assert {"start": "2024-07-02"} == procedure["occurrencePeriod"]
    assert ["step 1.9: ends before it starts, the end is left out"] == made.issues


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"dicomweb_base": "pacs/dicom-web"}, "dicomweb_base"),
        ({"timezone": "Nowhere/Town"}, "timezone"),
        ({"patient_system": "no uri"}, "patient_system"),
        ({"issuer_systems": {"A": "no uri"}}, r"issuer_systems\.A"),
        ({"coding_systems": {"99X": "x y"}}, r"coding_systems\.99X"),
        ({"withdrawn": "deleted"}, "withdrawn"),
    ],
)
def test_wrong_rules_are_named(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Rules(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("version", "status", "expected"),
    [
        ("dstu2", "STARTED", "in-progress"),
        ("dstu2", "elsewhere", None),
        ("r4", "DISCONTINUED", "revoked"),
        ("r4", "elsewhere", "unknown"),
        ("r5", "SCHEDULED", "active"),
    ],
)
def test_status_of_an_order(version: str, status: str, expected: str | None) -> None:
    study = replace(ct_two_series(), orders=[Order("o", status, {})])
    made = {found["id"]: found for found in resources(study, version, RULES)}
    assert expected == made["o"].get("status")
