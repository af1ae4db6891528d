"""A soak test: the work of a day at the same time, for a short or a long while."""

import itertools
import random
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from support.daemon import Daemon, cli
from support.load import SUCCESS, described, indexed, leftovers, lost
from support.sender import SMALL_SIZE, Refused, Sender, template
from support.worklist import findscu, item, query, write

SENDERS = 3
INSTANCES_OF_A_STUDY = 60
# Between two instances of one sender, in seconds: the test is about time, not about load.
PAUSE = 0.02
# How much a daemon may grow after its first moments, by caches and the allocator; in bytes.
GROWTH = 40_000_000


class Day:
    """Senders, a modality that queries its worklist, and a monitoring system, until `end`."""

    def __init__(self, port: int, http: int, folder: Path) -> None:
        self.acknowledged: set[str] = set()
        self.refused: list[str] = []
        self.answers = self.looks = self.failures = self.restarts = 0
        # Cleared while the daemon restarts: a failure at that time is not a fault.
        self.served = threading.Event()
        self.served.set()
        self._port, self._http, self._folder = port, http, folder
        self._over = threading.Event()
        self._studies = itertools.count(1)
        work = [self._send] * SENDERS + [self._ask, self._look]
        self._threads = [threading.Thread(target=one, daemon=True) for one in work]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Let all of them finish."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _send(self) -> None:
        while not self._over.is_set():
            with suppress(OSError, Refused):  # the daemon restarts: only its answers count
                self._send_study(next(self._studies))

    def _send_study(self, study: int) -> None:
        source = template(SMALL_SIZE, study)
        sender = Sender(("127.0.0.1", self._port), timeout=30)
        try:
            message = sender.message(source)
            for number in range(random.randint(1, INSTANCES_OF_A_STUDY)):
                uid = message.become(number)
                status = sender.store(message)
                (self.acknowledged.add if status == SUCCESS else self.refused.append)(uid)
                time.sleep(PAUSE)
            sender.release()
        finally:
            sender.close()

    def _ask(self) -> None:
        while not self._over.wait(0.5):
            with self._counted():
                found, ended = findscu(self._port, query(Modality="CT"), self._folder)
                self.answers += len(found)
                if ended.returncode:
                    raise OSError(ended.stderr)

    def _look(self) -> None:
        while not self._over.wait(0.5):
            for path in ("health/live", "health/ready", "metrics"):
                with (
                    self._counted(),
                    urllib.request.urlopen(f"http://127.0.0.1:{self._http}/{path}", timeout=60) as answer,
                ):
                    assert answer.read()
                    self.looks += 1

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count a failure, where the daemon served all the time."""
        began, was_served = self.restarts, self.served.is_set()
        try:
            yield
        except (OSError, HTTPException):
            self.failures += was_served and self.served.is_set() and began == self.restarts


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _resident(daemon: Daemon) -> int:
    """Return the daemon's resident memory in bytes."""
    pages = Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


def soak(
    start: Callable[..., Daemon], folder: Path, *, seconds: float, reload: float, restart: float
) -> None:
    """Run for `seconds`, with a reload every `reload` seconds and a restart every `restart` seconds."""
    config = folder / "config.toml"
    config.write_text('[[peers]]\naet = "CT1"\n')
    for number in range(1, 41):
        write(item(number), folder / "wl" / f"{number}.wl")
    assert 0 == cli("worklist", "import", "--data", str(folder / "data"), str(folder / "wl")).returncode
    ports = _free_port(), _free_port()
    options = ("--config", str(config), "--port", str(ports[0]), "--http-port", str(ports[1]))
    daemon = start(*options)
    day = Day(*ports, folder / "queries")
    grown: list[int] = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ends = min(time.monotonic() + restart, until)
        first = 0
        while time.monotonic() < ends:
            time.sleep(min(reload, max(0.0, ends - time.monotonic())))
            daemon.process.send_signal(signal.SIGHUP)
            first = first or _resident(daemon)
        daemon.wait_for(lambda event: event.get("event") == "reloaded")
        grown.append(_resident(daemon) - first)
        day.served.clear()
        assert 0 == daemon.stop()
        daemon = start(*options)
        day.restarts += 1
        day.served.set()
    day.end()
    assert 0 == daemon.stop()

    assert [] == day.refused
    assert [] == lost(daemon.data, day.acknowledged)
    assert [] == leftovers(daemon.data)
    assert set(indexed(daemon.data)) == described(daemon.data)
    assert max(grown) < GROWTH, grown
    assert 0 == day.failures
    assert day.answers >= 40
    assert day.looks >= seconds
    print(f"{len(day.acknowledged)} instances, {day.answers} answers, {day.looks} looks, grown {grown}")


def test_a_short_day(start: Callable[..., Daemon], tmp_path: Path) -> None:
    soak(start, tmp_path, seconds=12, reload=2, restart=6)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_ten_minutes(start: Callable[..., Daemon], tmp_path: Path) -> None:
    soak(start, tmp_path, seconds=600, reload=60, restart=180)
