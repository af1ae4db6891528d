"""kill -9 at random moments under load: what was acknowledged is there, and nothing is partial."""

import random
import time
from collections.abc import Callable

import pytest

from support.daemon import Daemon, cpu_seconds, eventually
from support.load import Load, described, indexed, leftovers, lost

# CPU time until it is ready, since test machines are shared. The goal on an idle machine is 2 s.
READY_SECONDS = 10.0


def rounds(start: Callable[..., Daemon], count: int) -> list[float]:
    """Kill a daemon under load `count` times, check each time; return the CPU time of each start."""
    took: list[float] = []
    acknowledged: set[str] = set()
    daemon = start()
    for number in range(count):
        load = Load((daemon.host, daemon.port), first=number * 100_000)
        load.wait_for(1)
        time.sleep(random.uniform(0, 0.4))
        daemon.kill()
        load.end()
        acknowledged |= load.acknowledged

        daemon = start()
        took.append(cpu_seconds(daemon.process.pid))
        assert [] == lost(daemon.data, acknowledged)
        assert [] == leftovers(daemon.data)
    assert eventually(lambda: set(indexed(daemon.data)) == described(daemon.data))
    assert [] == list(daemon.data.glob("fhir/**/*.tmp"))
    return took


def test_a_kill_at_any_moment_loses_nothing(start: Callable[..., Daemon]) -> None:
    took = rounds(start, 20)
    assert READY_SECONDS > max(took), took


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_two_hundred_kills_lose_nothing(start: Callable[..., Daemon]) -> None:
    took = rounds(start, 200)
    assert READY_SECONDS > max(took), took
