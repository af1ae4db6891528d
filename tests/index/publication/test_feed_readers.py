"""A reader of the change feed that remembers a number never misses an entry, whoever writes meanwhile."""

import contextlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from index.database.connection import Database
from index.database.opening import open_database
from index.database.tables import Study
from index.publication import feed
from index.publication.feed import Entry, PublishedResource, changes, record_changes

WRITERS, READERS = 3, 3


@pytest.fixture(params=["sqlite", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Database]]:
    """Open the same index once more, as another process would."""
    url = request.getfixturevalue("shared_url") if request.param == "postgresql" else None
    with contextlib.ExitStack() as stack:

        def once_more() -> Database:
            database = open_database(url, tmp_path, sync=False)
            stack.callback(database.close)
            return database

        yield once_more


class _RolledBack(Exception):
    """A transaction that fails at its end."""


def write(database: Database, writer: int, transactions: int) -> None:
    """Publish resources of studies of its own, and one that all writers share; some fail at the end."""
    dice = random.Random(writer)
    with database.writing():
        study = database.execute(Study.insert(uid=f"1.2.{writer}", first_received=0, last_received=0))
    for number in range(transactions):
        names = [f"{writer}-{dice.randrange(5)}" for _ in range(dice.randint(1, 4))]
        resources = [
            PublishedResource(
                "r4", "ImagingStudy", name, f'{{"id":"{name}","writer":{writer},"number":{number}}}'.encode()
            )
            for name in {*names, "shared"}
        ]
        with contextlib.suppress(_RolledBack), database.writing(durable=dice.random() < 0.5):
            record_changes(database, study, resources)
            if dice.random() < 0.2:
                raise _RolledBack


def read(database: Database, since: int, is_over: threading.Event, seen: list[Entry]) -> None:
    """Follow the feed, remembering the last number only; once more when nothing is written any more."""
    while True:
        was_over = is_over.is_set()
        for entry in changes(database, since):
            seen.append(entry)
            since = entry.seq
        if was_over:
            return
        is_over.wait(0.002)


@pytest.mark.parametrize("transactions", [12, pytest.param(2000, marks=pytest.mark.long)])
def test_readers_that_remember_a_number_miss_nothing(
    opened: Callable[[], Database], transactions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PAGE", 7)
    first = opened()
    write(first, WRITERS, 3)
    before = list(changes(first))
    starts = [0, before[2].seq, before[-1].seq]
    is_over, followed = threading.Event(), [list[Entry]() for _ in range(READERS)]
    readers = [
        threading.Thread(target=read, args=(opened(), since, is_over, seen))
        for since, seen in zip(starts, followed, strict=True)
    ]
    # Only one process publishes into an SQLite index.
    writers = [
        threading.Thread(target=write, args=(first if first.is_sqlite else opened(), writer, transactions))
        for writer in range(WRITERS)
    ]
    for thread in readers + writers:
        thread.start()
    for thread in writers:
        thread.join()
    is_over.set()
    for thread in readers:
        thread.join()
    entries = list(changes(first))
    assert sorted(entry.seq for entry in entries) == [entry.seq for entry in entries]
    for since, seen in zip(starts, followed, strict=True):
        assert [entry for entry in entries if entry.seq > since] == seen
    versions: dict[str, list[int]] = {}
    for entry in entries:
        versions.setdefault(entry.id, []).append(entry.version)
    # Each version of a resource once, in order.
    assert all(list(range(1, len(found) + 1)) == found for found in versions.values())
    assert len(versions["shared"]) > transactions
