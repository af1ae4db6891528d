"""The targets of another configuration, taken over while all goes on."""

import threading
from collections.abc import Callable

from support.daemon import eventually
from support.dicom import instance
from support.fhir_server import FhirServer, Response
from support.filling import keep
from support.targets import Site, here, target, there

Sites = Callable[..., Site]


def test_targets_come_change_and_go(site: Sites, server: FhirServer) -> None:
    other = FhirServer()
    made = site(target(server))
    keep(made.index, instance(1))
    assert made.is_published()
    # One comes: it is filled. The other one is not disturbed.
    count = len(server.requests)
    made.index.targets.use([target(server), target(other, "research")])
    assert made.is_published()
    assert here(made.index.data) == there(other)
    assert count == len(server.requests)
    # One changes: what it has is not sent again, what comes is sent by the new settings.
    changed = target(server, authorization="bearer", secret="new")  # noqa: S106  made up
    made.index.targets.use([changed, target(other, "research")])
    keep(made.index, instance(2))
    assert made.is_published()
    assert here(made.index.data) == there(server)
    new = [one for one in server.requests if one.headers.get("authorization") == "Bearer new"]
    assert new == server.requests[count:]
    # One goes.
    made.index.targets.use([changed])
    keep(made.index, instance(3))
    assert made.is_published()
    assert 2 == len(other.of("ImagingStudy"))
    assert ["ehr"] == [one.target for one in made.index.targets.listing.status()]
    other.close()


def test_one_that_failed_is_tried_at_once(site: Sites, server: FhirServer) -> None:
    server.script = lambda _: Response(429, None, {"Retry-After": "86400"})
    settings = target(server)
    made = site(settings)
    keep(made.index, instance())
    assert eventually(lambda: bool(made.index.targets.failing()))
    server.script = lambda _: None
    made.index.targets.use([settings])
    assert made.is_published()


def test_what_is_being_sent_ends_before_new_settings_send(site: Sites, server: FhirServer) -> None:
    may_go = threading.Event()
    server.script = lambda request: may_go.wait(60) and None if request.is_write else None
    made = site(target(server))
    keep(made.index, instance(1, 1, 1))
    assert eventually(lambda: server.at_once == 1)
    made.index.targets.use([target(server, concurrency=2)])
    keep(made.index, instance(1, 1, 2))
    assert eventually(lambda: 2 in [one.get("numberOfInstances") for one in here(made.index.data).values()])
    may_go.set()
    assert made.is_published()
    assert 1 == server.most_at_once
    assert here(made.index.data) == there(server)
