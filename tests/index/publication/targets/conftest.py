"""Sites that publish to scripted servers, without long pauses."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from index import TargetSettings
from index.publication.targets import worker as worker_module
from support.fhir_server import FhirServer
from support.targets import Site


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PAUSE", "STUDY_PAUSE", "HOLD"):
        monkeypatch.setattr(worker_module, f"FIRST_{name}", 0.01)
        monkeypatch.setattr(worker_module, f"LONGEST_{name}", 0.05)


@pytest.fixture
def server() -> Iterator[FhirServer]:
    made = FhirServer()
    yield made
    made.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(*targets: TargetSettings, data: Path | None = None, **options: object) -> Site:
        made.append(Site(data or tmp_path / "data", *targets, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()
