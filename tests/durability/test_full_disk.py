"""A full disk: deleting works; everything else is refused until there is space again."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import peewee
import pytest

from index import DatabaseFault, Index, NotKept, StorageSettings
from index.database.opening import open_sqlite
from index.maintenance import deletion as deletion_module
from index.maintenance.deletion import Deletion
from index.storage.reserve import Reserve
from index.storage.room import Room, free_space
from support.dicom import ROOT, instance
from support.faults import on_small_disk
from support.filling import STORAGE, files, keep

MEGABYTE = 1 << 20

# Instances of a study until the disk is full, to its last byte.
FULL = """
from index import Index, NotKept, StorageSettings
from support.dicom import ROOT, instance
from support.filling import keep
DATA, STORAGE = path / "data", StorageSettings(watermark=0)
def store(index, study, count):
    for number in range(count):
        keep(index, instance(study, 1, number, PixelData=bytes(500_000), BitsAllocated=8))
def refused(index):
    try:
        store(index, 9, 1)
    except NotKept as error:
        return str(error)
def counted(index):
    return {study["uid"]: study["instances"] for study in index.studies()}
"""


def test_deleting_beside_a_daemon_makes_room(tmp_path: Path) -> None:
    script = """
serving = Index(DATA, STORAGE)
serving.serve()
store(serving, 1, 20)
store(serving, 2, 20)
fill(path)
assert refused(serving)
with Index(DATA, STORAGE) as other:
    assert counted(other) == {f"{ROOT}.1": 20, f"{ROOT}.2": 20}
    assert other.delete(f"{ROOT}.1.1.3").instances == 1
    assert other.delete(f"{ROOT}.1").instances == 19
store(serving, 3, 5)
assert counted(serving) == {f"{ROOT}.2": 20, f"{ROOT}.3": 5}
assert serving._objects.room.reserve.is_held()
serving.close()
print("done")
"""
    assert "done" in on_small_disk(FULL + script, tmp_path / "disk", 32 * MEGABYTE)


@pytest.mark.parametrize("end", ["serving.close()", "os._exit(0)"], ids=["stop", "kill"])
def test_deleting_and_starting_without_a_daemon(tmp_path: Path, end: str) -> None:
    """SQLite makes files when it opens an index: they need space and inodes too."""
    script = f"""
if not os.fork():
    serving = Index(DATA, STORAGE)
    serving.serve()
    store(serving, 1, 20)
    store(serving, 2, 20)
    {end}
    os._exit(0)
os.wait()
first = fill(path)
with Index(DATA, STORAGE) as started:
    started.serve()
    assert refused(started).startswith(("the disk is full", "free space is"))
    assert started.state().shortage.startswith(("the disk is full", "free space is"))
    assert counted(started) == {{f"{{ROOT}}.1": 20, f"{{ROOT}}.2": 20}}
    fill(path)
    assert started.delete(f"{{ROOT}}.2.1.7").instances == 1
    assert started.delete(f"{{ROOT}}.2").instances == 19
    store(started, 3, 1)
fill(path)
with Index(DATA, STORAGE) as other:
    assert other.delete(f"{{ROOT}}.1").instances == 20
with Index(DATA, STORAGE) as started:
    started.serve()
    store(started, 3, 5)
    assert counted(started) == {{f"{{ROOT}}.3": 5}}
    started._publisher.publish_all()
    assert [] == list(started.verify(grace=0))
print("done")
"""
    assert "done" in on_small_disk(FULL + script, tmp_path / "disk", 64 * MEGABYTE)


def test_no_inodes_are_a_full_disk(tmp_path: Path) -> None:
    """Each object is a file: a disk of small ones runs out of inodes first (statvfs(3), f_favail)."""
    script = """
serving = Index(DATA, STORAGE)
serving.serve()
count = 0
try:
    while True:
        keep(serving, instance(1, 1, count))
        count += 1
except NotKept as error:
    print(error)
assert 100 < count < 500, count
assert "inodes are free" in serving.state().shortage
serving.close()
for number in range(1000):
    try:
        (path / f"other-{number}").touch()
    except OSError:
        break
with Index(DATA, STORAGE) as other:
    assert counted(other) == {f"{ROOT}.1": count}
    assert other.delete(f"{ROOT}.1").instances == count
with Index(DATA, STORAGE) as started:
    started.serve()
    keep(started, instance(1, 1, 1))
"""
    script = FULL.replace("watermark=0", "watermark=1000") + script
    said = on_small_disk(script, tmp_path / "disk", 64 * MEGABYTE, inodes=600)
    assert "inodes are free, fewer than the 100 that storage.watermark keeps of them" in said


def test_what_the_watermark_keeps_of_inodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same share as of bytes; nothing where the file system counts none, or no watermark is set."""

    def statvfs(*, bytes_free: int, inodes: int, inodes_free: int) -> Callable[[object], os.statvfs_result]:
        values = (1000, 1000, 1000, bytes_free, bytes_free, inodes, inodes_free, inodes_free, 0, 255)
        return lambda _: os.statvfs_result(values)

    room = Room(tmp_path, 100_000, Reserve(tmp_path / "reserve"))
    for inodes, free, short in (
        (50_000, 5_000, False),
        (50_000, 4_999, True),
        (500, 99, True),
        (0, 0, False),
    ):
        monkeypatch.setattr(os, "statvfs", statvfs(bytes_free=500, inodes=inodes, inodes_free=free))
        assert (short, free if inodes else None) == (bool(room.look().shortage), room.look().inodes)
        # `check` looks at the same.
        assert free_space(tmp_path, 100_000) == room.look()
    monkeypatch.setattr(os, "statvfs", statvfs(bytes_free=99, inodes=0, inodes_free=0))
    assert "below storage.watermark = 100000" in room.look().shortage
    room.watermark = 0
    monkeypatch.setattr(os, "statvfs", statvfs(bytes_free=500, inodes=9, inodes_free=1))
    assert not room.look().shortage
    for free, inodes in ((0, 1), (500, 0)):
        monkeypatch.setattr(os, "statvfs", statvfs(bytes_free=free, inodes=9, inodes_free=inodes))
        assert f"the disk is full: free are {free * 1000} bytes and {inodes} inodes" == room.look().shortage


def test_without_room_for_all_it_is_deleted_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion_module, "PART", 3)
    monkeypatch.setattr(Reserve, "is_needed", lambda _: True)
    whole, failures = Deletion._delete, [3]

    def full(deletion: Deletion, uid: str) -> deletion_module.Deleted:
        if failures[0]:
            failures[0] -= 1
            raise NotKept("database: database or disk is full")
        return whole(deletion, uid)

    monkeypatch.setattr(Deletion, "_delete", full)
    with Index(tmp_path, STORAGE) as index:
        for number in range(12):
            keep(index, instance(1, 1 + number % 2, number))
        keep(index, instance(2))
        keep(index, instance(1, 1, 2, StudyDescription="Neck"))
        deleted = index.delete(f"{ROOT}.1")
        assert ("study", 12, 1) == (deleted.level, deleted.instances, deleted.conflicts)
        assert [f"{ROOT}.2"] == [study["uid"] for study in index.studies()]
        assert 1 == len(files(tmp_path / "objects"))
        assert {} == files(tmp_path / "conflicts")
        index.publish()
        assert [] == list(index.verify(grace=0))


def test_what_is_no_matter_of_room_uses_nothing_up(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE) as index:
        keep(index, instance())
        assert index._objects.room.reserve.hold()
        other = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(NotKept, match="locked"):
            index.delete(f"{ROOT}.1")
        other.close()
        assert index._objects.room.reserve.is_held()
        assert 1 == index.delete(f"{ROOT}.1").instances


def test_what_cannot_be_unlinked_stops_no_deletion(tmp_path: Path) -> None:
    """A folder stands where an object was."""
    with Index(tmp_path, STORAGE) as index:
        for number in (1, 2):
            keep(index, instance(number=number))
        first, second = sorted((tmp_path / "objects").glob("*/*.dcm"))
        first.unlink()
        first.mkdir()
        assert 2 == index.delete(f"{ROOT}.1").instances
        assert not second.exists()
    with Index(tmp_path, STORAGE) as again:
        again.serve()
        assert [] == again.studies()


def test_a_full_disk_below_the_log_s_own_index_is_no_damage(tmp_path: Path) -> None:
    """SQLite names it an I/O error (SQLITE_IOERR_SHMSIZE, sqlite.org/rescode.html)."""
    fatal: list[DatabaseFault] = []
    database = open_sqlite(tmp_path / "index.sqlite", sync=False, on_fatal=fatal.append)
    error = sqlite3.OperationalError("disk I/O error")
    for code, expected in (
        (sqlite3.SQLITE_IOERR_SHMSIZE, NotKept),
        (sqlite3.SQLITE_IOERR_READ, DatabaseFault),
    ):
        error.sqlite_errorcode = code
        wrapped = peewee.OperationalError(*error.args)
        wrapped.__context__ = error
        assert isinstance(database.translate(wrapped), expected)
    assert 1 == len(fatal)


def test_a_log_that_cannot_be_written_stops_nothing() -> None:
    """/dev/full: every write fails with ENOSPC (full(4))."""
    script = """
import sys
import structlog
from scp.settings.sections import LogSettings
from scp.observing.logs import configure
configure(LogSettings(format="json"))
for number in range(100):
    structlog.get_logger().warning("x" * 1000)
print("done")
"""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert "done\n" == done.stdout


def test_the_reserve_takes_little_of_a_small_disk(tmp_path: Path) -> None:
    script = """
from index.storage.reserve import FILES, SIZE, Reserve
reserve = Reserve(path / "reserve")
free = os.statvfs(path).f_bavail * 4096
assert not reserve.is_held()
assert reserve.hold()
assert free // 16 >= free - os.statvfs(path).f_bavail * 4096 >= free // 20
assert not reserve.is_needed()
ballast = fill(path)
assert reserve.is_needed()
assert reserve.release()
assert not reserve.release()
assert not reserve.is_held()
fill(path, 100_000)
assert not reserve.hold()
ballast.unlink()
assert reserve.hold()
print("done")
"""
    assert "done" in on_small_disk(script, tmp_path / "disk", 16 * MEGABYTE)


def test_import_beside_no_daemon_makes_no_reserve(tmp_path: Path) -> None:
    with Index(tmp_path, StorageSettings(watermark=0)) as index:
        keep(index, instance())
    assert not (tmp_path / "reserve").exists()
