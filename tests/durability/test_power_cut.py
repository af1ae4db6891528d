"""A power cut at random moments under load: what was acknowledged by then is there."""

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from index import Index, StorageSettings
from index.reception.settling import SETTLE_SECONDS
from support.daemon import Daemon, cli, eventually
from support.disk import Disk
from support.load import SUCCESS, Load, described, leftovers, lost
from support.sender import LARGE_SIZE, SMALL_SIZE
from support.trace import Call, answers, read, strace

# Each write is recorded in full: the largest are an object, and the records of a group in the journal.
LARGEST_WRITE = 4 * 70_000


def record(
    start: Callable[..., Daemon],
    folder: Path,
    count: int,
    *options: str,
    size: int = SMALL_SIZE,
    rounds: int = 1,
    **environment: str,
) -> list[Call]:
    """Store `count` instances over four associations in each round; return the system calls."""
    folder.mkdir(parents=True, exist_ok=True)
    trace = folder / "trace"
    daemon = start(
        data=folder / "disk" / "data",
        prefix=strace(trace, *options, strings=LARGEST_WRITE),
        **environment,
    )
    for number in range(rounds):
        load = Load((daemon.host, daemon.port), first=number * count, count=count, size=size)
        load.end()
        assert {SUCCESS} == set(load.answers.values())
        if rounds > 1:
            time.sleep(SETTLE_SECONDS + 0.2)
    daemon.kill()
    return read(trace)


def acknowledged(calls: list[Call], cut: float) -> set[str]:
    return {uid for began, uid, status in answers(calls) if began < cut and status == SUCCESS}


def moments(calls: list[Call], count: int) -> list[int]:
    """Return random moments after the first answer, and the end."""
    first = min(began for began, _, _ in answers(calls))
    return [random.randint(first, calls[-1].begin) for _ in range(count - 1)] + [calls[-1].begin + 1]


def cuts(
    start: Callable[..., Daemon], folder: Path, calls: list[Call], count: int, size: int = SMALL_SIZE
) -> None:
    for number, cut in enumerate(moments(calls, count)):
        seed = random.random()
        target = folder / f"cut{number}"
        Disk(folder / "disk", calls, cut).restore(target, random.Random(seed))
        data, expected = target / "data", acknowledged(calls, cut)
        said = f"cut at {cut}, seed {seed}"
        # The last one by a daemon, the others by what it does to recover: a process takes a second each.
        with started(start, data) if number + 1 == count else recovering(data):
            assert [] == lost(data, expected, size), said
            assert [] == leftovers(data), said
            assert eventually(lambda: expected <= described(data)), said  # noqa: B023  called at once
        shutil.rmtree(target)


@contextmanager
def started(start: Callable[..., Daemon], data: Path) -> Iterator[None]:
    daemon = start(data=data)
    yield
    assert 0 == daemon.stop()


@contextmanager
def recovering(data: Path) -> Iterator[None]:
    with Index(data, StorageSettings(watermark=0)) as index:
        index.serve()
        yield


@pytest.mark.parametrize("size", [SMALL_SIZE, LARGE_SIZE])
def test_a_power_cut_loses_nothing(start: Callable[..., Daemon], tmp_path: Path, size: int) -> None:
    cuts(start, tmp_path, record(start, tmp_path, 20, size=size), 10, size)


def test_a_power_cut_while_the_journal_is_written_over(start: Callable[..., Daemon], tmp_path: Path) -> None:
    """The journal changes its part after each round; instances of the first rounds are in files alone."""
    cuts(start, tmp_path, record(start, tmp_path, 15, rounds=4), 10)


def test_a_command_before_the_daemon_has_started_again(start: Callable[..., Daemon], tmp_path: Path) -> None:
    """The first command makes rows again that were not synced."""
    calls = record(start, tmp_path, 5)
    Disk(tmp_path / "disk", calls, float("inf")).restore(tmp_path / "cut", random.Random(1))
    listed = json.loads(cli("studies", "--data", str(tmp_path / "cut" / "data"), "--json").stdout)
    assert [5] * 4 == [study["instances"] for study in listed]
    assert [] == lost(tmp_path / "cut" / "data", acknowledged(calls, float("inf")))
    verified = cli("verify", "--data", str(tmp_path / "cut" / "data"), "--json").stdout
    kinds = {json.loads(line)["kind"] for line in verified.splitlines()}
    assert {"study-unpublished", "resource-missing"} >= kinds


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_sixty_power_cuts_lose_nothing(start: Callable[..., Daemon], tmp_path: Path) -> None:
    for number, size in enumerate((SMALL_SIZE, LARGE_SIZE) * 3):
        folder = tmp_path / str(number)
        cuts(start, folder, record(start, folder, 50, size=size, rounds=1 + number % 3), 10, size)


@pytest.mark.parametrize(
    ("size", "options", "environment"),
    [
        (LARGE_SIZE, (), {"IMAGINGSTUDYD_STORAGE__DURABILITY": "process-crash"}),
        (SMALL_SIZE, (), {"IMAGINGSTUDYD_STORAGE__DURABILITY": "process-crash"}),
        (LARGE_SIZE, ("-e", "inject=fsync:retval=0"), {}),
        (LARGE_SIZE, ("-e", "inject=fdatasync:retval=0"), {}),
        (SMALL_SIZE, ("-e", "inject=fdatasync:retval=0"), {}),
    ],
    ids=["no syncs", "no syncs, small", "folders not synced", "content not synced", "journal not synced"],
)
def test_it_is_found_when_a_sync_is_missing(
    start: Callable[..., Daemon],
    tmp_path: Path,
    size: int,
    options: tuple[str, ...],
    environment: dict[str, str],
) -> None:
    """The tests above can fail."""
    calls = record(start, tmp_path, 3, *options, size=size, **environment)
    target = tmp_path / "cut" / "data"
    Disk(tmp_path / "disk", calls, float("inf")).restore(target.parent, random.Random(1))
    expected = acknowledged(calls, float("inf"))
    assert 12 == len(expected)
    cli("studies", "--data", str(target))  # repairs what can be repaired
    try:
        missing = lost(target, expected, size, 0)
    except (sqlite3.Error, AssertionError):  # the index itself is lost
        missing = sorted(expected)
    assert [] != missing


def test_it_is_found_when_the_journal_is_written_over_too_early(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    """Files and rows must be synced before."""
    calls = record(start, tmp_path, 5, "-e", "inject=syncfs:retval=0", rounds=4)
    target = tmp_path / "cut" / "data"
    Disk(tmp_path / "disk", calls, float("inf")).restore(target.parent, random.Random(1))
    cli("studies", "--data", str(target))
    assert [] != lost(target, acknowledged(calls, float("inf")), seconds=0)
