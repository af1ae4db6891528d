"""Fixtures of all tests."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog

from support.daemon import Daemon

# In an activated environment pynetdicom's storescu and echoscu would stand before DCMTK's.
os.environ["PATH"] = f"/usr/bin:{os.environ['PATH']}:/usr/sbin:/sbin"


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A daemon that is run within a test blocks signals: the tests to come have them again."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@pytest.fixture(autouse=True)
def _logs() -> Iterator[None]:
    """A command that is run within a test sets up logging: the tests to come have the default again."""
    yield
    structlog.reset_defaults()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start daemons on `tmp_path / "data"`, or where `data` says; they are stopped at the end."""
    with contextlib.ExitStack() as daemons:

        def starter(*arguments: str, data: Path | None = None, **options: object) -> Daemon:
            daemon = Daemon(data or tmp_path / "data", *arguments, **options)
            daemons.callback(daemon.stop)
            return daemon

        yield starter


@pytest.fixture
def daemon(start: Callable[..., Daemon]) -> Daemon:
    """A daemon with the default configuration."""
    return start()
