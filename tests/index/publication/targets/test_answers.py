"""Every answer that a server may give: what becomes of the study, and what an operator is told."""

import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from index import TargetFilter
from index.publication.targets import worker as worker_module
from index.publication.targets.http.answers import TABLE
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.fhir_server import FhirServer, Request, Response, outcome
from support.filling import keep
from support.manager import Authority
from support.targets import Site, here, target, there

Sites = Callable[..., Site]

SECRET = "geheim"  # noqa: S105
HTML = {"Content-Type": "text/html"}
PAGE = b"<html><body>Please log in</body></html>"
WRONG = outcome("this is wrong")
TRANSACTION = {"resourceType": "Bundle", "type": "transaction-response", "entry": []}
CREATED = {"response": {"status": "201 Created"}}

# What the server answers to every write; what becomes of the study: dead, or it waits and the target fails;
# and a part of the sentence about it.
ANSWERS = [
    (Response(400, WRONG), "dead", "400 Bad Request: the server finds the request wrong"),
    (Response(401, WRONG), "fails", "401 Unauthorized: the server does not know us: check authorization"),
    (Response(403, WRONG), "fails", "403 Forbidden: the server does not allow it"),
    (Response(404, WRONG), "fails", "404 Not Found: the server knows no such address: check url"),
    (
        Response(405, WRONG),
        "dead",
        "405 Method Not Allowed: the server does not take this: check url",
    ),
    (Response(406, WRONG), "fails", "406 Not Acceptable"),
    (Response(407), "fails", "407 Proxy Authentication Required: the proxy does not know us: check proxy"),
    (Response(408), "fails", "408 Request Timeout"),
    (Response(409, WRONG), "dead", "409 Conflict: the server has a conflict with another change"),
    (Response(410, WRONG), "dead", "410 Gone"),
    (Response(412, WRONG), "dead", "412 Precondition Failed: the server has another version, or several"),
    (Response(413), "dead", "413 "),
    (Response(415, WRONG), "fails", "415 Unsupported Media Type"),
    (Response(418), "dead", "418 "),
    (Response(422, WRONG), "dead", "422 Unprocessable Entity: the server refuses what it says"),
    (
        Response(429, WRONG, {"Retry-After": "0"}),
        "fails",
        "429 Too Many Requests: the server asks for",
    ),
    (Response(500, WRONG), "fails", "500 Internal Server Error: the server has failed"),
    (Response(501), "dead", "501 Not Implemented: the server cannot do this: check method"),
    (Response(502, PAGE, HTML), "fails", "502 Bad Gateway"),
    (Response(503), "fails", "503 Service Unavailable: the server is not available"),
    (Response(504), "fails", "504 Gateway Timeout"),
    (Response(507), "fails", "507 Insufficient Storage: the server has failed"),
    (Response(299, TRANSACTION), "fails", "the answer is no FHIR resource, or only a part of one"),
    (Response(600), "fails", "600: the server has failed"),
    (Response(200, PAGE, HTML), "fails", "the answer is a web page: check url"),
    (Response(200), "fails", "the answer is no FHIR resource"),
    (Response(200, b'{"resourceType": "Bun'), "fails", "the answer is no FHIR resource"),
    (Response(200, [1, 2]), "fails", "the answer is no FHIR resource"),
    (
        Response(200, {"resourceType": "Bundle", "entry": [CREATED]}),
        "fails",
        "the answer is no FHIR resource",
    ),
    (Response(200, {**TRANSACTION, "entry": [{}] * 3}), "fails", "the answer is no FHIR resource"),
    (Response(200, TRANSACTION, half=True), "fails", "no whole answer"),
    (Response(nothing=True), "fails", "no whole answer"),
    (
        Response(302, None, {"Location": "http://127.0.0.1:9/fhir"}),
        "fails",
        "redirects to http://127.0.0.1:9",
    ),
    (Response(307, None, {"Location": "https://u:p@else.example/x?token=1"}), "fails", "else.example, which"),
    (Response(302, PAGE, {**HTML, "Location": "/login"}), "fails", "which is not followed: check url"),
    (Response(308, None, {"Location": "/fhir"}), "fails", "redirects in a circle"),
    (Response(304), "fails", "304 Not Modified"),
]


def test_each_answer(site: Sites, server: FhirServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "MOST_ATTEMPTS", 2)
    made = site(target(server, authorization="bearer", secret=SECRET))
    for study, (answer, becomes, word) in enumerate(ANSWERS, start=1):
        server.script = lambda request, answer=answer: answer if request.is_write else None
        keep(made.index, instance(study))

        def is_so(becomes: str = becomes, word: str = word) -> bool:
            if becomes == "dead":
                return made.states() == {"dead"}
            return made.states() == {"waiting"} and word in made.index.targets.failing().get("ehr", "")

        assert eventually(is_so), (word, made.left(), made.index.targets.failing())
        (entry,) = made.index.targets.listing.entries(TargetFilter(), waiting=True)
        assert word in entry.error
        assert SECRET not in entry.error + entry.outcome
        if answer.body is WRONG:
            assert ["this is wrong"] == entry.issues
        # As soon as the server takes it, all is there.
        server.script = lambda _: None
        if becomes == "dead":
            made.index.targets.listing.retry(TargetFilter(target="ehr"))
            made.index.targets.study_published(1, None, False)
        assert made.is_published()
    assert here(made.index.data) == there(server)
    assert {} == made.index.targets.failing()


def test_every_status_of_the_table_is_tried() -> None:
    tried = {answer.status for answer, *_ in ANSWERS}
    assert set() == set(TABLE) - tried - {200, 201, 202, 204}


def test_a_study_that_makes_the_server_fail_stops_no_other(
    site: Sites, server: FhirServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "MOST_ATTEMPTS", 3)
    poison = f'ImagingStudy/{ROOT}.3"'.encode()
    server.script = lambda request: Response(500) if poison in request.body else None
    made = site(target(server))
    for study in range(1, 6):
        keep(made.index, instance(study))
    assert eventually(lambda: 4 == len(server.of("ImagingStudy")))
    # It is tried again whenever another study has been taken, and at last no more.
    for study in range(6, 20):
        keep(made.index, instance(study))
        assert eventually(lambda n=study: f"ImagingStudy/{ROOT}.{n}" in server.resources)
        if "dead" in made.states():
            break
    assert made.is_published()
    assert [("ehr", f"{ROOT}.3", "dead", 3)] == made.left()
    assert {} == made.index.targets.failing()


def test_a_bundle_that_succeeds_in_part(site: Sites, server: FhirServer) -> None:
    def partly(request: Request) -> Response | None:
        if request.method != "POST":
            return None
        answers = []
        for entry in request.json["entry"]:
            name = entry["request"]["url"]
            if name.startswith("ImagingStudy"):
                answers.append({"response": {"status": "422", "outcome": outcome("no studies today")}})
                continue
            server.resources[name] = entry["resource"]
            answers.append({"response": {"status": "201 Created", "location": f"{name}/_history/1"}})
        return Response(200, {**TRANSACTION, "type": "batch-response", "entry": answers})

    server.script = partly
    made = site(target(server))
    keep(made.index, instance())
    assert eventually(lambda: made.states() == {"dead"})
    (entry,) = made.index.targets.listing.entries(TargetFilter())
    assert "ImagingStudy: 422 Unprocessable Entity: the server refuses what it says" == entry.error
    assert ["no studies today"] == entry.issues
    server.script = lambda _: None
    count = len(server.writes)
    made.index.targets.listing.retry(TargetFilter(target="ehr"))
    keep(made.index, instance(2))
    assert made.is_published()
    # What was taken is not sent again.
    urls = [entry["request"]["url"] for one in server.writes[count:] for entry in one.json["entry"]]
    assert not any(url.startswith("Endpoint") for url in urls)
    assert here(made.index.data) == there(server)


def test_too_large_a_bundle_is_sent_one_by_one(site: Sites, server: FhirServer) -> None:
    server.script = lambda request: Response(413) if request.method == "POST" else None
    made = site(target(server))
    keep(made.index, instance())
    assert made.is_published()
    assert here(made.index.data) == there(server)
    kinds = [one.path.split("/")[2] for one in server.writes if one.method == "PUT"]
    assert "ImagingStudy" == kinds[-1]


def test_a_server_without_transactions_is_not_asked_for_one(site: Sites) -> None:
    server = FhirServer(transactions=False)
    made = site(target(server))
    keep(made.index, instance())
    assert made.is_published()
    assert {"PUT"} == {one.method for one in server.writes}
    assert here(made.index.data) == there(server)
    server.close()


def test_what_it_can_do_is_asked_again_where_it_was_down(site: Sites) -> None:
    server = FhirServer(transactions=False)
    down = [Response(503), Response(nothing=True)]
    server.script = lambda _: down.pop() if down else None
    made = site(target(server))
    keep(made.index, instance())
    assert made.is_published()
    assert {"PUT"} == {one.method for one in server.writes}
    server.close()


def test_a_server_of_another_version_gets_nothing(site: Sites) -> None:
    server = FhirServer("r5")
    made = site(target(server, version="r4"))
    keep(made.index, instance())
    assert eventually(lambda: "speaks FHIR 5.0.0, not r4" in made.index.targets.failing().get("ehr", ""))
    assert [] == server.writes
    server.close()


@pytest.mark.parametrize("method", ["transaction", "resources"])
def test_ids_that_the_server_renames(site: Sites, tmp_path: Path, method: str) -> None:
    server = FhirServer(renames=True)
    made = site(target(server, method=method))
    keep(made.index, instance(1, 1, 1))
    assert made.is_published()
    keep(made.index, instance(1, 1, 2))
    keep(made.index, instance(2, 1, 1, PatientID="P1"))
    assert made.is_published()
    # What was learnt is remembered, by a new process too.
    made.close()
    made = site(target(server, method=method))
    keep(made.index, instance(1, 1, 3))
    assert made.is_published()
    studies = server.of("ImagingStudy")
    assert [3, 1] == sorted((one["numberOfInstances"] for one in studies), reverse=True)
    (patient,) = server.of("Patient")
    (endpoint,) = server.of("Endpoint")
    assert {f"Patient/{patient['id']}"} == {one["subject"]["reference"] for one in studies}
    assert {f"Endpoint/{endpoint['id']}"} == {one["endpoint"][0]["reference"] for one in studies}
    assert len(here(tmp_path / "data")) == len(server.resources)


def test_a_change_by_others_is_seen_and_written_over(site: Sites, server: FhirServer) -> None:
    made = site(target(server))
    keep(made.index, instance(1, 1, 1))
    assert made.is_published()
    name = f"ImagingStudy/{ROOT}.1"
    server.resources[name] = {**server.resources[name], "description": "theirs"}
    server.versions[name] = 7
    keep(made.index, instance(1, 1, 2))
    assert made.is_published()
    assert here(made.index.data) == there(server)


def test_what_the_server_has_lost_is_sent_again_when_it_says_so(site: Sites, server: FhirServer) -> None:
    made = site(target(server))
    keep(made.index, instance(1, 1, 1))
    assert made.is_published()
    server.resources.clear()
    server.versions.clear()

    def has_all(request: Request) -> Response | None:
        if not request.is_write or len(request.json["entry"]) > 1:
            return None
        return Response(400, outcome("Patient is not known"))

    server.script = has_all
    keep(made.index, instance(1, 1, 2))
    assert made.is_published()
    assert here(made.index.data) == there(server)


def test_a_server_that_is_not_there(site: Sites, server: FhirServer) -> None:
    server.close()
    made = site(target(server))
    keep(made.index, instance())
    assert eventually(lambda: "cannot be reached" in made.index.targets.failing().get("ehr", ""))
    assert {("waiting", 0)} == {(state, attempts) for _, _, state, attempts in made.left()}


def test_one_that_never_ends_its_answer(site: Sites, server: FhirServer) -> None:
    made = site(target(server, timeout=0.2))
    is_over = threading.Event()
    server.script = lambda _: Response() if is_over.wait(60) else None
    keep(made.index, instance())
    assert eventually(lambda: "no whole answer within 0.2 s" in made.index.targets.failing().get("ehr", ""))
    is_over.set()


def test_no_token_goes_to_another_server(site: Sites, server: FhirServer) -> None:
    other = FhirServer()
    server.script = lambda _: Response(307, None, {"Location": f"{other.url}/metadata"})
    made = site(target(server, authorization="bearer", secret=SECRET))
    keep(made.index, instance())
    assert eventually(lambda: f"127.0.0.1:{other.port}" in made.index.targets.failing().get("ehr", ""))
    assert [] == other.requests
    assert {f"Bearer {SECRET}"} == {one.headers["authorization"] for one in server.requests}
    other.close()


@pytest.mark.parametrize(("host", "is_taken"), [("localhost", True), ("other.example", False)])
def test_a_certificate_of_another_host(
    site: Sites,
    tmp_path: Path,
    host: str,
    is_taken: bool,  # noqa: FBT001
) -> None:
    authority = Authority(tmp_path / "ca")
    authority.issue(host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.folder / f"{host}.pem", authority.folder / f"{host}.key")
    server = FhirServer(tls=context)
    url = server.url.replace("127.0.0.1", "localhost")
    made = site(target(server, url=url, ca=authority.certificate))
    keep(made.index, instance())
    if is_taken:
        assert made.is_published()
        assert here(made.index.data) == there(server)
    else:
        assert eventually(lambda: "certificate verify failed" in made.index.targets.failing().get("ehr", ""))
        assert [] == server.requests
    server.close()
