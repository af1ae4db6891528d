"""An index that serves, as the daemon has it, and what is asked of it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index import FhirSettings, Index, PublishSettings, WorklistSettings
from support.filling import STORAGE
from support.hl7 import Sender

VERSIONS = FhirSettings(versions=("dstu2", "r4", "r5"))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., Index]]:
    """Open and serve indexes on one data directory, each with its worklist settings; one at a time."""
    open_now: list[Index] = []

    def serve(**worklist: Any) -> Index:
        while open_now:
            open_now.pop().close()
        settings = WorklistSettings(hl7_port=0, folder_interval=0.05, **worklist)
        index = Index(tmp_path / "data", STORAGE, None, VERSIONS, PublishSettings(interval=0), settings)
        open_now.append(index)
        index.serve()
        return index

    yield serve
    for index in open_now:
        index.close()


@pytest.fixture
def index(served: Callable[..., Index]) -> Index:
    return served()


@pytest.fixture
def ris(index: Index) -> Iterator[Sender]:
    sender = Sender(index.orders.hl7_address)
    yield sender
    sender.close()
