"""Several orders in one transaction: which fault is an order's, and which is the database's."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from index import DatabaseFault, Index, NotKept
from index.database import connection
from index.orders.dicom import order_of
from index.orders.folder import WorklistFolder
from index.orders.records import Source
from support.filling import STORAGE
from support.worklist import item, write


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE) as index:
        yield index


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An index whose database another process writes to; a writer does not wait for it."""
    monkeypatch.setattr(connection, "BUSY_TIMEOUT_SECONDS", 0)
    with Index(tmp_path / "busy", STORAGE) as index:
        other = sqlite3.connect(tmp_path / "busy/index.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        yield index
        other.close()


def counted(index: Index, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by each transaction, and its number of orders."""
    tries: list[int] = []
    put_all = index.orders.store.put_all

    def count(orders: Any) -> list[int]:
        tries.append(len(orders))
        return put_all(orders)

    monkeypatch.setattr(index.orders.store, "put_all", count)
    monkeypatch.setattr(index.orders.store, "put", lambda order: count([order]))
    return tries


@pytest.mark.sqlite
def test_a_busy_database_is_no_fault_of_the_orders(
    busy: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try waits for the database for seconds: a hundred orders would wait for minutes."""
    folder = tmp_path / "wl"
    for number in range(1, 4):
        write(item(number), folder / f"{number}.wl")
    orders = [order_of(item(number), Source.FILE, "", str(number)) for number in range(1, 4)]
    tries = counted(busy, monkeypatch)
    with pytest.raises(NotKept, match="locked"):
        busy.orders.store.put_each(orders)
    with pytest.raises(NotKept, match="locked"):
        WorklistFolder(busy.orders.store, folder, 1.0).update()
    assert [3, 3] == tries
    report = busy.orders.import_files([folder])
    assert [3, 3, 3] == tries
    assert (0, [f"{number}.wl" for number in range(1, 4)]) == (
        report.taken,
        [path.name for path, _ in report.failed],
    )
    assert {"database: database is locked"} == {reason for _, reason in report.failed}


@pytest.mark.parametrize("fault", [NotKept, DatabaseFault])
def test_a_database_that_fails_while_a_bad_order_is_sought(
    index: Index, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    put = index.orders.store._put
    tries = []

    def fails(order: Any) -> int:
        tries.append(order.identity)
        if len(tries) > 2:
            raise fault("database: full")
        if order.identity == "2":
            raise TypeError("brought up by one order")
        return put(order)

    monkeypatch.setattr(index.orders.store, "_put", fails)
    orders = [order_of(item(number), Source.FILE, "", str(number)) for number in (1, 2, 3)]
    with pytest.raises(fault):
        index.orders.store.put_each(orders)
    assert ["1", "2", "1"] == tries


def test_doubts_are_logged_after_the_commit(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that nothing reads must not hold the database; what was rolled back is not logged."""
    store = index.orders.store
    orders = [order_of(item(number, Modality="ct scan!"), Source.FILE, "", str(number)) for number in (1, 2)]
    logged = []

    def warning(event: str, **facts: Any) -> None:
        assert not store._database._write_lock.locked()
        logged.append((event, facts["order"]))

    monkeypatch.setattr("index.orders.store.log", SimpleNamespace(warning=warning))
    with pytest.raises(AttributeError):
        store.put_all([*orders, None])  # type: ignore[list-item]
    assert [] == logged
    assert [("order_doubts", row) for row in store.put_all(orders)] == logged
