"""The order of system calls for each object: synced, renamed, folder synced, committed, answered.

Small ones: in the journal, synced, committed, written to their places, answered.
"""

from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

from support.daemon import Daemon
from support.load import SUCCESS, Load, indexed
from support.sender import LARGE_SIZE
from support.trace import Call, answers, read, strace

STORES = 1000
# Each write is recorded whole, since the journal's hold several objects.
LARGEST_WRITE = 4 * 70_000


def first_between(ends: list[Call], begin: float, end: float) -> Call | None:
    """Return the call that began first, of those that began and ended between two moments."""
    place = bisect_left(ends, begin, key=lambda call: call.begin)
    return next((call for call in ends[place:] if call.end < end), None)


def test_the_order_of_a_thousand_stores(start: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start(prefix=strace(tmp_path / "trace"))
    load = Load((daemon.host, daemon.port), count=STORES // 4, size=LARGE_SIZE)
    load.end()
    assert {SUCCESS} == set(load.answers.values())
    paths = indexed(daemon.data)
    daemon.stop()
    calls = [call for call in read(tmp_path / "trace") if call.succeeded]

    synced = {call.path: call for call in calls if call.name == "fdatasync"}
    renamed = {call.strings[1].decode(): call for call in calls if call.name == "rename"}
    folders = [call for call in calls if call.name == "fsync"]
    logged = [call for call in calls if call.name == "fdatasync" and call.path.endswith("index.sqlite-wal")]
    seen = 0
    for answered, uid, _ in answers(calls):
        path = str(daemon.data / paths[uid])
        rename = renamed[path]
        data = synced[rename.strings[0].decode()]
        written = [c for c in calls if c.name == "write" and c.path == data.path and c.begin > data.begin]
        assert [] == written, uid
        assert data.end < rename.begin, uid
        mine = [call for call in folders if call.path == path.rpartition("/")[0]]
        folder = first_between(mine, rename.end, answered)
        assert folder, f"{uid}: its folder is not synced before the answer"
        commit = first_between(logged, folder.end, answered)
        assert commit, f"{uid}: its commit is not synced before the answer"
        seen += 1
    assert STORES == seen


def test_the_order_of_small_stores(start: Callable[..., Daemon], tmp_path: Path) -> None:
    stores = 240
    daemon = start(prefix=strace(tmp_path / "trace", strings=LARGEST_WRITE))
    load = Load((daemon.host, daemon.port), count=stores // 4)
    load.end()
    assert {SUCCESS} == set(load.answers.values())
    paths = indexed(daemon.data)
    daemon.stop()
    calls = [call for call in read(tmp_path / "trace") if call.succeeded]
    journal = [call for call in calls if "/journal/" in call.path]
    records = [call for call in journal if call.name == "pwrite64" and len(call.strings[0]) > 1000]
    synced = [call for call in journal if call.name == "fdatasync"]
    logged = [call for call in calls if call.name == "pwrite64" and call.path.endswith("index.sqlite-wal")]
    renamed = {call.strings[1].decode(): call for call in calls if call.name == "rename"}
    written = {call.path: call for call in calls if call.name == "write"}
    seen = 0
    for answered, uid, _ in answers(calls):
        (record,) = [call for call in records if f'"{uid}"'.encode() in call.strings[0]]
        sync = first_between([c for c in synced if c.path == record.path], record.end, answered)
        assert sync, f"{uid}: its record is not synced before the answer"
        row = first_between(logged, sync.end, answered)
        assert row, f"{uid}: its row is not written between journal and answer"
        rename = renamed[str(daemon.data / paths[uid])]
        file = written[rename.strings[0].decode()]
        assert row.begin < file.begin, uid
        assert file.end < rename.begin, uid
        assert rename.end < answered, uid
        seen += 1
    assert stores == seen
