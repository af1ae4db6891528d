"""Several nodes of one index: one of them sends the notifications, and another when that is gone."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.daemon import eventually
from support.dicom import instance
from support.fhir_server import FhirServer, Response
from support.filling import keep
from support.nodes import joined
from support.postgresql import create_database, drop_database
from support.subscriptions import r5, state
from support.targets import FHIR

pytestmark = pytest.mark.sqlite  # it chooses its own engine


@pytest.fixture
def url(postgresql_server: str) -> Iterator[str]:
    yield create_database(postgresql_server, "subscriptions")
    drop_database(postgresql_server, "subscriptions")


def test_one_node_notifies_and_another_takes_over(url: str, tmp_path: Path) -> None:
    server = FhirServer()
    server.script = lambda _: Response(200)
    nodes = [joined(tmp_path / name, url, fhir=FHIR) for name in ("one", "two")]
    endpoint = server.url.replace("/fhir", "/hooks")
    for node in nodes:
        node.subscriptions.allow([endpoint])
        node.serve()
    base = "http://pacs.example/fhir/r5"
    topic = f"{base}/SubscriptionTopic/imagingstudy-change"
    nodes[1].subscriptions.put("r5", "one", r5(endpoint, topic=topic, maxCount=1), base, "reader")

    def numbers() -> list[int]:
        return [number for one in server.requests[:] for number in state("r5", one.json)["numbers"]]

    for study, node in enumerate((*nodes, *nodes), start=1):
        keep(node, instance(study))
        node.association_ended("test")
    assert eventually(lambda: len(numbers()) == 4)
    # The other one waits until it looks again, and is not busy meanwhile.
    idle = next(node.subscriptions._worker for node in nodes if not node.subscriptions._claims._held)
    assert idle is not None
    assert eventually(lambda: math.inf == idle._pick_at)
    nodes[0].close()
    keep(nodes[1], instance(5))
    nodes[1].association_ended("test")
    # Each event came once, and none is missing.
    assert eventually(lambda: numbers() == [1, 2, 3, 4, 5]), numbers()
    nodes[1].close()
    server.close()
