"""Disks that fail or are full: A700, nothing partial, and a daemon that goes on, or stops where it must."""

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from support.daemon import Daemon, cli, eventually
from support.faults import associate, copied, injected, inside, small_disk, threads
from support.load import SUCCESS, Load, described, indexed, leftovers, lost
from support.sender import CT_SIZE, LARGE_SIZE, SMALL_SIZE, Sender, send, template

OUT_OF_RESOURCES = 0xA700
MEGABYTE = 1024 * 1024


def stored(daemon: Daemon, *numbers: int, size: int = SMALL_SIZE) -> list[int]:
    """Send instances over an association of their own; return the answers."""
    statuses: list[int] = []
    send((daemon.host, daemon.port), template(size), numbers, lambda _, status: statuses.append(status))
    return statuses


@pytest.mark.parametrize(
    ("size", "fault"),
    [
        (LARGE_SIZE, "openat:error=ENOSPC:when=1"),
        (LARGE_SIZE, "openat:error=EMFILE:when=1"),
        (LARGE_SIZE, "write:error=ENOSPC:when=1"),
        (LARGE_SIZE, "write:error=EIO:when=1"),
        (LARGE_SIZE, "write:error=EIO:when=2"),
        (LARGE_SIZE, "fdatasync:error=EIO:when=1"),
        (LARGE_SIZE, "fdatasync:error=EIO:when=2"),
        (LARGE_SIZE, "pwrite64:error=ENOSPC:when=1"),
        (SMALL_SIZE, "pwrite64:error=ENOSPC:when=1"),
        (SMALL_SIZE, "pwrite64:error=EIO:when=1"),
        (SMALL_SIZE, "fdatasync:error=EIO:when=1"),
    ],
)
def test_an_object_that_cannot_be_kept(daemon: Daemon, tmp_path: Path, size: int, fault: str) -> None:
    assert [SUCCESS] == stored(daemon, 1, size=size)
    sender, mine = associate(daemon)
    message = sender.message(template(size))
    message.become(2)
    with injected(mine, fault, tmp_path / "trace"):
        assert OUT_OF_RESOURCES == sender.store(message)
    assert eventually(lambda: [template().uid(1)] == list(indexed(daemon.data)))
    assert [] == leftovers(daemon.data)
    message.become(3)
    assert SUCCESS == sender.store(message)
    sender.release()
    assert [SUCCESS, SUCCESS] == stored(daemon, 2, 4, size=size)
    assert [] == lost(daemon.data, {template().uid(number) for number in (1, 2, 3, 4)}, size)
    assert [] == leftovers(daemon.data)


@pytest.mark.parametrize("fault", ["openat:error=ENOSPC:when=1", "write:error=EIO:when=1"])
def test_an_object_is_kept_though_its_file_cannot_be_written_now(
    daemon: Daemon, tmp_path: Path, fault: str
) -> None:
    """The journal has it; file and row follow."""
    assert [SUCCESS] == stored(daemon, 1)
    assert [] == lost(daemon.data, {template().uid(1)})
    with injected(threads(daemon), fault, tmp_path / "trace", daemon.data / "objects/000000/001.dcm"):
        assert [SUCCESS] == stored(daemon, 2)
        daemon.wait_for(lambda event: event.get("event") == "not_indexed_yet")
    assert [SUCCESS] == stored(daemon, 3)
    assert [] == lost(daemon.data, {template().uid(number) for number in (1, 2, 3)})
    assert [] == leftovers(daemon.data)


def test_the_journal_is_made_anew_after_a_fault(daemon: Daemon, tmp_path: Path) -> None:
    sender, mine = associate(daemon)
    message = sender.message(template())
    message.become(1)
    with injected(mine, "fdatasync:error=EIO:when=1", tmp_path / "trace"):
        assert OUT_OF_RESOURCES == sender.store(message)
    for number in range(2, 10):
        message.become(number)
        assert SUCCESS == sender.store(message)
    sender.release()
    assert [] == lost(daemon.data, {template().uid(number) for number in range(2, 10)})


@pytest.mark.parametrize(("size", "syncs"), [(LARGE_SIZE, 1), (SMALL_SIZE, 1)])
def test_a_failed_sync_is_not_tried_again(daemon: Daemon, tmp_path: Path, size: int, syncs: int) -> None:
    """The kernel drops what it could not write, and says success the next time."""
    assert [SUCCESS] == stored(daemon, 1, size=size)
    sender, mine = associate(daemon)
    with injected(mine, "fdatasync:error=EIO:when=1", tmp_path / "trace"):
        assert OUT_OF_RESOURCES == sender.store(sender.message(template(size)))
    sender.close()
    assert syncs == (tmp_path / "trace").read_text().count("fdatasync(")


def test_a_failing_disk_below_the_database_stops_the_daemon(
    start: Callable[..., Daemon], tmp_path: Path
) -> None:
    daemon = start()
    wal = daemon.data / "index.sqlite-wal"
    load = Load((daemon.host, daemon.port), size=LARGE_SIZE)
    load.wait_for(4)
    with injected(threads(daemon), "pwrite64:error=EIO", tmp_path / "trace", wal):
        load.end()
    assert 1 == daemon.process.wait(180)
    (event,) = daemon.named("database_fault")
    assert "index.sqlite: disk I/O error" in event["error"]

    daemon = start()
    assert [] == lost(daemon.data, load.acknowledged, LARGE_SIZE)
    assert [] == leftovers(daemon.data)
    assert [SUCCESS] == stored(daemon, 500)


def test_a_database_that_is_none(start: Callable[..., Daemon]) -> None:
    daemon = start()
    daemon.stop()
    (daemon.data / "index.sqlite").write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
    served = cli("serve", "--data", str(daemon.data), "--port", "0", "--no-http")
    assert 1 == served.returncode
    assert "index.sqlite" in served.stderr
    assert "Traceback" not in served.stderr


def test_a_database_that_is_busy_is_waited_for(daemon: Daemon) -> None:
    """What arrives meanwhile is in the journal."""
    assert [SUCCESS] == stored(daemon, 1)
    assert [] == lost(daemon.data, {template().uid(1)})
    other = sqlite3.connect(daemon.data / "index.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    load = Load((daemon.host, daemon.port), first=10, count=5)
    load.end()
    assert {SUCCESS} == set(load.answers.values())
    assert 1 == len(indexed(daemon.data))
    daemon.wait_for(lambda event: event.get("event") == "not_indexed_yet")
    other.execute("ROLLBACK")
    other.close()
    assert [] == lost(daemon.data, load.acknowledged)
    assert [] == leftovers(daemon.data)


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
    kept = {uid for uid, status in answers.items() if status == SUCCESS}
    assert eventually(lambda: kept == set(indexed(copied(data, tmp_path / "copy"))))
    assert [] == leftovers(tmp_path / "copy")
    assert OUT_OF_RESOURCES == store(number)

    ballast.unlink()
    assert SUCCESS == store(number)
    sender.release()
    assert eventually(lambda: set(answers) == described(data))
    assert [] == leftovers(copied(data, tmp_path / "copy"))


def test_the_watermark_is_told(start: Callable[..., Daemon]) -> None:
    daemon = start(IMAGINGSTUDYD_STORAGE__WATERMARK=str(1 << 60))
    assert [OUT_OF_RESOURCES] == stored(daemon, 1)
    event = daemon.wait_for(lambda event: event.get("status") == "A700")
    assert "below storage.watermark" in event["reason"]
