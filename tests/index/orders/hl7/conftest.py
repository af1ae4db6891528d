"""Messages given to the handler of an index that does not serve: no socket, no daemon."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from index import Index, WorklistSettings
from index.orders.hl7.message import messages
from support.filling import STORAGE
from support.hl7 import verdict

Told = Callable[..., list[str]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Index]]:
    """Open an index with its worklist settings."""
    open_now: list[Index] = []

    def make(**worklist: Any) -> Index:
        index = Index(tmp_path / "data", STORAGE, worklist=WorklistSettings(**worklist))
        open_now.append(index)
        return index

    yield make
    for index in open_now:
        index.close()


@pytest.fixture
def still(opened: Callable[..., Index]) -> Index:
    return opened()


def tell(index: Index, *frames: bytes) -> list[str]:
    """Give frames to the index as the listener does; return MSA-1 and MSA-3 of each answer."""
    answers = [index.orders._handler.handle(one)[1] for frame in frames for one in messages(frame)]
    return [
        verdict([segment.split("|") for segment in answer.decode().split("\r") if segment])
        for answer in answers
    ]


@pytest.fixture(name="tell")
def _tell(still: Index) -> Told:
    return lambda *frames: tell(still, *frames)
