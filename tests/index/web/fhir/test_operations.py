"""A study or a patient as one Bundle, and orders that come in, of a daemon over HTTP."""

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from index.web.fhir import orders as orders_module
from support.daemon import Daemon, cli, eventually, serving
from support.dicom import ROOT, instance, save

SECONDS = 120.0
JSON = "application/fhir+json"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    yield from serving(tmp_path_factory.mktemp("site") / "data", IMAGINGSTUDYD_HTTP__LOCAL="all")


def ask(
    daemon: Daemon, method: str, path: str, body: Any = None, kind: str = JSON
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection(*daemon.http, timeout=SECONDS)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection.request(method, path, content, {"Content-Type": kind} if content is not None else {})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    return answer.status, json.loads(text), {name.lower(): value for name, value in answer.getheaders()}


def request(number: str, **more: Any) -> dict[str, Any]:
    patient = {
        "resourceType": "Patient",
        "id": "p",
        "identifier": [{"value": "P1"}],
        "name": [{"family": "Doe", "given": ["Jane"]}],
    }
    return {
        "resourceType": "ServiceRequest",
        "contained": [patient],
        "status": "active",
        "intent": "order",
        "subject": {"reference": "#p"},
        "identifier": [{"type": {"coding": [{"code": "ACSN"}]}, "value": number}],
        "code": {"text": "CT head"},
        **more,
    }


def accessions(daemon: Daemon) -> list[str]:
    listed = json.loads(cli("worklist", "list", "--data", str(daemon.data), "--json").stdout)
    return sorted(one["attributes"]["AccessionNumber"] for one in listed)


def test_a_study_and_a_patient_are_one_bundle(daemon: Daemon, tmp_path: Path) -> None:
    for study in (71, 72):
        dataset = instance(study)
        dataset.PatientID = "P71"
        save(dataset, tmp_path / "send" / f"{study}.dcm")
    assert 0 == daemon.send(tmp_path / "send").returncode
    assert eventually(lambda: daemon.resource(f"{ROOT}.72").exists())
    status, bundle, _ = ask(daemon, "GET", f"/fhir/r4/ImagingStudy/{ROOT}.71/$bundle")
    assert (200, "transaction") == (status, bundle["type"])
    Bundle.model_validate(bundle)
    urls = [entry["request"]["url"] for entry in bundle["entry"]]
    assert f"ImagingStudy/{ROOT}.71" == urls[-1]
    patient = next(url for url in urls if url.startswith("Patient/"))
    assert {"PUT"} == {entry["request"]["method"] for entry in bundle["entry"]}
    printed = cli("show", f"{ROOT}.71", "--fhir", "r4", "--bundle", "--json", "--data", str(daemon.data))
    assert bundle == json.loads(printed.stdout)
    status, everything, _ = ask(daemon, "GET", f"/fhir/r4/{patient}/$everything")
    assert (200, "searchset") == (status, everything["type"])
    Bundle.model_validate(everything)
    found = [f"{one['resource']['resourceType']}/{one['resource']['id']}" for one in everything["entry"]]
    assert patient == found[0]
    assert {f"ImagingStudy/{ROOT}.71", f"ImagingStudy/{ROOT}.72"} <= set(found)
    assert len(found) == len(set(found))
    for entry in everything["entry"]:
        address = f"http://{daemon.http[0]}:{daemon.http[1]}"
        status, resource, _ = ask(daemon, "GET", entry["fullUrl"].removeprefix(address))
        assert (200, entry["resource"]["id"]) == (status, resource["id"])
    assert 404 == ask(daemon, "GET", "/fhir/r4/ImagingStudy/1.2.3/$bundle")[0]
    assert 404 == ask(daemon, "GET", "/fhir/r4/Patient/nobody/$everything")[0]


def test_an_order_comes_in_and_changes(daemon: Daemon) -> None:
    status, outcome, headers = ask(daemon, "POST", "/fhir/r4/ServiceRequest", request("A1"))
    assert (201, "OperationOutcome") == (status, outcome["resourceType"])
    assert "/fhir/r4/ServiceRequest/" in headers["location"]
    assert "A1" in accessions(daemon)
    again, _, same = ask(daemon, "POST", "/fhir/r4/ServiceRequest", request("A1", priority="stat"))
    assert (200, headers["location"]) == (again, same["location"])
    assert 1 == accessions(daemon).count("A1")
    put = request("A2", id="mine")
    assert 201 == ask(daemon, "PUT", "/fhir/r4/ServiceRequest/mine", put)[0]
    assert 200 == ask(daemon, "PUT", "/fhir/r4/ServiceRequest/mine", put)[0]
    assert "A2" in accessions(daemon)


def test_the_order_is_read_where_it_was_said_to_be(daemon: Daemon, tmp_path: Path) -> None:
    uid = f"{ROOT}.73"
    sent = request("A73")
    sent["contained"][0]["identifier"][0]["value"] = "P73"
    sent["identifier"].append({"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"})
    _, _, headers = ask(daemon, "POST", "/fhir/r4/ServiceRequest", sent)
    assert 0 == daemon.send(save(instance(73), tmp_path / "one.dcm"), tool="storescu").returncode
    path = headers["location"].partition("/fhir/")[2]
    assert eventually(lambda: 200 == ask(daemon, "GET", f"/fhir/{path}")[0])


def test_a_transaction_is_all_or_nothing(daemon: Daemon) -> None:
    patient = {"resourceType": "Patient", "identifier": [{"value": "P2"}], "name": [{"family": "Roe"}]}
    first = request("T1", subject={"reference": "urn:uuid:1"})
    del first["contained"]
    entries = [
        {"fullUrl": "urn:uuid:1", "resource": patient, "request": {"method": "POST", "url": "Patient"}},
        {"resource": first, "request": {"method": "POST", "url": "ServiceRequest"}},
    ]
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    for path in ("/fhir/r4", "/fhir/r4/"):
        status, answer, _ = ask(daemon, "POST", path, bundle)
        assert (200, "transaction-response", 2) == (status, answer["type"], len(answer["entry"]))
        Bundle.model_validate(answer)
    assert "200 OK" == answer["entry"][1]["response"]["status"]
    assert "T1" in accessions(daemon)
    entries[1]["resource"]["identifier"][0]["value"] = "T2"
    bad = request("T3", status="done")
    entries.append({"resource": bad, "request": {"method": "POST", "url": "ServiceRequest"}})
    status, outcome, _ = ask(daemon, "POST", "/fhir/r4", bundle)
    assert (422, True) == (status, "status 'done' is none of" in outcome["issue"][0]["diagnostics"])
    assert not {"T2", "T3"} & set(accessions(daemon))


@pytest.mark.parametrize(
    ("path", "body", "kind", "status", "said"),
    [
        ("/ServiceRequest", b"{", JSON, 400, "no JSON"),
        ("/ServiceRequest", {"resourceType": "Patient"}, JSON, 400, "'Patient': ServiceRequest is allowed"),
        ("/ServiceRequest", [1], JSON, 400, "'None'"),
        (
            "/ServiceRequest",
            request("X"),
            "text/plain",
            415,
            "'text/plain': allowed is application/fhir+json",
        ),
        (
            "/ServiceRequest",
            request("X", subject={"reference": "Patient/1"}),
            JSON,
            422,
            "subject 'Patient/1'",
        ),
        ("/ServiceRequest", request("X", contained={}), JSON, 422, "contained: must be a list"),
        ("", {"resourceType": "Bundle", "type": "document", "entry": []}, JSON, 400, "Bundle.type"),
        ("", {"resourceType": "Bundle", "type": "transaction"}, JSON, 422, "ServiceRequest"),
        ("", {"resourceType": "Bundle", "type": "transaction", "entry": [1]}, JSON, 422, "entry[0]"),
        ("", {"resourceType": "Bundle", "type": "transaction", "entry": [{}]}, JSON, 422, "ServiceRequest"),
        ("", {"resourceType": "Bundle", "type": "batch", "entry": {"a": 1}}, JSON, 422, "must be a list"),
    ],
)
def test_what_is_no_order_is_named(
    daemon: Daemon, path: str, body: Any, kind: str, status: int, said: str
) -> None:
    found, outcome, _ = ask(daemon, "POST", f"/fhir/r4{path}", body, kind)
    assert (status, "OperationOutcome") == (found, outcome["resourceType"])
    assert said in outcome["issue"][0]["diagnostics"]


def test_limits_and_rights(daemon: Daemon, shared_daemon: Daemon) -> None:
    large = b" " * (orders_module.LARGEST + 1)
    assert 413 == ask(daemon, "POST", "/fhir/r4/ServiceRequest", large)[0]
    assert 400 == ask(daemon, "PUT", "/fhir/r4/ServiceRequest/other", request("X", id="mine"))[0]
    assert 403 == ask(shared_daemon, "POST", "/fhir/r4/ServiceRequest", request("X"))[0]
    assert 403 == ask(shared_daemon, "POST", "/fhir/r4", request("X"))[0]
    assert 405 == ask(daemon, "POST", "/fhir/r5/ServiceRequest/1", request("X"))[0]
