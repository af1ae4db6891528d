"""Several nodes of one index: a target is published to by one of them, and by another when that is gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from index import PublishSettings
from support.daemon import eventually
from support.dicom import instance
from support.fhir_server import FhirServer
from support.filling import keep
from support.nodes import joined
from support.postgresql import create_database, drop_database
from support.targets import FHIR, target

pytestmark = pytest.mark.sqlite  # it chooses its own engine


@pytest.fixture
def url(postgresql_server: str) -> Iterator[str]:
    yield create_database(postgresql_server, "targets")
    drop_database(postgresql_server, "targets")


def test_one_node_publishes_and_another_takes_over(url: str, tmp_path: Path, server: FhirServer) -> None:
    publish = PublishSettings(interval=0, backoff=0, targets=(target(server),))
    nodes = [joined(tmp_path / name, url, fhir=FHIR, publish=publish) for name in ("one", "two")]
    for node in nodes:
        node.serve()
    for study, node in enumerate((*nodes, *nodes), start=1):
        keep(node, instance(study))
    assert eventually(lambda: 4 == len(server.of("ImagingStudy")))
    assert [True, False] == [bool(node.targets._claims._held) for node in nodes]
    # Each study came once: the second write of any would be its second version.
    assert eventually(lambda: not nodes[0].targets.listing.status()[0].waiting)
    assert {1} == {version for name, version in server.versions.items() if name.startswith("ImagingStudy")}
    nodes[0].close()
    keep(nodes[1], instance(5))
    assert eventually(lambda: 5 == len(server.of("ImagingStudy")))
    nodes[1].close()
