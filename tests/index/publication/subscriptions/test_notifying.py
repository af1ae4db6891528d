"""Notifications of R5 Subscriptions and of the R4 backport, sent to a real HTTP server.

R5 subscription.html, subscriptionstatus.html; hl7.org/fhir/uv/subscriptions-backport 1.1.0.
"""

from typing import Any

import pytest
from fhir.resources import get_fhir_model_class as r5_model
from fhir.resources.R4B import get_fhir_model_class as r4_model

from index.database.subscription_tables import SubscriptionEvent, SubscriptionRow
from index.database.tables import Change, Resource
from index.publication.feed import prune
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.fhir_server import Response
from support.filling import keep
from support.subscriptions import COMPLETE, SECRET, TOPIC, Hooked, r4, r5, state

VERSIONS = ("r4", "r5")


def asked(fhir: str, site: Hooked, content: str = "id-only", **more: Any) -> dict[str, Any]:
    return (r4 if fhir == "r4" else r5)(site.endpoint(fhir), content, **more)


def judge(fhir: str, bundle: dict[str, Any]) -> None:
    """Hold a Bundle against the models, and against the rules of history Bundles."""
    found = dict(bundle)
    if fhir == "r4":
        # R4B's model of Parameters and Bundle is R4's.
        assert ["Bundle", "history"] == [found["resourceType"], found["type"]]
        r4_model("Bundle").model_validate(found)
    else:
        assert "subscription-notification" == found["type"]
        r5_model("Bundle").model_validate(found)
    urls = [entry["fullUrl"] for entry in found["entry"]]
    assert len(urls) == len(set(urls))
    for entry in found["entry"]:
        assert {"method", "url"} == set(entry["request"])
        assert entry["response"]["status"].isdigit()
        is_read_or_deleted = entry["request"]["method"] in ("GET", "DELETE")
        assert "resource" in entry or is_read_or_deleted


@pytest.mark.parametrize("content", ["empty", "id-only", "full-resource"])
def test_a_whole_session(site: Hooked, number: int, content: str) -> None:
    made = {fhir: site.subscribe(fhir, asked(fhir, site, content)) for fhir in VERSIONS}
    assert ["active", "active"] == [one["status"] for one in made.values()]
    for fhir in VERSIONS:
        (handshake,) = site.told(fhir, "handshake")
        assert ("requested", 0) == (state(fhir, handshake)["status"], state(fhir, handshake)["count"])
    site.arrived(instance(number))
    assert eventually(lambda: all(site.numbers(fhir) == [1] for fhir in VERSIONS))
    site.arrived(instance(number, 1, 2))
    assert eventually(lambda: all(site.numbers(fhir) == [1, 2] for fhir in VERSIONS))
    for request in site.server.requests:
        judge(request.path.rpartition("/")[2], request.json)
    study = f"{ROOT}.{number}"
    has_topic = content != "empty"
    for fhir in VERSIONS:
        for one in site.told(fhir):
            assert [f"http://testserver/fhir/{fhir}/ImagingStudy/{study}"] * has_topic == state(fhir, one)[
                "focus"
            ]
            assert (TOPIC if has_topic else None) == state(fhir, one)["topic"]
            assert max(state(fhir, one)["numbers"]) <= state(fhir, one)["count"]
            studies = [entry["resource"]["id"] for entry in one["entry"][1:]]
            assert [study] * (content == "full-resource") == studies
        judge_state(site, fhir, made[fhir]["id"], content)


def judge_state(site: Hooked, fhir: str, name: str, content: str) -> None:
    """The operations say the same as what was sent."""
    status = site.read(fhir, name, "/$status")
    assert ("searchset", 1) == (status["type"], status["total"])
    of_all = site.client.get(f"/fhir/{fhir}/Subscription/$status?status=active&id={name}").json()
    assert 1 == of_all["total"]
    assert 0 == site.client.get(f"/fhir/{fhir}/Subscription/$status?status=error").json()["total"]
    assert ("query-status", "active") == tuple(state(fhir, status)[one] for one in ("type", "status"))
    events = site.read(fhir, name, "/$events?eventsSinceNumber=2&eventsUntilNumber=2")
    judge(fhir, events)
    assert ("query-event", [2]) == tuple(state(fhir, events)[one] for one in ("type", "numbers"))
    more = site.client.post(
        f"/fhir/{fhir}/Subscription/{name}/$events",
        json={
            "resourceType": "Parameters",
            "parameter": [
                {"name": "eventsSinceNumber", "valueString": "1"},
                {"name": "content", "valueCode": "id-only"},
            ],
        },
    ).json()
    assert state(fhir, more)["focus"], content


FILTERS = [
    ("modality", "CT", [0, 2]),
    ("modality", "MR", [1]),
    ("modality", "CT,MR", [0, 1, 2]),
    ("patient.identifier", "{1}p", [1]),
    ("identifier", f"urn:dicom:uid|urn:oid:{ROOT}.{{2}}", [2]),
    ("started", "ge2026-01-03", [2]),
    ("status", "available", [0, 1, 2]),
    ("modality:not", "CT", [1]),
    ("series", f"{ROOT}.{{1}}.1", [1]),
]


def filter_by(fhir: str, number: int, name: str, value: str) -> Any:
    """Return a filter in one of the forms that a version has."""
    if fhir == "r4":
        return (f"{name}={value}", f"ImagingStudy.{name}={value}", f"ImagingStudy?{name}={value}")[number % 3]
    word, _, modifier = name.partition(":")
    made = {"filterParameter": word, "value": value} | ({"modifier": modifier} if modifier else {})
    return made | ({"value": value[2:], "comparator": "ge"} if value.startswith("ge") else {})


@pytest.mark.parametrize("fhir", VERSIONS)
def test_filters(site: Hooked, number: int, fhir: str) -> None:
    studies = [number, number + 1, number + 2]
    wanted = {}
    for form, (name, value, which) in enumerate(FILTERS):
        one = filter_by(fhir, form, name, value.format(*studies))
        made = site.subscribe(fhir, asked(fhir, site, filters=(one,)))
        wanted[made["id"]] = [studies[index] for index in which]
    keep(site.index, instance(number))
    keep(site.index, instance(number + 1, Modality="MR", PatientID=f"{number + 1}p"))
    site.arrived(instance(number + 2, StudyDate="20260103"))

    def found() -> dict[str, list[int]]:
        told: dict[str, list[int]] = {name: [] for name in wanted}
        for one in site.told(fhir):
            url = one["entry"][0]["request"]["url"].removesuffix("/$status")
            told[url.rpartition("/")[2]] += [int(f.rpartition(".")[2]) for f in state(fhir, one)["focus"]]
        return {name: sorted(set(studies)) for name, studies in told.items()}

    assert eventually(lambda: found() == wanted), (found(), wanted)


def test_a_deletion_is_told_to_those_who_were_told_of_the_study(site: Hooked, number: int) -> None:
    of_ct = site.subscribe("r5", r5(site.endpoint("r5"), filters=(("modality", "CT"),)))["id"]
    of_mr = site.subscribe("r5", r5(site.endpoint("r5"), filters=(("modality", "MR"),)))["id"]
    site.arrived(instance(number))
    assert eventually(lambda: len(site.told("r5")) == 1)
    site.index.delete(f"{ROOT}.{number}")
    assert eventually(lambda: len(site.told("r5")) == 2)
    counts = [state("r5", site.read("r5", name, "/$status"))["count"] for name in (of_ct, of_mr)]
    assert [2, 0] == counts


def test_an_endpoint_that_fails_gets_all_in_order_when_it_is_back(site: Hooked, number: int) -> None:
    site.subscribe("r5", r5(site.endpoint("r5"), maxCount=1))
    failures = iter([Response(503), Response(nothing=True), Response(500, b"<html>")])
    site.script = lambda _: next(failures, None)
    for one in (number, number + 1, number + 2):
        site.arrived(instance(one))
    assert eventually(lambda: site.numbers("r5")[-3:] == [1, 2, 3])
    assert [1, 1, 1, 1, 2, 3] == site.numbers("r5")


def test_one_that_goes_on_failing_is_in_error_until_its_owner_asks_again(site: Hooked, number: int) -> None:
    resource = r4(site.endpoint("r4"))
    name = site.subscribe("r4", resource, "mine")["id"]
    site.script = lambda _: Response(500)
    site.arrived(instance(number))
    assert eventually(lambda: site.read("r4", name)["status"] == "error")
    assert "500" in site.read("r4", name)["error"]
    before = len(site.server.requests)
    site.arrived(instance(number + 1))
    # Events are counted while nothing is sent.
    assert eventually(lambda: state("r4", site.read("r4", name, "/$status"))["count"] == 2)
    assert "error" == state("r4", site.read("r4", name, "/$status"))["status"]
    assert before == len(site.server.requests)
    site.script = lambda _: None
    assert "active" == site.subscribe("r4", resource, "mine")["status"]
    assert eventually(lambda: site.numbers("r4")[-2:] == [1, 2])


ENDPOINTS = [
    (Response(404), "error"),
    (Response(301, headers={"Location": "/hooks/two"}), "error"),
    (Response(307, headers={"Location": "/hooks/two"}), "error"),
    (Response(nothing=True), "error"),
    (Response(410), "off"),
    (Response(202, b"<html>thanks"), "active"),
    (Response(200, b"x" * 1_000_000), "active"),
]


@pytest.mark.parametrize(("answer", "status"), ENDPOINTS, ids=range(len(ENDPOINTS)))
def test_handshakes(site: Hooked, answer: Response, status: str) -> None:
    site.script = lambda _: answer
    assert status == site.subscribe("r5", r5(site.endpoint("r5")))["status"]
    # No redirect is followed.
    assert {"/hooks/r5"} == {request.path for request in site.server.requests}


def test_heartbeats(site: Hooked) -> None:
    name = site.subscribe("r4", r4(site.endpoint("r4")))["id"]
    url = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-heartbeat-period"
    resource = r4(site.endpoint("r4"), extension=[{"url": url, "valueUnsignedInt": 10}])
    assert "active" == site.subscribe("r4", resource, name)["status"]
    assert [] == site.told("r4", "heartbeat")
    database = site.index._database
    with database.writing():
        database.execute(SubscriptionRow.update(sent=SubscriptionRow.sent - 10_000))
    site.index.subscriptions.study_published()
    assert eventually(lambda: site.told("r4", "heartbeat"))
    (heartbeat, *_) = site.told("r4", "heartbeat")
    judge("r4", heartbeat)
    assert ("active", 0) == tuple(state("r4", heartbeat)[one] for one in ("status", "count"))


def test_headers_are_sent_and_never_shown(site: Hooked) -> None:
    parameter = [{"name": "Authorization", "value": SECRET}]
    name = site.subscribe("r5", r5(site.endpoint("r5"), parameter=parameter))["id"]
    made = site.read("r5", name)
    assert [{"name": "Authorization", "value": "***"}] == made["parameter"]
    # What was read can be sent back: the secret stays.
    site.subscribe("r5", made | {"status": "requested"}, name)
    lines = {"header": [f"authorization: {SECRET}"]}
    assert ["authorization: ***"] == site.subscribe("r4", r4(site.endpoint("r4"), **lines))["channel"][
        "header"
    ]
    assert {SECRET} == {request.headers["authorization"] for request in site.server.requests}
    assert {"application/fhir+json"} == {request.headers["content-type"] for request in site.server.requests}


def test_what_has_not_been_sent_is_sent_after_a_restart(site: Hooked, number: int) -> None:
    site.subscribe("r5", r5(site.endpoint("r5")))
    site.script = lambda _: Response(503, headers={"Retry-After": "3600"})
    site.arrived(instance(number))
    assert eventually(lambda: site.numbers("r5") == [1])
    assert eventually(lambda: site.index.subscriptions.store.all()[0].attempts == 1)
    site.close()
    site.script = lambda _: None
    site.open()
    row = SubscriptionRow
    with site.index._database.writing():
        site.index._database.execute(row.update(due=0))
    site.index.subscriptions.study_published()
    assert eventually(lambda: site.index.subscriptions.store.all()[0].delivered == 1)
    assert [1, 1] == site.numbers("r5")


def test_a_study_that_is_complete(site: Hooked, number: int) -> None:
    site.subscribe("r5", r5(site.endpoint("r5"), topic=COMPLETE))
    site.arrived(instance(number))
    database = site.index._database
    which = (Resource.name == f"{ROOT}.{number}") & (Resource.fhir == "r5")
    assert eventually(lambda: database.rows(Resource.select(Resource.id).where(which)))
    ((row,),) = database.rows(Resource.select(Resource.id).where(which))
    with database.writing():
        database.execute(Change.insert(resource=row, version=1, kind="complete", changed=1, reason="mpps"))
    site.index.subscriptions.study_published()
    assert eventually(lambda: site.numbers("r5") == [1])


def test_what_the_feed_has_forgotten_is_forgotten(site: Hooked, number: int) -> None:
    name = site.subscribe("r5", r5(site.endpoint("r5")))["id"]
    for one in (number, number + 1):
        site.arrived(instance(one))
    database = site.index._database
    assert eventually(lambda: site.index.subscriptions.store.all()[0].delivered == 2)
    prune(database, 1)
    worker = site.index.subscriptions._worker
    assert worker is not None
    worker._follower.forget()
    assert 1 >= len(database.rows(SubscriptionEvent.select(SubscriptionEvent.id)))
    assert 2 == state("r5", site.read("r5", name, "/$events"))["count"]


def test_an_endpoint_that_is_allowed_no_more_gets_nothing(site: Hooked, number: int) -> None:
    name = site.subscribe("r5", r5(site.endpoint("r5")))["id"]
    site.index.subscriptions.allow([])
    before = len(site.server.requests)
    site.arrived(instance(number))
    assert eventually(lambda: site.read("r5", name)["status"] == "error")
    assert before == len(site.server.requests)


def test_one_ends_when_it_says_so(site: Hooked) -> None:
    answer = site.client.post(
        "/fhir/r5/Subscription", json=r5(site.endpoint("r5"), end="2026-01-01T00:00:00+01:00")
    )
    assert 201 == answer.status_code
    assert eventually(lambda: site.index.subscriptions.store.all() == [])
