"""Searches: every parameter of every version, modifiers, order, pages, and what goes with a page."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from index import Index
from index.database.tables import Resource, ResourceTerm
from index.imagingstudy import VERSIONS
from index.publication.terms.filling import TermFilling, without_terms
from index.publication.terms.parameters import PARAMETERS, Kind
from support.dicom import ROOT, instance
from support.fhir_rest import BASE, client, published
from support.fhirjudges import model
from support.filling import keep

COMMON = {"SpecificCharacterSet": "ISO_IR 192", "TimezoneOffsetFromUTC": "+0200"}
JANE = {"PatientID": "P1", "PatientName": "Müller^Jane", "PatientBirthDate": "19700101", "PatientSex": "F"}
JOHN = {
    "PatientID": "P2",
    "PatientName": "Smith, the first^John",
    "PatientBirthDate": "19800229",
    "PatientSex": "M",
}
FIRST = {
    "Modality": "CT",
    "AccessionNumber": "ACC1",
    "StudyDate": "20240501",
    "StudyTime": "233000",
    "BodyPartExamined": "CHEST",
    "ReferringPhysicianName": "Ref^Er",
    "InstitutionName": "Hospital",
}
SECOND = {
    "Modality": "MR",
    "AccessionNumber": "ACC2",
    "StudyDate": "20240502",
    "StudyTime": "001500",
    "BodyPartExamined": "HEAD",
}
THIRD = {"Modality": "CT", "StudyDate": "", "StudyTime": "", "AccessionNumber": ""}
STUDIES = [
    instance(1, 1, 1, **COMMON, **JANE, **FIRST),
    instance(2, 1, 1, **COMMON, **JOHN, **SECOND),
    instance(3, 1, 1, **COMMON, **JANE, **THIRD),
]
DCM = "http://dicom.nema.org/resources/ontology/DCM"
SAME = {
    "": "123",
    "modality=CT": "13",
    "modality=ct": "13",
    "modality=CT,MR": "123",
    "modality=CT&modality=MR": "",
    "modality:not=CT": "2",
    "modality=|CT": "",
    "patient.identifier=P2": "2",
    "patient.name=mull": "13",
    "patient:Patient.family=smith\\, the": "2",
    "patient.gender=male": "2",
    "patient.birthdate=1980": "2",
    "patient=Patient/none": "",
    "patient=http://elsewhere/Patient/none": "",
    "series=" + f"{ROOT}.2.1": "2",
    f"series=urn:oid:{ROOT}.2.1,{ROOT}.3.1": "23",
    "dicom-class=1.2.840.10008.5.1.4.1.1.2,urn:oid:1.2.3": "123",
    "series:missing=true": "",
    "series:missing=false": "123",
    # By the date where it was told, or as a moment in time.
    "started=2024-05-01": "1",
    "started=2024-05-01T21:30:00Z": "1",
    "started=2024-05-01T21:30Z": "1",
    "started=2024-05-01T23:30:00+02:00": "1",
    "started=lt2024-05-01T22:00:00Z": "1",
    "started=gt2024-05-01T22:00:00Z": "2",
    "started=2024": "12",
    "started=ne2024-05-01": "2",
    "started=gt2024-05-01": "2",
    "started=ge2024-05-02": "2",
    "started=le2024-05-01": "1",
    "started=lt2024-05-02": "1",
    "started=sa2024-05-01": "2",
    "started=eb2024-05-02": "1",
    "started=ap2024-05-02": "12",
    "started=ge2024-05-01&started=lt2024-05-02": "1",
    "started=2024-05-01,2024-05-02": "12",
    "started:missing=true": "3",
    "started:missing=false": "12",
    f"_id={ROOT}.1,{ROOT}.3,x": "13",
    "_id=x": "",
    "_lastUpdated=gt2020-01-01": "123",
    "_lastUpdated=lt2020-01-01T00:00:00Z": "",
    "_sort=started": "123",
    "_sort=-started": "213",
    "_sort=-_lastUpdated": "321",
    "_sort=_id": "123",
    "_sort=-_id": "321",
    "_sort=modality": "132",
}
OF_VERSION = {
    "dstu2": {
        "accession=ACC1": "1",
        "accession:missing=true": "3",
        "bodysite=816094009": "1",
        f"study=urn:oid:{ROOT}.2": "2",
        f"study={ROOT}.2": "2",
        f"uid=urn:oid:{ROOT}.2.1.1": "2",
        "order:missing=true": "123",
        "_sort:desc=started": "213",
        "_sort:asc=started": "123",
        "modality=http://nema.org/dicom/dicm|": "123",
    },
    "r4": {
        "identifier=ACC1": "1",
        f"identifier=urn:dicom:uid|urn:oid:{ROOT}.2": "2",
        "identifier=urn:dicom:uid|": "123",
        "identifier=|ACC1": "1",
        "bodysite=http://snomed.info/sct|816094009": "1",
        f"instance={ROOT}.2.1.1": "2",
        f"instance:not={ROOT}.2.1.1": "13",
        "basedon:identifier=ACC2": "2",
        "basedon:missing=true": "3",
        "referrer.name=ref": "1",
        "referrer:missing=false": "1",
        "subject.identifier=P1": "13",
        "endpoint.status=active": "123",
        "endpoint:missing=false": "123",
        "status=available": "123",
        "status=http://hl7.org/fhir/imagingstudy-status|available": "123",
        "status:not=available": "",
        "interpreter:missing=true": "123",
        "encounter:missing=false": "",
        "performer:missing=true": "123",
        "reason:missing=true": "123",
        f"modality={DCM}|CT": "13",
    },
    "r5": {
        "identifier=ACC1": "1",
        "body-site=816094009": "1",
        "body-structure:missing=true": "123",
        f"instance={ROOT}.2.1.1": "2",
        "based-on:identifier=ACC2": "2",
        "subject.identifier=P1": "13",
        "status=available": "123",
        "referrer.name=ref": "1",
        f"modality={DCM}|CT": "13",
    },
}
PATIENTS = {
    "name=müller": "P1",
    "name=MULLER": "P1",
    "name=jan": "P1",
    "name:exact=Müller": "P1",
    "name:exact=muller": "",
    "name:contains=ulle": "P1",
    "family=smith": "P2",
    "given=john": "P2",
    "name=ohn": "",
    "identifier=P1": "P1",
    "identifier:not=P1": "P2",
    "birthdate=1970-01-01": "P1",
    "birthdate=ge1980": "P2",
    "gender=female": "P1",
    "_sort=-name": "P2 P1",
    "_sort=birthdate": "P1 P2",
    "_sort=-birthdate": "P2 P1",
}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with published(tmp_path / "data", *STUDIES, base_url="http://pacs.example/dicom-web") as index:
        yield index


def got(web: TestClient, path: str) -> dict[str, Any]:
    answer = web.get(f"/fhir/{path}", headers={"Prefer": "handling=strict"})
    assert 200 == answer.status_code, answer.text
    return answer.json()


def named(bundle: dict[str, Any], mode: str = "match") -> list[str]:
    entries = bundle.get("entry", ())
    return [entry["resource"]["id"] for entry in entries if mode == entry["search"]["mode"]]


def escaped(query: str) -> str:
    return quote(query, safe="&=:|,")


@pytest.mark.parametrize("fhir", VERSIONS)
def test_what_each_parameter_finds(index: Index, fhir: str) -> None:
    """R4 and R5 3.1.1, DSTU2 2.1.1."""
    web = client(index)
    expected = SAME | OF_VERSION[fhir]
    found = {}
    for query in expected:
        bundle = got(web, f"{fhir}/ImagingStudy?{escaped(query)}")
        found[query] = "".join(name.removeprefix(f"{ROOT}.") for name in named(bundle))
        assert len(found[query]) == bundle["total"]
    assert expected == found
    asked = {re.split("[=.:]", part)[0] for query in expected for part in query.split("&")}
    if fhir != "r5":
        assert set(PARAMETERS[fhir, "ImagingStudy"]) <= asked


def test_patients_are_found(index: Index) -> None:
    web = client(index)
    for fhir in VERSIONS:
        found = {}
        for query in PATIENTS:
            entries = got(web, f"{fhir}/Patient?{escaped(query)}").get("entry", ())
            found[query] = " ".join(entry["resource"]["identifier"][0]["value"] for entry in entries)
        assert PATIENTS == found
    for query in (
        "connection-type=dicom-wado-rs",
        "name=hosp",
        "organization.name=Hospital",
        "status=active",
    ):
        assert got(web, f"r4/Endpoint?{query}")["total"]
    assert got(web, "r5/Endpoint?payload-type:missing=false")["total"]


def test_references_are_given_in_each_form(index: Index) -> None:
    web = client(index)
    patient = named(got(web, "r4/Patient?identifier=P1"))[0]
    for form in (
        patient,
        f"Patient/{patient}",
        f"{BASE}/r4/Patient/{patient}",
        f"Patient/{patient}/_history/1",
    ):
        assert 2 == got(web, f"r4/ImagingStudy?patient={form}")["total"]
    assert 2 == got(web, f"r4/ImagingStudy?subject:Patient={patient}")["total"]
    assert 0 == got(web, f"r4/ImagingStudy?patient=http://elsewhere/fhir/r4/Patient/{patient}")["total"]


@pytest.mark.parametrize("order", ["", "&_sort=started", "&_sort=-started", "&_sort=-modality"])
def test_pages_stay_right_while_studies_arrive(index: Index, order: str) -> None:
    """Each page begins behind what the last one ended with, not behind a number of resources."""
    web = client(index)
    whole = named(got(web, f"r4/ImagingStudy?_count=9{order}"))
    page = got(web, f"r4/ImagingStudy?_count=1{order}")
    seen = named(page)
    index.serve()
    arriving = [instance(number, 1, 1, Modality="CT", StudyDate="20240430") for number in (4, 5)]
    while links := [link["url"] for link in page["link"] if link["relation"] == "next"]:
        for dataset in arriving[:1]:
            keep(index, dataset)
            index._publisher.publish_all()
        arriving = arriving[1:]
        page = web.get(links[0]).json()
        seen += named(page)
    assert whole == [name for name in seen if name in whole]
    assert len(seen) == len(set(seen))


def test_what_goes_with_a_page(index: Index) -> None:
    web = client(index)
    included = "_include=ImagingStudy:patient&_include=ImagingStudy:endpoint"
    bundle = got(web, f"r4/ImagingStudy?modality=CT&{included}")
    others = {entry["resource"]["resourceType"] for entry in bundle["entry"][2:]}
    assert {"Endpoint", "Patient"} == others
    assert 2 == bundle["total"]
    bundle = got(web, "r4/Patient?identifier=P1&_revinclude=ImagingStudy:patient")
    assert {f"{ROOT}.1", f"{ROOT}.3"} == set(named(bundle, "include"))
    for fhir in VERSIONS:
        bundle = got(web, f"{fhir}/ImagingStudy?_include=*&_count=9")
        model(bundle, fhir)
        for entry in bundle["entry"]:
            assert entry["fullUrl"].startswith(f"{BASE}/{fhir}/")
            there = web.get(entry["fullUrl"]).json()
            assert there == {name: value for name, value in entry["resource"].items() if name != "meta"}


def test_form_of_a_page(index: Index) -> None:
    web = client(index)
    for fhir in VERSIONS:
        for query in (
            "_summary=true",
            "_elements=started",
            "_summary=count",
            "_summary=text",
            "_pretty=true",
            "foo=1",
        ):
            bundle = web.get(f"/fhir/{fhir}/ImagingStudy?{query}").json()
            model(bundle, fhir)
            assert 3 == bundle["total"]
    assert "entry" not in got(web, "r4/ImagingStudy?_summary=count")
    assert [] == named(got(web, "r4/ImagingStudy?_count=0"))
    assert "total" not in got(web, "r4/ImagingStudy?_total=none")
    posted = web.post("/fhir/r4/ImagingStudy/_search?_count=1", data={"modality": "CT"}).json()
    assert (2, 1) == (posted["total"], len(posted["entry"]))
    assert 415 == web.post("/fhir/r4/ImagingStudy/_search", json={"modality": "CT"}).status_code
    assert 413 == web.post("/fhir/r4/ImagingStudy/_search", content=b"a=" + b"b" * 100_000).status_code


def test_unknown_parameters_are_named(index: Index) -> None:
    """Prefer: handling (R4 3.1.1.4.2)."""
    web = client(index)
    unknown = (
        "foo=1",
        "_foo=1",
        "modality=",
        "_sort=foo",
        "_sort=patient",
        "_include=ImagingStudy:foo",
        "_include=Patient:organization",
        "_include:iterate=ImagingStudy:patient",
        "_revinclude=ImagingStudy:referrer",
        "modality.name=x",
        "patient.foo=1",
        "patient.identifier.foo=1",
    )
    for query in unknown:
        answer = web.get(f"/fhir/r4/ImagingStudy?{query}")
        bundle = answer.json()
        assert (3, ["outcome"]) == (
            bundle["total"],
            [entry["search"]["mode"] for entry in bundle["entry"] if entry["search"]["mode"] != "match"],
        ), query
        assert f"{BASE}/r4/ImagingStudy" == bundle["link"][0]["url"]
        strict = web.get(f"/fhir/r4/ImagingStudy?{query}", headers={"Prefer": "handling=strict"})
        assert (400, "not-supported") == (strict.status_code, strict.json()["issue"][0]["code"])
    for query in (
        "modality:foo=CT",
        "started=yesterday",
        "started=2024-02-30",
        "started=gt",
        "started:missing=maybe",
        "_count=-1",
        "_count=x",
        "_total=some",
        "_lastUpdated=x",
        "_after=x",
        "_after=WzEsInMiXQ",
        "_sort:foo=started",
        "modality=" + "CT," * 501,
        "&".join(["modality=CT"] * 101),
    ):
        assert 400 == web.get(f"/fhir/r4/ImagingStudy?{query}").status_code, query


def test_terms_follow_their_resources(index: Index) -> None:
    database = index._database
    web = client(index)
    index.delete(f"{ROOT}.2")
    index.publish()
    assert "13" == "".join(name[-1] for name in named(got(web, "r4/ImagingStudy")))
    live = {row for (row,) in database.rows(Resource.select(Resource.id).where(Resource.deleted == 0))}
    assert live >= {row for (row,) in database.rows(ResourceTerm.select(ResourceTerm.resource))}
    # As an earlier version has left them.
    before = sorted(database.rows(_terms()))
    with database.writing():
        database.execute(ResourceTerm.delete())
        database.execute(Resource.update(terms=0))
    bundle = got(web, "r4/ImagingStudy?modality=CT")
    assert (0, "outcome") == (bundle["total"], bundle["entry"][0]["search"]["mode"])
    filling = TermFilling(database)
    while not filling.is_done:
        filling.go_on()
    assert before == sorted(database.rows(_terms()))
    assert [] == database.rows(Resource.select().where(without_terms()))
    assert 2 == got(web, "r4/ImagingStudy?modality=CT")["total"]


def _terms() -> Any:
    row = ResourceTerm
    return row.select(row.resource, row.parameter, row.system, row.value, row.exact)


def test_numbers_of_parameters_are_unique() -> None:
    numbers = [
        number
        for parameters in PARAMETERS.values()
        for each in parameters.values()
        for number in (each.number, each.of_identifiers, each.of_instants)
    ]
    assert len(numbers) == len(set(numbers))
    assert {Kind(kind) for kind in Kind} == {
        each.kind for table in PARAMETERS.values() for each in table.values()
    }
