"""Servers that give ids of their own although they are asked to keep ours: nothing is there twice."""

import json
from collections.abc import Callable

import pytest

from support.daemon import eventually
from support.dicom import ROOT, instance
from support.fhir_server import FhirServer, Request, Response, outcome
from support.filling import keep
from support.targets import Site, here, target

Sites = Callable[..., Site]

METHODS = pytest.mark.parametrize("method", ["transaction", "resources"])
STUDY = b'"resourceType":"ImagingStudy"'


def named(server: FhirServer, kind: str) -> list[str]:
    return [one["id"] for one in server.of(kind)]


@METHODS
def test_a_refused_study_leaves_nothing_twice(site: Sites, method: str) -> None:
    server = FhirServer(renames=True)
    made = site(target(server, method=method))
    keep(made.index, instance(1, 1, 1))
    assert made.is_published()
    before = set(server.resources)
    server.script = lambda request: Response(422, outcome("no")) if STUDY in request.body else None
    keep(made.index, instance(1, 1, 2))
    assert eventually(lambda: made.states() == {"dead"})
    server.script = lambda _: None
    keep(made.index, instance(1, 1, 3))
    assert made.is_published()
    assert before == set(server.resources)
    assert [3] == [one["numberOfInstances"] for one in server.of("ImagingStudy")]
    server.close()


@METHODS
def test_a_change_by_others_neither(site: Sites, method: str) -> None:
    server = FhirServer(renames=True)
    made = site(target(server, method=method))
    keep(made.index, instance(1, 1, 1))
    assert made.is_published()
    before = set(server.resources)
    (name,) = named(server, "ImagingStudy")
    server.versions[f"ImagingStudy/{name}"] = 7
    keep(made.index, instance(1, 1, 2))
    assert made.is_published()
    assert before == set(server.resources)
    server.close()


@METHODS
def test_an_answer_that_is_lost_neither(site: Sites, method: str) -> None:
    server = FhirServer(renames=True)
    made = site(target(server, method=method))
    keep(made.index, instance(1))
    assert made.is_published()
    made.close()
    made = site(target(server, method=method))
    lost: list[Request] = []

    def lose(request: Request) -> Response | None:
        if STUDY not in request.body or lost:
            return None
        lost.append(request)
        return server.lost(request)

    server.script = lose
    keep(made.index, instance(2))
    assert made.is_published()
    assert 1 == len(lost)
    assert (2, 2) == (len(named(server, "ImagingStudy")), len(named(server, "Patient")))
    assert len(here(made.index.data)) == len(server.resources)
    # What was sent before that was known gets an identifier of ours too.
    assert {"differs: identifier"} == {one.what for one in made.index.targets.verify("ehr", mends=True).run()}
    assert made.is_published()
    assert [] == list(made.index.targets.verify("ehr", mends=False).run())
    server.close()


@METHODS
def test_what_is_gone_is_written_anew(site: Sites, method: str) -> None:
    server = FhirServer(renames=True)
    made = site(target(server, method=method))
    keep(made.index, instance(1, 1, 1))
    assert made.is_published()
    (patient,), (study,) = named(server, "Patient"), named(server, "ImagingStudy")
    del server.resources[f"Patient/{patient}"]

    def has_all(request: Request) -> Response | None:
        is_whole = f"Patient/{patient}".encode() not in request.body
        return None if STUDY not in request.body or is_whole else Response(400, outcome("no such patient"))

    server.script = has_all
    keep(made.index, instance(1, 1, 2))
    assert made.is_published()
    assert [study] == named(server, "ImagingStudy")
    (other,) = named(server, "Patient")
    assert [f"Patient/{other}"] == [one["subject"]["reference"] for one in server.of("ImagingStudy")]
    server.close()


@METHODS
def test_a_server_that_does_not_say_the_ids_is_asked(site: Sites, server: FhirServer, method: str) -> None:
    """The location is there only where something was created (FHIR http.html#transaction-response)."""

    def silent(request: Request) -> Response | None:
        if not request.is_write:
            return None
        answer = server.itself(request)
        answer.headers.pop("Location", None)
        if request.method == "POST":
            for entry in answer.body["entry"]:
                del entry["response"]["location"]
        return answer

    server.script = silent
    made = site(target(server, method=method, write="conditional"))
    for number in (1, 2):
        keep(made.index, instance(1, 1, number))
        assert made.is_published()
    (patient,), (study,) = server.of("Patient"), server.of("ImagingStudy")
    assert f"Patient/{patient['id']}" == study["subject"]["reference"]
    assert 2 == study["numberOfInstances"]
    assert '/"' not in json.dumps(study)
    assert ROOT in json.dumps(study)
