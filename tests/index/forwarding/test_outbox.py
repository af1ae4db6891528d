"""The outbox as a queue, in either engine."""

import sqlite3
from pathlib import Path

import pytest

from index import FhirSettings, Index, IndexSettings, OutboxFilter, RouteSettings, StorageSettings, reindex
from support.dicom import ROOT, instance
from support.filling import STORAGE, crashed, keep, receive, served

ROUTES = (RouteSettings(to=["A", "B"]),)


def opened(data: Path, storage: StorageSettings = STORAGE) -> Index:
    index = Index(data, storage, routes=ROUTES)
    index.serve()
    return index


def waiting(index: Index, peer: str = "A") -> list[str]:
    return [one.instance.uid for one in index.outbox.due(peer, 100)]


def test_in_order_of_arrival_and_until_it_is_removed(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as index:
        for number in (3, 1, 2):
            keep(index, instance(number=number))
        uids = [f"{ROOT}.1.1.{n}" for n in (3, 1, 2)]
        assert uids == waiting(index) == waiting(index, "B")
        assert ["A", "B"] == index.outbox.peers()
        first, second, third = index.outbox.due("A", 100)
        index.outbox.remove([first.id])
        index.outbox.postpone(second, 3600, "busy")
        index.outbox.give_up(third, "bad\0")
        assert [] == waiting(index)
        assert third.created < (index.outbox.next_due("A") or 0)
        assert sorted([("A", "dead", 1), ("A", "waiting", 1), ("B", "waiting", 3)]) == sorted(
            (peer, str(state), count) for peer, state, count in index.outbox.counts()
        )
        assert [("A", 1, 1), ("B", 3, 0)] == [
            (one.peer, one.waiting, one.dead) for one in index.outbox.listing.status()
        ]
        assert 2 == index.outbox.listing.retry(OutboxFilter("A"))
        assert uids[1:] == waiting(index)


def test_a_replaced_instance_is_sent_again(tmp_path: Path) -> None:
    storage = StorageSettings(watermark=0, durability="process-crash", duplicates="replace")
    with opened(tmp_path / "data", storage) as index:
        keep(index, instance())
        (before,) = index.outbox.due("A", 100)
        keep(index, instance(StudyDescription="Another"))
        index.outbox.remove([before.id])  # the old one was on its way
        assert [f"{ROOT}.1.1.1"] == waiting(index)


@pytest.mark.sqlite
def test_what_was_only_in_the_journal_is_sent_once(tmp_path: Path) -> None:
    with opened(tmp_path / "data") as index:
        for number in (1, 2):
            receive(index, instance(number=number))
        left = crashed(index, tmp_path / "left", "index.sqlite*")
        again = crashed(index, tmp_path / "again", "index.sqlite*")
    with opened(left) as index:
        assert [f"{ROOT}.1.1.1", f"{ROOT}.1.1.2"] == sorted(waiting(index))
    with opened(left) as index:
        assert 2 == len(waiting(index))
    assert 2 == reindex(again, STORAGE, IndexSettings(), FhirSettings(), routes=ROUTES).instances


@pytest.mark.sqlite
def test_a_reindex_keeps_what_waits(tmp_path: Path) -> None:
    with opened(tmp_path) as index:
        keep(index, instance())
    assert 1 == reindex(tmp_path, STORAGE, IndexSettings(), FhirSettings()).instances
    with opened(tmp_path) as index:
        assert [f"{ROOT}.1.1.1"] == waiting(index)


def test_without_routes_nothing_is_added(tmp_path: Path) -> None:
    with served(tmp_path / "data") as index:
        keep(index, instance())
        assert [] == index.outbox.peers()


@pytest.mark.sqlite
def test_the_queue_is_read_by_its_index(tmp_path: Path) -> None:
    with opened(tmp_path):
        pass
    with sqlite3.connect(tmp_path / "index.sqlite") as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT o.id, i.uid FROM outbox o LEFT JOIN instance i ON i.uid = o.uid"
            " WHERE o.node = '' AND o.kind = 'instance' AND o.peer = 'A' AND o.state = 'waiting'"
            " AND o.due <= 5 ORDER BY o.id LIMIT 9"
        ).fetchall()
    assert "outbox_queue" in plan[0][3]
    assert not any("TEMP B-TREE" in step[3] for step in plan)
