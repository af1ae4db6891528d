"""All Accession Numbers of a study, as identifiers and as what it is based on.

FHIR R4 and R5 ImagingStudy, mapping to DICOM: basedOn is the request that AccessionNumber (0008,0050) names;
a Reference may have an identifier beside or instead of an address (FHIR References, logical references).
IHE RAD TF-1 Section 3.3.3: one study may answer to several requested procedures.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydicom.dataset import Dataset

from index import Index
from index.imagingstudy import Rules, build
from index.imagingstudy.elements.accessions import MAX_ACCESSIONS
from index.records import Attributes, Order, Patient, Study
from support.dicom import instance
from support.fhirjudges import judge
from support.filling import STORAGE, keep
from support.imagingstudies import RULES, ct_two_series, resources, series

MODERN = pytest.mark.parametrize("version", ["r4", "r5"])
CITY = [{"LocalNamespaceEntityID": "CITY"}]
ELSEWHERE = [{"LocalNamespaceEntityID": "ELSEWHERE"}]


def acsn(value: str, system: str | None = "https://example.org/accessions", **others: Any) -> dict[str, Any]:
    coding = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "ACSN"}
    named = {"system": system} if system else {}
    return {"type": {"coding": [coding]}, **named, "value": value, **others}


def logical(*identifiers: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "ServiceRequest", "identifier": one} for one in identifiers]


def study(*requests: Attributes, orders: tuple[Order, ...] = (), **attributes: Any) -> Study:
    found = ct_two_series()
    one = series(found.series[0].uid, list(found.series[0].instances), Modality="CT")
    one = replace(one, attributes={**one.attributes, "RequestAttributesSequence": list(requests)})
    return Study(found.uid, Patient("p", {"PatientID": "1"}), attributes, [one], orders=orders)


def built(found: Study, version: str, rules: Rules = RULES) -> dict[str, Any]:
    made = resources(found, version, rules)
    judge(made, version)
    return made[0]


@MODERN
def test_no_accession_number_no_request(version: str) -> None:
    assert "basedOn" not in built(study(), version)


@MODERN
def test_a_study_without_an_order_names_its_request(version: str) -> None:
    made = built(study(AccessionNumber="A-1"), version)
    assert logical(acsn("A-1")) == made["basedOn"]
    assert [acsn("A-1")] == made["identifier"][1:]


@MODERN
def test_every_accession_number_of_grouped_procedures(version: str) -> None:
    requests = ({"AccessionNumber": "A-2"}, {"AccessionNumber": "A-1"}, {"AccessionNumber": "A-3"})
    made = built(study(*requests, AccessionNumber="A-1"), version)
    expected = [acsn("A-1"), acsn("A-2"), acsn("A-3")]
    assert (expected, logical(*expected)) == (made["identifier"][1:], made["basedOn"])


@MODERN
def test_the_number_of_an_order_stands_beside_its_reference(version: str) -> None:
    order = Order("o", "STARTED", {"AccessionNumber": "A-2"})
    made = built(study({"AccessionNumber": "A-2"}, AccessionNumber="A-1", orders=(order,)), version)
    first = {"reference": "ServiceRequest/o", "identifier": acsn("A-2")}
    assert [first, *logical(acsn("A-1"))] == made["basedOn"]
    assert [acsn("A-1"), acsn("A-2")] == made["identifier"][1:]


@MODERN
def test_an_order_without_accession_number_has_another_identifier(version: str) -> None:
    order = Order("o", "STARTED", {"PlacerOrderNumberImagingServiceRequest": "P-1"})
    bare = Order("bare", "STARTED", {})
    made = built(study(orders=(order, bare)), version)
    coding = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "PLAC"}
    placer = {"type": {"coding": [coding]}, "value": "P-1"}
    assert [
        {"reference": "ServiceRequest/o", "identifier": placer},
        {"reference": "ServiceRequest/bare"},
    ] == made["basedOn"]


@MODERN
def test_one_number_whose_issuer_only_one_source_names_is_one(version: str) -> None:
    order = Order("o", "STARTED", {"AccessionNumber": "A-1", "IssuerOfAccessionNumberSequence": CITY})
    made = built(study({"AccessionNumber": "A-1"}, AccessionNumber="A-1", orders=(order,)), version)
    expected = acsn("A-1", "urn:oid:2.999.1")
    assert [expected] == made["identifier"][1:]
    assert [{"reference": "ServiceRequest/o", "identifier": expected}] == made["basedOn"]


@MODERN
def test_the_same_number_of_two_issuers_is_two(version: str) -> None:
    requests = (
        {"AccessionNumber": "1", "IssuerOfAccessionNumberSequence": CITY},
        {"AccessionNumber": "1", "IssuerOfAccessionNumberSequence": ELSEWHERE},
    )
    made = built(study(*requests), version)
    expected = [acsn("1", "urn:oid:2.999.1"), acsn("1", None, assigner={"display": "ELSEWHERE"})]
    assert (expected, logical(*expected)) == (made["identifier"][1:], made["basedOn"])


def test_dstu2_holds_one_and_keeps_the_others() -> None:
    made = built(study({"AccessionNumber": "A-2"}, AccessionNumber="A-1", StudyID="S-1"), "dstu2")
    assert "A-1" == made["accession"]["value"]
    assert ["S-1", "A-2"] == [one["value"] for one in made["identifier"]]


@MODERN
def test_more_than_one_study_can_have_is_a_doubt(version: str) -> None:
    made = build(study(*({"AccessionNumber": str(n)} for n in range(MAX_ACCESSIONS + 5))), version, RULES)
    judge(made.resources, version)
    assert MAX_ACCESSIONS == len(made.resources[0]["basedOn"])
    assert any("Accession Numbers" in doubt for doubt in made.issues)


def requesting(number: int, *accessions: str, **attributes: Any) -> Dataset:
    """An instance of one series that answers to these requests."""
    made = instance(1, 1, number, **attributes)
    made.RequestAttributesSequence = []
    for accession in accessions:
        item = Dataset()
        item.AccessionNumber = accession
        made.RequestAttributesSequence.append(item)
    return made


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0)])
def test_what_the_instances_of_one_series_say_is_all_kept(tmp_path: Path, order: tuple[int, ...]) -> None:
    """A study's and a series' values are elected: what is not elected was lost."""
    made = [
        requesting(1, "R-1", AccessionNumber="A-1"),
        requesting(2, "R-1", AccessionNumber="A-1"),
        requesting(3, "R-2", "R-3", AccessionNumber="A-2"),
        requesting(4, AccessionNumber=""),
    ]
    with Index(tmp_path / "data", STORAGE) as index:
        for place in order:
            keep(index, made[place])
        study = orjson.loads(index.resource(made[0].StudyInstanceUID, "r4")[0])
    assert ["A-1", "R-1", "A-2", "R-2", "R-3"] == [one["value"] for one in study["identifier"][1:]]
    assert ["A-1", "R-1", "A-2", "R-2", "R-3"] == [one["identifier"]["value"] for one in study["basedOn"]]
