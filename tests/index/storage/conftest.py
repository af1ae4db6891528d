"""Stores that nodes share: a bucket of moto, or a folder."""

from collections.abc import Iterator

import pytest

from index.maintenance import store_keeping
from support.object_server import KEYS, object_server


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of an S3 server."""
    with object_server() as url:
        yield url


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Uploads are begun, and stores that failed are asked, soon."""
    monkeypatch.setattr(store_keeping, "LOOK_SECONDS", 0.02)


@pytest.fixture
def prefix(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A prefix of this test only; the environment has the server's credentials."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    return "".join(one if one.isalnum() else "-" for one in request.node.name)
