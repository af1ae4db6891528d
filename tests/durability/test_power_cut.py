"""A power cut at random moments under load: what was acknowledged by then is there."""

import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from support.daemon import Daemon, eventually
from support.disk import Disk
from support.load import SUCCESS, Load, described, leftovers, lost
from support.trace import Call, answers, read, strace

# Each write is recorded whole: the largest is an object.
LARGEST_WRITE = 70_000


def record(
    start: Callable[..., Daemon], folder: Path, count: int, *options: str, **environment: str
) -> list[Call]:
    """Store instances over four associations; return the system calls of that."""
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "trace"
    daemon = start(
        data=folder / "disk" / "data",
        prefix=strace(trace, *options, strings=LARGEST_WRITE),
        **environment,
    )
    load = Load((daemon.host, daemon.port), count=count)
    load.end(100)
    assert {SUCCESS} == set(load.answers.values())
    daemon.kill()
    return read(trace)


def acknowledged(calls: list[Call], cut: float) -> set[str]:
    return {uid for began, uid, status in answers(calls) if began < cut and status == SUCCESS}


def moments(calls: list[Call], count: int) -> list[int]:
    """Return random moments, each after the first answer, and the end."""
    first = min(began for began, _, _ in answers(calls))
    return [random.randint(first, calls[-1].begin) for _ in range(count - 1)] + [calls[-1].begin + 1]


def cuts(start: Callable[..., Daemon], folder: Path, calls: list[Call], count: int) -> None:
    for number, cut in enumerate(moments(calls, count)):
        seed = random.random()
        target = folder / f"cut{number}"
        Disk(folder / "disk", calls, cut).restore(target, random.Random(seed))
        daemon = start(data=target / "data")
        expected = acknowledged(calls, cut)
        said = f"cut at {cut}, seed {seed}"
        assert [] == lost(daemon.data, expected), said
        assert [] == leftovers(daemon.data), said
        assert eventually(lambda: expected <= described(daemon.data)), said  # noqa: B023  called at once
        assert 0 == daemon.stop()
        shutil.rmtree(target)


def test_a_power_cut_loses_nothing(start: Callable[..., Daemon], tmp_path: Path) -> None:
    cuts(start, tmp_path, record(start, tmp_path, 20), 10)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_fifty_power_cuts_lose_nothing(start: Callable[..., Daemon], tmp_path: Path) -> None:
    for number in range(5):
        cuts(start, tmp_path / str(number), record(start, tmp_path / str(number), 100), 10)


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        ((), {"IMAGINGSTUDYD_STORAGE__DURABILITY": "process-crash"}),
        (("-e", "inject=fsync:retval=0"), {}),
        (("-e", "inject=fdatasync:retval=0"), {}),
    ],
    ids=["no syncs at all", "folders not synced", "content not synced"],
)
def test_it_is_found_when_a_sync_is_missing(
    start: Callable[..., Daemon], tmp_path: Path, options: tuple[str, ...], environment: dict[str, str]
) -> None:
    """That the test above can fail."""
    calls = record(start, tmp_path, 3, *options, **environment)
    Disk(tmp_path / "disk", calls, float("inf")).restore(tmp_path / "cut", random.Random(1))
    expected = acknowledged(calls, float("inf"))
    assert 12 == len(expected)
    try:
        missing = lost(tmp_path / "cut" / "data", expected)
    except (sqlite3.Error, AssertionError):  # the index itself is lost
        missing = sorted(expected)
    assert [] != missing
