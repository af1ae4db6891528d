"""Servers that give ids, and servers that are the masters of patients: nothing is ever there twice."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from index import FhirSettings, TargetFilter
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.fhir_server import FhirServer, Request, Response
from support.filling import keep
from support.targets import FHIR, Site, here, target

Sites = Callable[..., Site]
SYSTEM = "http://clinic.example/patients"
LICENCES = "http://clinic.example/licences"


def patient(name: str, number: str = "P1", **others: Any) -> dict[str, Any]:
    identifiers = [{"system": SYSTEM, "value": number}]
    return {"resourceType": "Patient", "id": name, "identifier": identifiers, **others}


def reasons(site: Site) -> list[str]:
    return [one.error for one in site.index.targets.listing.entries(TargetFilter(), waiting=True)]


def subjects(server: FhirServer) -> list[dict[str, Any]]:
    return [one["subject"] for one in server.of("ImagingStudy")]


@pytest.mark.parametrize("method", ["transaction", "resources"])
@pytest.mark.parametrize("version", ["dstu2", "r4"])
def test_ids_of_the_server_by_conditional_update(
    site: Sites, tmp_path: Path, method: str, version: str
) -> None:
    server = FhirServer(version)
    # They were there before.
    server.resources["Patient/77"] = patient("77")
    server.resources["ImagingStudy/78"] = {
        "resourceType": "ImagingStudy",
        "id": "78",
        "uid": f"urn:oid:{ROOT}.1",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{ROOT}.1"}],
    }
    made = site(target(server, method=method, write="conditional"))
    for study in (1, 2, 3):
        keep(made.index, instance(study, PatientID="P1", ReferringPhysicianName="House^Greg"))
    assert made.is_published()
    made.close()
    made = site(target(server, method=method, write="conditional"))
    keep(made.index, instance(1, 1, 2, PatientID="P1"))
    assert made.is_published()
    assert [] == made.left()
    (only,) = server.of("Patient")
    assert "77" == only["id"]
    studies = {one["id"]: one for one in server.of("ImagingStudy")}
    assert 3 == len(studies)
    assert 2 == studies["78"]["numberOfInstances"]
    key = "patient" if version == "dstu2" else "subject"
    assert {"Patient/77"} == {one[key]["reference"] for one in studies.values()}
    # As many of each kind as here: what has no identifier of its own was not made twice.
    assert len(here(tmp_path / "data", version)) == len(server.resources)
    assert {one["referrer"]["reference"] for one in studies.values()} == {
        f"Practitioner/{one['id']}" for one in server.of("Practitioner")
    }
    server.close()


def test_a_deleted_study_is_found_by_its_uid(site: Sites, server: FhirServer) -> None:
    made = site(target(server, write="conditional"))
    keep(made.index, instance(1))
    assert made.is_published()
    made.close()
    from index.database.target_tables import PublishedAtTarget

    made = site()
    with made.index._database.writing():
        made.index._database.execute(PublishedAtTarget.delete())
    made.index.delete(f"{ROOT}.1")
    assert eventually(lambda: not made.index.studies() and "ImagingStudy" not in str(here(made.index.data)))
    made.close()
    made = site(target(server, write="conditional"))
    assert eventually(lambda: not server.of("ImagingStudy"))
    assert made.is_published()
    # The patient may be another's too.
    assert 1 == len(server.of("Patient"))


def test_several_that_fit_are_left_to_a_person(site: Sites, server: FhirServer) -> None:
    server.resources["Patient/1"], server.resources["Patient/2"] = patient("1"), patient("2")
    made = site(target(server, write="conditional"))
    keep(made.index, instance())
    assert eventually(lambda: made.states() == {"dead"})
    assert ["412 Precondition Failed: the server has another version, or several that fit"] == reasons(made)
    assert 2 == len(server.of("Patient"))


def test_a_study_is_held_back_until_its_patient_is_there(site: Sites, server: FhirServer) -> None:
    made = site(target(server, patients="look-up"))
    for study in (1, 2):
        keep(made.index, instance(study))
    assert eventually(lambda: made.states() == {"held"} and len(made.left()) == 2)
    assert ["the server does not have the Patient yet"] * 2 == reasons(made)
    assert ([], {}) == (server.writes, made.index.targets.failing())
    server.resources["Patient/77"] = patient("77")
    assert eventually(lambda: 1 == len(server.of("ImagingStudy")))
    assert [{"reference": "Patient/77"}] == subjects(server)
    assert eventually(lambda: [f"{ROOT}.2"] == [name for _, name, *_ in made.left()])
    assert 1 == len(server.of("Patient"))


def test_or_it_is_sent_with_a_reference_by_identifier(site: Sites, server: FhirServer) -> None:
    made = site(target(server, patients="look-up", unknown_patients="logical"))
    keep(made.index, instance())
    assert eventually(lambda: made.states() == {"held"})
    ((subject),) = subjects(server)
    assert ("Patient", "P1") == (subject["type"], subject["identifier"]["value"])
    assert "reference" not in subject
    count = len(server.writes)
    server.resources["Patient/77"] = patient("77")
    assert eventually(lambda: not made.left())
    assert [{"reference": "Patient/77"}] == subjects(server)
    # While it was unknown nothing was sent in vain.
    assert count + 1 == len(server.writes)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ([patient("1"), patient("2")], "the server has 2 resources Patient with one identifier"),
        ([patient("1", "P2")], "the server does not have the Patient yet"),
    ],
)
def test_a_patient_that_is_not_certain_is_none(
    site: Sites, server: FhirServer, there: list[dict[str, Any]], expected: str
) -> None:
    def careless(request: Request) -> Response | None:
        """It ignores what it is asked for, as servers do with parameters that they do not know."""
        if not request.path.startswith("/fhir/Patient?"):
            return None
        found = [{"resource": one} for one in there]
        return Response(200, {"resourceType": "Bundle", "type": "searchset", "entry": found})

    server.script = careless
    made = site(target(server, patients="look-up"))
    keep(made.index, instance())
    assert eventually(lambda: reasons(made) == [expected])
    assert [] == server.writes


def test_a_merged_patient_leads_on(site: Sites, server: FhirServer) -> None:
    link = [{"type": "replaced-by", "other": {"reference": "Patient/2"}}]
    server.resources["Patient/1"] = patient("1", active=False, link=link)
    server.resources["Patient/2"] = patient("2", "P7")
    made = site(target(server, patients="look-up"))
    keep(made.index, instance())
    assert made.is_published()
    assert [{"reference": "Patient/2"}] == subjects(server)


def test_an_identifier_without_a_system_is_no_key(site: Sites, server: FhirServer) -> None:
    server.resources["Patient/1"] = patient("1")
    made = site(target(server, patients="look-up"), fhir=FhirSettings())
    keep(made.index, instance())
    assert eventually(lambda: made.states() == {"held"})
    (reason,) = reasons(made)
    assert "the Patient has no identifier with a system, by which the server could be asked for it" == reason


def test_a_patient_that_the_server_has_replaced_is_asked_for_again(site: Sites, server: FhirServer) -> None:
    server.resources["Patient/1"] = patient("1")
    made = site(target(server, patients="look-up"))
    keep(made.index, instance(1, 1, 1))
    assert made.is_published()
    server.resources["Patient/2"] = patient("2")
    del server.resources["Patient/1"]
    server.script = lambda request: Response(400) if b'"Patient/1"' in request.body else None
    keep(made.index, instance(1, 1, 2))
    assert made.is_published()
    assert [{"reference": "Patient/2"}] == subjects(server)


def test_other_masters(site: Sites, server: FhirServer) -> None:
    fhir = FHIR.model_copy(update={"practitioner_system": LICENCES})
    server.resources["Practitioner/9"] = {
        "resourceType": "Practitioner",
        "id": "9",
        "identifier": [{"system": LICENCES, "value": "4711"}],
    }
    from pydicom.dataset import Dataset

    def item(**values: str) -> Dataset:
        made = Dataset()
        for keyword, value in values.items():
            setattr(made, keyword, value)
        return made

    def identified(number: str) -> list[Dataset]:
        person = Dataset()
        code = {"CodeValue": number, "CodingSchemeDesignator": "99X", "CodeMeaning": "Dr"}
        person.PersonIdentificationCodeSequence = [item(**code)]
        person.InstitutionName = "Clinic"
        return [person]

    made = site(target(server, look_up=["Practitioner", "Endpoint", "Organization"]), fhir=fhir)
    for study, number in ((1, "4711"), (2, "4712")):
        known = {"ReferringPhysicianName": "House^Greg"}
        known["ReferringPhysicianIdentificationSequence"] = identified(number)
        keep(made.index, instance(study, **known))
    assert eventually(lambda: 2 == len(server.of("ImagingStudy")))
    first, second = (one["referrer"] for one in server.of("ImagingStudy"))
    assert {"reference": "Practitioner/9", "display": "Greg House"} == first
    assert "4712" == second["identifier"]["value"]
    assert "reference" not in second
    assert (1, 0) == (len(server.of("Practitioner")), len(server.of("Endpoint")))


def test_every_study_of_a_patient_follows_it_to_its_new_id(site: Sites, server: FhirServer) -> None:
    server.resources["Patient/1"] = patient("1")
    made = site(target(server, patients="look-up"))
    for study in (1, 2, 3):
        keep(made.index, instance(study, PatientID="P1"))
    assert made.is_published()
    server.resources["Patient/2"] = patient("2")
    del server.resources["Patient/1"]
    server.script = lambda request: Response(400) if b'"Patient/1"' in request.body else None
    keep(made.index, instance(1, 1, 2, PatientID="P1"))
    assert eventually(lambda: [{"reference": "Patient/2"}] * 3 == subjects(server))
    assert made.is_published()
    assert [] == made.left()
