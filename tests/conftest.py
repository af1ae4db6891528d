"""Fixtures of all tests."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon

# In an activated environment pynetdicom's storescu and echoscu would stand before DCMTK's.
os.environ["PATH"] = f"/usr/bin:{os.environ['PATH']}:/usr/sbin:/sbin"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start daemons on `tmp_path / "data"`, or where `data` says; they are stopped at the end."""
    daemons: list[Daemon] = []

    def starter(*arguments: str, data: Path | None = None, **options: object) -> Daemon:
        daemons.append(Daemon(data or tmp_path / "data", *arguments, **options))
        return daemons[-1]

    yield starter
    for daemon in daemons:
        daemon.stop()


@pytest.fixture
def daemon(start: Callable[..., Daemon]) -> Daemon:
    """A daemon with the default configuration."""
    return start()
