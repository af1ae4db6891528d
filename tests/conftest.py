"""Fixtures of all tests."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from support.daemon import Daemon, serving
from support.postgresql import server

# In an activated environment pynetdicom's storescu and echoscu would come before DCMTK's.
os.environ["PATH"] = f"/usr/bin:{os.environ['PATH']}:/usr/sbin:/sbin"

# A busy machine is no reason to fail.
settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


def pytest_addoption(parser: pytest.Parser) -> None:
    """By which engine the tests of `tests/index` keep their indexes."""
    parser.addoption("--engine", choices=("sqlite", "postgresql"), default="sqlite")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is of SQLite alone where the engine is another one."""
    if config.getoption("--engine") != "sqlite":
        left = [item for item in items if item.get_closest_marker("sqlite")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if not item.get_closest_marker("sqlite")]


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """Restore the signal mask: a daemon that runs within a test blocks signals."""
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
    """Start daemons on `tmp_path / "data"`, or on `data`; they are stopped at the end."""
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


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of the empty database of a server."""
    with server() as url:
        yield url


@pytest.fixture(scope="session")
def shared_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the default configuration, for tests that neither change nor stop it.

    Others have stored before: a test stores under UIDs of its own, and counts only those.
    """
    yield from serving(tmp_path_factory.mktemp("shared") / "data")
