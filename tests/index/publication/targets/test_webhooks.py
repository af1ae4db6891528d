"""Webhooks: signed messages by the same outbox."""

import base64
import hashlib
import hmac
from collections.abc import Callable

import orjson
import pytest

from index.database.tables import Change, Resource
from index.publication.targets.webhook import signature
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.fhir_server import FhirServer, Response
from support.filling import keep
from support.targets import Site, target

Sites = Callable[..., Site]
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105  the example of standardwebhooks.com


def test_the_example_of_the_specification() -> None:
    body = b'{"test": 2432232314}'
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert expected == signature(SECRET, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)


@pytest.mark.parametrize("payload", ["id", "resource"])
def test_each_change_is_told_signed_and_again_where_it_fails(
    site: Sites, server: FhirServer, payload: str
) -> None:
    is_down = True
    server.script = lambda _: Response(503 if is_down else 202, b"")
    url = server.url.replace("/fhir", "/hook")
    made = site(target(server, url=url, method="webhook", payload=payload, secret=SECRET))
    keep(made.index, instance())
    assert eventually(lambda: len(server.requests) > 1)
    is_down = False
    assert made.is_published()
    made.index.delete(f"{ROOT}.1")
    assert eventually(lambda: server.requests[-1].json["type"] == "ImagingStudy.deleted")
    assert made.is_published()
    told = [one.json for one in server.requests]
    assert {"/hook"} == {one.path for one in server.requests}
    assert "ImagingStudy.updated" == told[0]["type"]
    assert ("r4", f"{ROOT}.1") == (told[0]["data"]["fhir"], told[0]["data"]["id"])
    assert (payload == "resource") == ("resource" in told[0]["data"])
    # The same message has the same id, another one another.
    first, *_, last = (one.headers["webhook-id"] for one in server.requests)
    assert server.requests[1].headers["webhook-id"] == first != last
    for one in server.requests:
        content = f"{one.headers['webhook-id']}.{one.headers['webhook-timestamp']}.".encode() + one.body
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        made_here = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
        assert f"v1,{made_here}" == one.headers["webhook-signature"]
        assert SECRET not in one.body.decode()
        orjson.loads(one.body)


def test_one_that_wants_no_more(site: Sites, server: FhirServer) -> None:
    server.script = lambda _: Response(410)
    made = site(target(server, method="webhook"))
    keep(made.index, instance())
    assert eventually(lambda: made.states() == {"dead"})
    assert "webhook-signature" not in server.requests[0].headers


def test_a_study_that_is_complete_is_told_with_the_reason(site: Sites, server: FhirServer) -> None:
    server.script = lambda _: Response(202)
    made = site(target(server, method="webhook"))
    keep(made.index, instance())
    assert made.is_published()
    database = made.index._database
    which = (Resource.type == "ImagingStudy") & (Resource.fhir == "r4")
    ((row,),) = database.rows(Resource.select(Resource.id).where(which))
    with database.writing():
        database.execute(Change.insert(resource=row, version=1, kind="complete", changed=1, reason="mpps"))
    made.index.targets.study_published(1, None, True)
    assert made.is_published()
    last = server.requests[-1].json
    assert ("ImagingStudy.complete", "mpps") == (last["type"], last["data"]["complete"])
