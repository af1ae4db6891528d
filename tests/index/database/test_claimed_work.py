"""Periodic work that one of several nodes does, and what each does of its own objects."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from index import Index, PublishSettings, RetentionSettings
from index.database.claims import Work
from index.database.tables import Change, ImagingOrder, OutboxKind, OutboxRow
from index.database.turns import Turns
from index.maintenance.retention import MaintenanceWorker, Retention
from index.orders.folder import WorklistFolder
from support.dicom import ROOT, instance
from support.filling import files, keep
from support.nodes import fall_silent, joined, without_publisher
from support.worklist import item, write

MONTH_MS = 30 * 24 * 3600 * 1000


@pytest.fixture
def two(shared_url: str, tmp_path: Path) -> Iterator[tuple[Index, Index]]:
    with joined(tmp_path / "one", shared_url) as one, joined(tmp_path / "two", shared_url) as other:
        yield without_publisher(one), without_publisher(other)


def spread(two: tuple[Index, Index]) -> None:
    """Study 1 is at both nodes, 2 at the first, 3 at the other one; the first came first."""
    one, other = two
    keep(one, instance(1, 1, 1))
    keep(other, instance(1, 1, 2))
    keep(one, instance(2))
    keep(other, instance(3))
    one._publisher.publish_all()


def retention(index: Index, **rules: Any) -> Retention:
    return Retention(index._database, index._deletion, RetentionSettings(**rules))


def counts(index: Index) -> dict[str, int]:
    index._publisher.publish_all()
    return {study["uid"].removeprefix(f"{ROOT}."): study["instances"] for study in index.studies()}


def test_a_node_lets_go_what_it_keeps_itself(
    two: tuple[Index, Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    spread(two)
    before = files(other.data / "objects")
    monkeypatch.setattr("index.maintenance.retention._DAY_MS", 0)
    expired = retention(one, days=1).apply()
    assert [(f"{ROOT}.1", 1), (f"{ROOT}.2", 1)] == [(one.uid, one.instances) for one in expired]
    assert {"1": 1, "3": 1} == counts(one)
    assert ({}, before) == (files(one.data / "objects"), files(other.data / "objects"))
    # The other one has rules of its own, or the same.
    assert 2 == len(retention(other, days=1).apply())
    assert {} == counts(one)


def test_a_limit_of_size_is_of_the_nodes_own_objects(two: tuple[Index, Index]) -> None:
    one, other = two
    spread(two)
    mine = sum(len(content) for content in files(one.data / "objects").values())
    assert [] == retention(one, size=mine).apply()
    assert mine == one._deletion.bytes_here()
    (gone,) = retention(one, size=mine - 1).apply()
    assert (f"{ROOT}.1", 1) == (gone.uid, gone.instances)
    assert {"1": 1, "2": 1, "3": 1} == counts(one)
    assert 2 == len(files(other.data / "objects"))


def test_periodic_work_has_its_turn_at_one_node(two: tuple[Index, Index]) -> None:
    one, other = (Turns(index._database, Work.HOUSEKEEPING, 3600.0) for index in two)
    assert 5.0 == one.pause
    with one.next() as turn:
        assert turn
        with other.next() as second:
            assert None is second
    # Its first turn is at once: its configuration may be new. The next ones are not due.
    for turns, expected in ((other, True), (one, False), (other, False)):
        with turns.next() as turn:
            assert expected is (turn is not None)
    with other.next("another name") as turn:
        assert None is turn or turn


def test_work_that_was_not_finished_stays_due(two: tuple[Index, Index]) -> None:
    """As where a node dies in the middle of it."""
    one, other = (Turns(index._database, Work.UPSTREAM, 3600.0) for index in two)
    for turns in (one, other):
        with turns.next("RIS"):
            pass
    with two[0]._database.writing():
        two[0]._database.peewee.execute_sql("UPDATE periodic_work SET due = 1")
    with contextlib.suppress(OSError), one.next("RIS") as turn:
        assert turn
        raise OSError
    with other.next("RIS") as turn:
        assert turn
    with one.next("RIS") as turn:
        assert None is turn


def test_with_sqlite_work_has_its_turn_each_time(tmp_path: Path) -> None:
    from index.database.opening import open_database

    database = open_database(None, tmp_path)
    turns = Turns(database, Work.RETENTION, 3600.0)
    assert 3600.0 == turns.pause
    for _ in range(2):
        with turns.next() as turn:
            assert turn
    database.close()


def test_the_feed_is_pruned_by_one_node(two: tuple[Index, Index]) -> None:
    spread(two)
    workers = [
        MaintenanceWorker(index._database, retention(index), PublishSettings(keep_changes=1)) for index in two
    ]
    with two[1]._database.claims.claimed(Work.HOUSEKEEPING):
        workers[0]._work()
        assert 1 < len(two[0]._database.rows(Change.select(Change.id)))
    workers[0]._work()
    assert 1 == len(two[0]._database.rows(Change.select(Change.id)))


def test_folders_of_the_same_path_on_two_machines(two: tuple[Index, Index], tmp_path: Path) -> None:
    """Each node withdrew the orders of the other's folder."""
    folder, aside = tmp_path / "worklist", tmp_path / "aside"
    folder.mkdir()
    write(item(1), folder / "one.wl")
    follow = [WorklistFolder(index.orders.store, folder, 1.0, node=index._objects.node) for index in two]
    follow[0].update()
    folder.rename(aside)
    folder.mkdir()  # what the other machine has there
    follow[1].update()
    statuses = two[0]._database.rows(ImagingOrder.select(ImagingOrder.status))
    assert 1 == len(statuses)
    assert "revoked" not in statuses[0][0].lower()


def test_status_tells_what_only_a_silent_node_can_send(two: tuple[Index, Index]) -> None:
    one, other = two
    with one._database.writing():
        for uid, node in (("1.2.1", ""), ("1.2.2", str(other._objects.node))):
            row = {"uid": uid, "state": "waiting", "attempts": 0, "due": 0, "created": 1, "error": ""}
            one._database.execute(
                OutboxRow.insert(node=node, kind=OutboxKind.INSTANCE, peer="ARCHIVE", **row)
            )
    (status,) = one.outbox.listing.status()
    assert (2, {}) == (status.waiting, status.silent)
    fall_silent(one, other)
    (status,) = one.outbox.listing.status()
    (place,) = status.silent
    assert (2, 1, True) == (status.waiting, status.silent[place], place.endswith(f":{other.data}"))
    # Its objects are in its data directory; in a store that all see, another one sends them.
    assert 0 == one.outbox.take_over()
    one._objects.sees_all = True
    assert 1 == one.outbox.take_over()
    assert 2 == sum(count for _, _, count in one.outbox.counts())
