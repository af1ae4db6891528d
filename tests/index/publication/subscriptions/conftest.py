"""Sites with one endpoint, without long pauses."""

import itertools
from collections.abc import Iterator

import pytest

from index.publication.subscriptions import worker as worker_module
from support.fhir_server import FhirServer
from support.subscriptions import Hooked

_NUMBERS = itertools.count(100, 10)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(worker_module, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(worker_module, "MOST_ATTEMPTS", 4)


def _scope(fixture_name: str, config: pytest.Config) -> str:
    """Of a database of PostgreSQL each test has its own."""
    assert fixture_name
    return "module" if config.getoption("--engine") == "sqlite" else "function"


@pytest.fixture(scope=_scope)
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hooked]:
    server = FhirServer()
    made = Hooked(tmp_path_factory.mktemp("site") / "data", server)
    yield made
    made.close()
    server.close()


@pytest.fixture
def site(shared: Hooked) -> Iterator[Hooked]:
    yield shared
    shared.forget()


@pytest.fixture
def number() -> int:
    """Return the number of a study that no other test has."""
    return next(_NUMBERS)
