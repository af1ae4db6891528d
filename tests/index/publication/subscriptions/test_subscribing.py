"""Subscription and SubscriptionTopic over FHIR REST: who may, what is refused, and how it is read."""

from typing import Any

import pytest
from fhir.resources import get_fhir_model_class as r5_model
from fhir.resources.R4B import get_fhir_model_class as r4_model

from index import Right
from index.publication.subscriptions import store as store_module
from index.publication.subscriptions.definitions import BACKPORT
from support.fhir_rest import BASE, Called
from support.subscriptions import TOPIC, Hooked, r4, r5

pytestmark = pytest.mark.sqlite  # nothing here depends on the engine
R5 = "/fhir/r5/Subscription"
R4 = "/fhir/r4/Subscription"


def payload(content: str) -> dict[str, Any]:
    return {"extension": [{"url": f"{BACKPORT}payload-content", "valueCode": content}]}


# What is wrong, the status, and what the OperationOutcome names.
BAD_R5: list[tuple[dict[str, Any], str]] = [
    ({"topic": "http://example.org/topic"}, "topic"),
    ({"topic": f"{TOPIC}|2"}, "topic"),
    ({"topic": None}, "topic"),
    ({"status": "entered-in-error"}, "status"),
    ({"channelType": {"code": "websocket"}}, "channelType"),
    ({"channelType": {"system": "urn:mine", "code": "rest-hook"}}, "channelType"),
    ({"endpoint": "ftp://a.example/"}, "endpoint"),
    ({"endpoint": 7}, "endpoint"),
    ({"content": "everything"}, "content"),
    ({"contentType": "application/fhir+xml"}, "contentType"),
    ({"contentType": "application/fhir+json; fhirVersion=4.0"}, "contentType"),
    ({"heartbeatPeriod": 1}, "heartbeatPeriod"),
    ({"heartbeatPeriod": -1}, "heartbeatPeriod"),
    ({"timeout": 3600}, "timeout"),
    ({"timeout": True}, "timeout"),
    ({"maxCount": 0}, "maxCount"),
    ({"maxCount": "1"}, "maxCount"),
    ({"end": "2030-01-01"}, "end"),
    ({"end": "soon"}, "end"),
    ({"filterBy": [{"filterParameter": "colour", "value": "red"}]}, "colour"),
    ({"filterBy": [{"filterParameter": "modality"}]}, "value"),
    ({"filterBy": [{"filterParameter": "modality", "value": "CT", "modifier": "above"}]}, "modality"),
    ({"filterBy": [{"filterParameter": "started", "value": "yesterday"}]}, "started"),
    ({"filterBy": [{"filterParameter": "status", "value": "x", "resourceType": "Patient"}]}, "resourceType"),
    (
        {"filterBy": [{"filterParameter": "modality", "value": "CT", "modifier": "not", "comparator": "eq"}]},
        "both",
    ),
    ({"filterBy": [{"filterParameter": "modality", "value": "CT"}] * 21}, "too many"),
    ({"filterBy": "modality=CT"}, "filterBy"),
    ({"parameter": [{"name": "Host", "value": "evil.example"}]}, "Host"),
    ({"parameter": [{"name": "X", "value": "a\r\nHost: evil"}]}, "header"),
    ({"parameter": [{"name": "Transfer-Encoding", "value": "chunked"}]}, "Transfer-Encoding"),
    ({"parameter": [{"name": f"X-{n}", "value": "1"} for n in range(11)]}, "header"),
    ({"parameter": ["Authorization: x"]}, "name"),
    ({"contact": "me"}, "contact"),
    ({"modifierExtension": [{"url": "urn:x"}]}, "modifierExtension"),
]
BAD_R4: list[tuple[dict[str, Any], str]] = [
    ({"criteria": "ImagingStudy?modality=CT"}, "topic"),
    ({"reason": None}, "reason"),
    ({"channel": {"type": "websocket"}}, "channel.type"),
    ({"channel": {"type": "rest-hook", "payload": "application/fhir+json"}}, "payload"),
    (
        {"_criteria": {"extension": [{"url": f"{BACKPORT}filter-criteria", "valueString": "modality"}]}},
        "modality",
    ),
    (
        {"_criteria": {"extension": [{"url": f"{BACKPORT}filter-criteria", "valueString": "Patient?a=b"}]}},
        "Patient",
    ),
    ({"_criteria": {"extension": [{"url": f"{BACKPORT}filter-criteria", "valueCode": "x"}]}}, "valueString"),
]


@pytest.mark.parametrize("fhir", ["r4", "r5"])
def test_what_is_wrong_is_named(site: Hooked, fhir: str) -> None:
    make, table = (r4, BAD_R4) if fhir == "r4" else (r5, BAD_R5)
    for changes, named in table:
        resource = make(site.endpoint(fhir)) | changes
        resource = {key: value for key, value in resource.items() if value is not None}
        answer = site.client.post(f"/fhir/{fhir}/Subscription", json=resource)
        assert 422 == answer.status_code, (changes, answer.text)
        assert named in answer.json()["issue"][0]["diagnostics"], (changes, answer.text)
    assert [] == site.index.subscriptions.store.all()
    assert [] == site.server.requests


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/fhir+json", 400),
        (b"[]", "application/fhir+json", 400),
        (b'{"resourceType":"Patient"}', "application/fhir+json", 400),
        (b"<Subscription/>", "application/fhir+xml", 415),
        (b"x" * 2_000_000, "application/fhir+json", 413),
    ],
    ids=["cut", "list", "other", "xml", "long"],
)
def test_what_is_no_subscription(site: Hooked, body: bytes, kind: str, status: int) -> None:
    answer = site.client.post(R5, content=body, headers={"Content-Type": kind})
    assert (status, "OperationOutcome") == (answer.status_code, answer.json()["resourceType"])


def test_endpoints_are_refused_unless_allowed(site: Hooked) -> None:
    elsewhere = r5("https://evil.example/hook")
    answer = site.client.post(R5, json=elsewhere)
    assert 403 == answer.status_code
    assert "[http] subscriptions" in answer.text
    site.index.subscriptions.allow([])
    answer = site.client.put(f"{R5}/a", json=r5(site.endpoint("r5")) | {"id": "a"})
    assert 403 == answer.status_code
    assert "subscriptions are off" in answer.text
    assert [] == site.index.subscriptions.store.all()


def test_who_may(site: Hooked) -> None:
    app = site.client.app
    assert isinstance(app, Called)
    before = app.rights
    own = site.client.post(R5, json=r5(site.endpoint("r5"))).json()["id"]
    # read alone may read, write alone may nothing: who is told could have read.
    for rights, may in (({Right.READ}, [403, 403, 200]), ({Right.WRITE}, [403, 403, 403])):
        app.rights = frozenset(rights)
        answers = [
            site.client.post(R5, json=r5(site.endpoint("r5"))),
            site.client.delete(f"{R5}/{own}"),
            site.client.get(f"{R5}/{own}"),
        ]
        assert may == [answer.status_code for answer in answers]
    app.rights = before
    # Another's is another's.
    database = site.index._database
    with database.writing():
        database.execute(store_module.SubscriptionRow.update(owner="somebody else"))
    assert 403 == site.client.delete(f"{R5}/{own}").status_code
    assert 403 == site.client.put(f"{R5}/{own}", json=r5(site.endpoint("r5")) | {"id": own}).status_code
    app.rights = frozenset(Right)
    assert 204 == site.client.delete(f"{R5}/{own}").status_code
    app.rights = before
    assert 404 == site.client.get(f"{R5}/{own}").status_code


def test_no_more_than_there_may_be(site: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "MOST", 1)
    assert 201 == site.client.post(R5, json=r5(site.endpoint("r5"))).status_code
    answer = site.client.post(R4, json=r4(site.endpoint("r4")))
    assert (422, "too-costly") == (answer.status_code, answer.json()["issue"][0]["code"])


def test_it_is_read_as_it_was_made(site: Hooked) -> None:
    resource = r5(
        site.endpoint("r5"),
        filters=(("modality", "CT"),),
        heartbeatPeriod=60,
        timeout=10,
        maxCount=5,
        end="2099-01-01T00:00:00Z",
        name="mine",
        identifier=[{"system": "urn:x", "value": "1"}],
        contact=[{"system": "email", "value": "a@b.example"}],
        text={"status": "generated", "div": "<script>alert(1)</script>"},
    )
    answer = site.client.post(R5, json=resource)
    made = answer.json()
    assert f"{BASE}/r5/Subscription/{made['id']}/_history/1" == answer.headers["location"]
    assert 'W/"1"' == answer.headers["etag"]
    del resource["text"]
    assert resource | {"id": made["id"], "status": "requested"} == made
    r5_model("Subscription").model_validate(made)
    of_r4 = r4(site.endpoint("r4"), filters=("modality=CT",), header=["X-Key: abc"])
    made = site.client.post(R4, json=of_r4).json()
    r4_model("Subscription").model_validate(made)
    assert of_r4["_criteria"] == made["_criteria"]
    # Each version has its own.
    assert 404 == site.client.get(f"{R5}/{made['id']}").status_code


def test_changes_and_versions(site: Hooked) -> None:
    path, resource = f"{R5}/one", r5(site.endpoint("r5")) | {"id": "one"}
    assert 412 == site.client.put(path, json=resource, headers={"If-Match": 'W/"1"'}).status_code
    assert 201 == site.client.put(path, json=resource).status_code
    assert 400 == site.client.put(f"{R5}/two", json=resource).status_code
    assert 412 == site.client.put(path, json=resource, headers={"If-Match": 'W/"7"'}).status_code
    off = site.client.put(path, json=resource | {"status": "off"}, headers={"If-Match": 'W/"1"'})
    assert (200, "off", 'W/"2"') == (off.status_code, off.json()["status"], off.headers["etag"])
    assert 404 == site.client.delete(f"{R5}/nobody").status_code
    assert 405 == site.client.patch(path, json={}).status_code


def test_search(site: Hooked) -> None:
    for name in ("a", "b"):
        site.client.put(f"{R5}/{name}", json=r5(site.endpoint("r5")) | {"id": name, "status": "off"})
    found = site.client.get(f"{R5}?status=off&url={site.endpoint('r5')}").json()
    r5_model("Bundle").model_validate(found)
    assert ["a", "b"] == [entry["resource"]["id"] for entry in found["entry"]]
    assert 1 == site.client.get(f"{R5}?_id=b&topic={TOPIC}&type=rest-hook").json()["total"]
    assert 0 == site.client.get(f"{R5}?status=error,active").json()["total"]
    answer = site.client.get(f"{R5}?colour=red", headers={"Prefer": "handling=strict"})
    assert 400 == answer.status_code
    assert 0 == site.client.get(R4).json()["total"]


def test_topics(site: Hooked) -> None:
    topic = site.client.get(TOPIC).json()
    assert TOPIC == topic["url"]
    r5_model("SubscriptionTopic").model_validate(topic)
    names = {one["filterParameter"] for one in topic["canFilterBy"]}
    assert {"patient", "identifier", "modality", "status", "started"} <= names
    found = site.client.get("/fhir/r5/SubscriptionTopic?resource=ImagingStudy").json()
    assert 2 == found["total"]
    for entry in found["entry"]:
        r5_model("SubscriptionTopic").model_validate(entry["resource"])
    for name in ("url", "derived-or-self"):
        assert 1 == site.client.get(f"/fhir/r5/SubscriptionTopic?{name}={TOPIC}").json()["total"]
    assert 404 == site.client.get("/fhir/r5/SubscriptionTopic/nothing").status_code
    assert 404 == site.client.get("/fhir/r4/SubscriptionTopic/imagingstudy-change").status_code
    assert 404 == site.client.get("/fhir/dstu2/Subscription").status_code


@pytest.mark.parametrize("fhir", ["r4", "r5"])
def test_the_capability_statement_says_what_works(site: Hooked, fhir: str) -> None:
    def stated() -> dict[str, Any]:
        statement = site.client.get(f"/fhir/{fhir}/metadata").json()
        (r4_model if fhir == "r4" else r5_model)("CapabilityStatement").model_validate(statement)
        return {one["type"]: one for one in statement["rest"][0]["resource"]}

    on = stated()["Subscription"]
    assert {"read", "search-type", "create", "update", "delete"} == {one["code"] for one in on["interaction"]}
    assert ["status", "events"] == [one["name"] for one in on["operation"]]
    assert ("SubscriptionTopic" in stated()) == (fhir == "r5")
    if fhir == "r4":
        assert TOPIC in [one["valueCanonical"] for one in on["extension"]]
    site.index.subscriptions.allow([])
    off = stated()["Subscription"]
    assert {"read", "search-type", "delete"} == {one["code"] for one in off["interaction"]}


@pytest.mark.parametrize("query", ["eventsSinceNumber=x", "eventsUntilNumber=-1", "content=all"])
def test_events_that_cannot_be_asked_for(site: Hooked, query: str) -> None:
    site.client.put(f"{R5}/one", json=r5(site.endpoint("r5")) | {"id": "one"})
    assert 400 == site.client.get(f"{R5}/one/$events?{query}").status_code
    assert 404 == site.client.get(f"{R5}/two/$events").status_code
