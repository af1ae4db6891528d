"""Disks that fail or are full: A700, nothing partial. The daemon goes on, or stops where it must."""

import contextlib
import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.daemon import Daemon, cli, eventually, serving
from support.faults import associate, copied, injected, inside, small_disk
from support.load import SUCCESS, Load, described, indexed, leftovers, lost
from support.sender import CT_SIZE, LARGE_SIZE, SMALL_SIZE, Refused, Sender, send, template

OUT_OF_RESOURCES = 0xA700
MEGABYTE = 1024 * 1024

_studies = itertools.count(1)


def stored(daemon: Daemon, *numbers: int, size: int = SMALL_SIZE, study: int = 1) -> list[int]:
    """Send instances over a new association; return the answers."""
    statuses: list[int] = []
    source = template(size, study)
    send((daemon.host, daemon.port), source, numbers, lambda _, status: statuses.append(status))
    return statuses


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that survives one fault after another."""
    yield from serving(tmp_path_factory.mktemp("shared") / "data")


@pytest.fixture
def study() -> int:
    """A study of the test's own."""
    return next(_studies)


@pytest.mark.parametrize(
    ("size", "fault"),
    [
        (LARGE_SIZE, "openat:error=ENOSPC:when=1"),
        (LARGE_SIZE, "openat:error=EMFILE:when=1"),
        (LARGE_SIZE, "write:error=ENOSPC:when=1"),
        (LARGE_SIZE, "write:error=EIO:when=1"),
        (LARGE_SIZE, "write:error=EIO:when=2"),
        (LARGE_SIZE, "fdatasync:error=EIO:when=1"),
        (LARGE_SIZE, "rename:error=EIO:when=1"),
        (LARGE_SIZE, "fsync:error=EIO:when=1"),
        (LARGE_SIZE, "pwrite64:error=ENOSPC:when=1"),
        (LARGE_SIZE, "pwrite64:error=ENOSPC:when=5"),
        (SMALL_SIZE, "pwrite64:error=ENOSPC:when=1"),
        (SMALL_SIZE, "pwrite64:error=EIO:when=1"),
        (SMALL_SIZE, "fdatasync:error=EIO:when=1"),
        (SMALL_SIZE, "pwrite64:error=ENOSPC:when=2"),
        (SMALL_SIZE, "pwrite64:error=ENOSPC:when=5"),
    ],
)
def test_an_object_that_cannot_be_kept(
    shared: Daemon, study: int, tmp_path: Path, size: int, fault: str
) -> None:
    source = template(size, study)
    assert [SUCCESS] == stored(shared, 1, size=size, study=study)
    sender, threads = associate(shared)
    message = sender.message(source)
    message.become(2)
    with injected(threads, fault, tmp_path / "trace"):
        assert OUT_OF_RESOURCES == sender.store(message)
    assert [source.uid(1)] == [uid for uid in indexed(shared.data) if uid.startswith(f"{source.series}.")]
    assert [] == leftovers(shared.data)
    message.become(3)
    assert SUCCESS == sender.store(message)
    sender.release()
    assert [SUCCESS, SUCCESS] == stored(shared, 2, 4, size=size, study=study)
    assert [] == lost(shared.data, {source.uid(number) for number in (1, 2, 3, 4)}, size)
    assert [] == leftovers(shared.data)


@pytest.mark.parametrize("fault", ["openat:error=ENOSPC:when=1", "write:error=EIO:when=1"])
def test_a_small_object_is_kept_though_its_file_cannot_be_written_now(
    shared: Daemon, study: int, tmp_path: Path, fault: str
) -> None:
    """The journal has it; the file follows."""
    assert [SUCCESS] == stored(shared, 1, study=study)
    before = len(shared.named("object_not_written"))
    sender, threads = associate(shared)
    message = sender.message(template(study=study))
    uid = message.become(2)
    with injected(threads, fault, tmp_path / "trace"):
        assert SUCCESS == sender.store(message)
    assert before + 1 == len(shared.named("object_not_written"))
    assert eventually(lambda: [] == lost(shared.data, {uid}))
    sender.release()
    assert [SUCCESS] == stored(shared, 3, study=study)
    assert [] == leftovers(shared.data)


def test_a_new_journal_is_made_after_a_fault(daemon: Daemon, tmp_path: Path) -> None:
    sender, threads = associate(daemon)
    message = sender.message(template())
    message.become(1)
    with injected(threads, "fdatasync:error=EIO:when=1", tmp_path / "trace"):
        assert OUT_OF_RESOURCES == sender.store(message)
    numbers = itertools.count(2)

    def is_in_the_journal() -> bool:
        uid = message.become(next(numbers))
        assert SUCCESS == sender.store(message)
        return any(uid.encode() in path.read_bytes() for path in (daemon.data / "journal").iterdir())

    assert eventually(is_in_the_journal)
    sender.release()
    assert next(numbers) - 2 == len(indexed(daemon.data))
    assert [] == leftovers(daemon.data)


@pytest.mark.parametrize(
    ("size", "call"), [(LARGE_SIZE, "fdatasync"), (LARGE_SIZE, "fsync"), (SMALL_SIZE, "fdatasync")]
)
def test_a_failed_sync_is_not_tried_again(
    shared: Daemon, study: int, tmp_path: Path, size: int, call: str
) -> None:
    """The kernel drops pages that it could not write, and the next sync succeeds."""
    assert [SUCCESS] == stored(shared, 1, size=size, study=study)
    sender, threads = associate(shared)
    with injected(threads, f"{call}:error=EIO:when=1", tmp_path / "trace"):
        assert OUT_OF_RESOURCES == sender.store(sender.message(template(size, study)))
    sender.close()
    assert 1 == (tmp_path / "trace").read_text().count(f"{call}(")


@pytest.mark.parametrize("fault", ["fdatasync:error=EIO:when=1", "pwrite64:error=EIO:when=1"])
def test_a_failing_disk_below_the_database_stops_the_daemon(
    start: Callable[..., Daemon], tmp_path: Path, fault: str
) -> None:
    daemon = start()
    sender, threads = associate(daemon)
    message = sender.message(template(LARGE_SIZE, study=9))
    log = daemon.data / "index.sqlite-wal"
    with injected(threads, fault, tmp_path / "trace", log):
        load = Load((daemon.host, daemon.port), size=LARGE_SIZE)
        load.wait_for(4)
        with contextlib.suppress(Refused, OSError):
            for number in range(1000):  # until it is this association that commits for all
                message.become(number)
                if SUCCESS != sender.store(message):
                    break
        load.end()
    assert 1 == daemon.process.wait(180)
    (event,) = daemon.named("database_fault")
    assert "index.sqlite: disk I/O error" in event["error"]

    daemon = start()
    assert [] == lost(daemon.data, load.acknowledged, LARGE_SIZE)
    assert [] == leftovers(daemon.data)
    assert [SUCCESS] == stored(daemon, 500)


def test_a_file_that_is_not_a_database(start: Callable[..., Daemon]) -> None:
    daemon = start()
    daemon.stop()
    (daemon.data / "index.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
    served = cli("serve", "--data", str(daemon.data), "--port", "0", "--no-http")
    assert 1 == served.returncode
    assert "index.sqlite" in served.stderr
    assert "Traceback" not in served.stderr


def test_a_database_that_is_busy_fails_the_whole_group(daemon: Daemon) -> None:
    assert [SUCCESS] == stored(daemon, 1)
    other = sqlite3.connect(daemon.data / "index.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    load = Load((daemon.host, daemon.port), first=10, count=1)
    load.end()
    assert [OUT_OF_RESOURCES] * 4 == list(load.answers.values())
    assert [] == leftovers(daemon.data)
    other.execute("ROLLBACK")
    other.close()
    assert [SUCCESS] == stored(daemon, 2)


@pytest.mark.parametrize("watermark", [0, 6 * MEGABYTE])
def test_a_full_disk(start: Callable[..., Daemon], tmp_path: Path, watermark: int) -> None:
    disk = tmp_path / "disk"
    daemon = start(
        data=disk / "data",
        prefix=small_disk(disk, 32 * MEGABYTE),
        IMAGINGSTUDYD_STORAGE__WATERMARK=str(watermark),
    )
    ballast = inside(daemon, disk / "ballast")
    ballast.write_bytes(bytes(16 * MEGABYTE))
    data = inside(daemon, daemon.data)
    answers: dict[str, int] = {}
    source = template(CT_SIZE)
    sender = Sender((daemon.host, daemon.port))
    message = sender.message(source)

    def store(number: int) -> int:
        uid = message.become(number)
        answers[uid] = sender.store(message)
        return answers[uid]

    number = 0
    while store(number) == SUCCESS:
        number += 1
    assert OUT_OF_RESOURCES == answers[source.uid(number)]
    assert shutil.disk_usage(ballast.parent).free < watermark + CT_SIZE
    assert shutil.disk_usage(ballast.parent).free >= watermark - 2 * CT_SIZE
    copy = copied(data, tmp_path / "copy")
    assert {uid for uid, status in answers.items() if status == SUCCESS} == set(indexed(copy))
    assert [] == leftovers(copy)
    assert OUT_OF_RESOURCES == store(number)

    ballast.unlink()
    assert SUCCESS == store(number)
    sender.release()
    assert eventually(lambda: set(answers) == described(data))
    assert [] == leftovers(copied(data, tmp_path / "copy"))


def test_the_reason_names_the_watermark(start: Callable[..., Daemon]) -> None:
    daemon = start(IMAGINGSTUDYD_STORAGE__WATERMARK=str(1 << 60))
    assert [OUT_OF_RESOURCES] == stored(daemon, 1)
    event = daemon.wait_for(lambda event: event.get("status") == "A700")
    assert "below storage.watermark" in event["reason"]
