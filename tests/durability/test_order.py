"""The order of system calls for each object: what the answer promises is synced before it.

Large ones: data synced, under a name that is durable; then their record; then answered. Small ones are in the
record.
"""

from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

import pytest

from support.daemon import Daemon
from support.load import SUCCESS, Load
from support.sender import LARGE_SIZE, SMALL_SIZE
from support.trace import Call, answers, read, strace

STORES = 240
# Each write is recorded whole, since the journal's hold several objects.
LARGEST_WRITE = 4 * 70_000


def first_between(ends: list[Call], begin: float, end: float) -> Call | None:
    """Return the call that began first, of those that began and ended between two moments."""
    place = bisect_left(ends, begin, key=lambda call: call.begin)
    return next((call for call in ends[place:] if call.end < end), None)


@pytest.mark.parametrize("size", [SMALL_SIZE, LARGE_SIZE])
def test_the_order_of_stores(start: Callable[..., Daemon], tmp_path: Path, size: int) -> None:
    daemon = start(prefix=strace(tmp_path / "trace", strings=LARGEST_WRITE))
    load = Load((daemon.host, daemon.port), count=STORES // 4, size=size)
    load.end()
    assert {SUCCESS} == set(load.answers.values())
    daemon.stop()
    calls = [call for call in read(tmp_path / "trace") if call.succeeded]
    journal = [call for call in calls if "/journal/" in call.path]
    records = [call for call in journal if call.name == "pwrite64" and len(call.strings[0]) > 200]
    synced = [call for call in journal if call.name == "fdatasync"]
    data_synced = {
        call.path: call for call in calls if call.name == "fdatasync" and "/incoming/" in call.path
    }
    named = [call for call in calls if call.name == "fsync" and call.path.endswith("/prepared")]
    seen = 0
    for answered, uid, _ in answers(calls):
        (record,) = [call for call in records if f'"{uid}"'.encode() in call.strings[0]]
        sync = first_between([c for c in synced if c.path == record.path], record.end, answered)
        assert sync, f"{uid}: its record is not synced before the answer"
        if size == LARGE_SIZE:
            # Facts are JSON without spaces, in the order of their names in code.
            facts = record.strings[0].partition(f'"uid":"{uid}"'.encode())[2]
            path = str(daemon.data / facts.partition(b'"incoming":"')[2].partition(b'"')[0].decode())
            data = data_synced[path]
            assert data.end < record.begin, f"{uid}: its data are not synced before its record"
            written = [c for c in calls if c.name == "write" and c.path == path and c.begin > data.begin]
            assert [] == written, uid
            prepared = path.replace("/incoming/", "/prepared/").encode()
            made = next(c for c in calls if c.name == "openat" and c.strings[:1] == (prepared,))
            assert first_between(named, made.end, answered), (
                f"{uid}: its name is not durable before the answer"
            )
        seen += 1
    assert STORES == seen
