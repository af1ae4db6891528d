"""read, vread, history and metadata, each error an OperationOutcome."""

import gzip
import json
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from index import Index, Right
from index.imagingstudy import VERSIONS
from index.publication.terms.parameters import parameters_of, types_of
from support.dicom import ROOT, instance
from support.fhir_rest import BASE, client, published
from support.fhirjudges import model
from support.filling import keep

STUDY = f"{ROOT}.1"
MEDIA = {"dstu2": "application/json+fhir", "r4": "application/fhir+json", "r5": "application/fhir+json"}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    data = tmp_path_factory.mktemp("rest") / "data"
    index = published(data, instance(1, 1, 1), instance(2, 1, 1), base_url="http://pacs.example/dicom-web")
    index.delete(f"{ROOT}.2")
    index.publish()
    with index:
        yield index


@pytest.fixture(scope="module")
def web(index: Index) -> TestClient:
    return client(index)


def issue(answer) -> tuple[int, str]:
    """Status and issue type of an error."""
    resource = answer.json()
    assert "OperationOutcome" == resource["resourceType"]
    assert answer.headers["content-type"] in MEDIA.values()
    return answer.status_code, resource["issue"][0]["code"]


@pytest.mark.parametrize("fhir", VERSIONS)
def test_the_stored_bytes_are_served(index: Index, web: TestClient, fhir: str) -> None:
    stored = index.resources.read(fhir, "ImagingStudy", STUDY)
    path = f"/fhir/{fhir}/ImagingStudy/{STUDY}"
    answer = web.get(path)
    assert (stored.content, MEDIA[fhir]) == (answer.content, answer.headers["content-type"])
    assert "gzip" == answer.headers["content-encoding"]
    assert 'W/"1"' == answer.headers["etag"]
    with web.stream("GET", path, headers={"Accept-Encoding": "gzip"}) as raw:
        assert stored.gzipped == b"".join(raw.iter_raw())
    for refusing in ("identity", "gzip;q=0", "*;q=0", "br"):
        plain = web.get(path, headers={"Accept-Encoding": refusing})
        assert "content-encoding" not in plain.headers
        assert stored.content == plain.content
    assert b"" == web.head(path).content
    assert 'W/"1"' == web.head(path).headers["etag"]


def test_what_has_not_changed_is_not_sent_again(web: TestClient) -> None:
    path = f"/fhir/r4/ImagingStudy/{STUDY}"
    changed = web.get(path).headers["last-modified"]
    same = [
        {"If-None-Match": 'W/"1"'},
        {"If-None-Match": '"0", W/"1"'},
        {"If-None-Match": "*"},
        {"If-Modified-Since": changed},
        {"If-None-Match": 'W/"1"', "If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
    ]
    other = [
        {"If-None-Match": 'W/"2"'},
        {"If-None-Match": 'W/"2"', "If-Modified-Since": changed},
        {"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"},
        {"If-Modified-Since": "yesterday"},
    ]
    assert {304} == {web.get(path, headers=headers).status_code for headers in same}
    assert {200} == {web.get(path, headers=headers).status_code for headers in other}


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("json", 200),
        ("application/fhir%2Bjson", 200),
        ("application/fhir+json", 200),
        ("application/json+fhir", 200),
        ("application/fhir%2Bjson; fhirVersion=4.0", 200),
        ("application/fhir%2Bjson; fhirVersion=3.0", 406),
        ("xml", 406),
        ("application/fhir+xml", 406),
        ("text/turtle", 406),
    ],
)
def test_the_form_is_json(web: TestClient, asked: str, expected: int) -> None:
    answer = web.get(f"/fhir/r4/ImagingStudy/{STUDY}?_format={asked}")
    assert expected == answer.status_code
    if expected == 406:
        assert (406, "not-supported") == issue(answer)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("text/html,application/xhtml+xml,*/*;q=0.8", 200),
        ("application/fhir+xml, application/fhir+json;q=0.5", 200),
        ("application/fhir+xml", 406),
        ("application/json;q=0", 406),
    ],
)
def test_accept_is_heard(web: TestClient, accept: str, expected: int) -> None:
    assert expected == web.get(f"/fhir/r4/ImagingStudy/{STUDY}", headers={"Accept": accept}).status_code


@pytest.mark.parametrize("fhir", VERSIONS)
def test_a_subset_is_valid_and_marked(web: TestClient, fhir: str) -> None:
    path = f"/fhir/{fhir}/ImagingStudy/{STUDY}"
    whole = web.get(path).json()
    some = web.get(f"{path}?_elements=ImagingStudy.started,description").json()
    required = {"dstu2": {"patient", "uid", "numberOfSeries", "numberOfInstances"}}
    expected = {"resourceType", "id", "meta", "description"} | required.get(fhir, {"status", "subject"})
    assert expected == set(some) - {"started"}
    assert "SUBSETTED" == some["meta"]["tag"][0]["code"]
    summary = web.get(f"{path}?_summary=true&_pretty=true")
    assert summary.text.startswith('{\n  "resourceType"')
    if fhir == "dstu2":
        assert whole == summary.json()
    else:
        assert "instance" in whole["series"][0]
        assert "instance" not in summary.json()["series"][0]
    assert whole == web.get(f"{path}?_summary=data").json()
    for found in (some, summary.json(), web.get(f"{path}?_summary=text").json()):
        model(found, fhir)


def test_a_deleted_resource_is_gone_and_remembered(web: TestClient) -> None:
    path = f"/fhir/r4/ImagingStudy/{ROOT}.2"
    assert (410, "deleted") == issue(web.get(path))
    assert (410, "not-found") == issue(web.get(path.replace("r4", "dstu2")))
    assert (410, "deleted") == issue(web.get(f"{path}/_history/2"))
    assert (404, "not-found") == issue(web.get(f"{path}/_history/1"))
    entries = web.get(f"{path}/_history").json()["entry"]
    assert ["DELETE", "PUT"] == [entry["request"]["method"] for entry in entries]
    assert all("resource" not in entry for entry in entries)


@pytest.mark.sqlite
def test_the_last_version_is_kept(tmp_path, web: TestClient) -> None:
    with published(tmp_path / "data", instance(1, 1, 1)) as index:
        index.serve()
        keep(index, instance(1, 1, 2))
    with Index(tmp_path / "data") as index:
        index.publish()
        web = client(index)
        path = f"/fhir/r4/ImagingStudy/{STUDY}"
        answer = web.get(f"{path}/_history/1")
        assert (404, "not-found") == issue(answer)
        assert "no longer kept" in answer.text
        assert web.get(path).content == web.get(f"{path}/_history/2").content
        assert 404 == web.get(f"{path}/_history/3").status_code
        assert 404 == web.get(f"{path}/_history/x").status_code
        for fhir in VERSIONS:
            bundle = web.get(f"/fhir/{fhir}/ImagingStudy/{STUDY}/_history").json()
            model(bundle, fhir)
            assert ("history", 2) == (bundle["type"], bundle["total"])
            last, first = bundle["entry"]
            assert "2" == last["resource"]["meta"]["versionId"]
            assert 'W/"1"' == first["response"]["etag"]
        since = last["response"]["lastModified"]
        assert 1 == web.get(f"{path}/_history", params={"_since": since}).json()["total"]
        assert (400, "invalid") == issue(web.get(f"{path}/_history?_since=x"))


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/r4/ImagingStudy/nobody", (404, "not-found")),
        ("GET", "/r4/ImagingStudy/nobody/_history", (404, "not-found")),
        ("GET", "/r4/Observation/1", (404, "not-supported")),
        ("GET", "/dstu2/ServiceRequest/1", (404, "not-supported")),
        ("GET", "/r3/Patient/1", (404, "not-found")),
        ("GET", "/r4/a/b/c/d/e", (404, "not-found")),
        ("GET", "/r5/", (404, "not-found")),
        ("GET", "/", (404, "not-found")),
        ("DELETE", f"/r4/ImagingStudy/{STUDY}", (405, "not-supported")),
        ("PATCH", f"/r4/ImagingStudy/{STUDY}", (405, "not-supported")),
        ("POST", "/r4/metadata", (405, "not-supported")),
        ("GET", f"/r4/ImagingStudy/{STUDY}?_pretty=maybe", (400, "invalid")),
        ("GET", f"/r4/ImagingStudy/{STUDY}?_summary=some", (400, "invalid")),
        ("GET", f"/r4/ImagingStudy/{STUDY}?_summary=true&_elements=id", (400, "invalid")),
    ],
)
def test_every_error_is_an_outcome(
    web: TestClient, method: str, path: str, expected: tuple[int, str]
) -> None:
    answer = web.request(method, f"/fhir{path}")
    assert expected == issue(answer)
    if expected[0] == 405:
        assert "GET" in answer.headers["allow"]
    fhir = path.split("/")[1]
    model(answer.json(), fhir if fhir in VERSIONS else "r4")


def test_only_readers_read(index: Index) -> None:
    for path in (f"ImagingStudy/{STUDY}", "metadata"):
        assert (403, "forbidden") == issue(client(index, Right.WRITE).get(f"/fhir/r4/{path}"))


def test_no_resource_refers_to_nothing(web: TestClient) -> None:
    """Each reference is relative to the base, and resolves."""
    for fhir in VERSIONS:
        study = web.get(f"/fhir/{fhir}/ImagingStudy/{STUDY}").text
        names = {text.split('"')[0] for text in study.split('"reference":"')[1:]}
        assert names
        assert {200} == {web.get(f"/fhir/{fhir}/{name}").status_code for name in names}


@pytest.mark.parametrize("fhir", VERSIONS)
def test_the_capabilities_are_those_of_the_tables(index: Index, web: TestClient, fhir: str) -> None:
    statement = web.get(f"/fhir/{fhir}/metadata").json()
    model(statement, fhir)
    assert f"{BASE}/{fhir}" == statement["implementation"]["url"]
    resources = {each["type"]: each for each in statement["rest"][0]["resource"]}
    # Besides those of the tables: tests/index/publication/subscriptions.
    others = {"dstu2": set(), "r4": {"Subscription"}, "r5": {"Subscription", "SubscriptionTopic"}}[fhir]
    assert {*types_of(fhir), *others} == set(resources)
    for type_ in types_of(fhir):
        each = resources[type_]
        named = {parameter["name"] for parameter in each["searchParam"]}
        assert set(parameters_of(fhir, type_)) <= named
    public = client(index, public_url="https://pacs.example/imaging").get(f"/fhir/{fhir}/metadata").json()
    assert f"https://pacs.example/imaging/fhir/{fhir}" == public["implementation"]["url"]


def test_a_resource_without_content_is_not_gone(index: Index, web: TestClient, monkeypatch) -> None:
    """An earlier version has published it as a file, and that is lost: it is made again soon."""
    stored = index.resources.read("r4", "ImagingStudy", STUDY)
    missing = type(stored)("r4", "ImagingStudy", STUDY, 1, 0, deleted=False, gzipped=b"")
    monkeypatch.setattr(type(index.resources), "read", lambda *_: missing)
    assert (503, "transient") == issue(web.get(f"/fhir/r4/ImagingStudy/{STUDY}"))
    unknown = type(stored)("r4", "ImagingStudy", STUDY, 1, 0, deleted=False, gzipped=gzip.compress(b"{}"))
    monkeypatch.setattr(type(index.resources), "read", lambda *_: unknown)
    answer = web.get(f"/fhir/r4/ImagingStudy/{STUDY}")
    assert "last-modified" not in answer.headers
    assert {} == json.loads(answer.content)
