"""The answers of an upstream worklist: put into the index by the hundred, also where one of them is bad."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from index import Index, NotKept, take_over
from index.orders.store import AT_ONCE
from support.filling import STORAGE
from support.worklist import item, selected

COUNT = 2 * AT_ONCE + 1
ITEMS = [item(number) for number in range(1, COUNT + 1)]


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE) as index:
        yield index


@pytest.fixture
def transactions(index: Index, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of orders of each transaction."""
    made: list[int] = []
    put_all = index.orders.store.put_all

    def count(orders: Any) -> list[int]:
        orders = list(orders)
        made.append(len(orders))
        return put_all(orders)

    monkeypatch.setattr(index.orders.store, "put_all", count)
    return made


def test_orders_are_put_by_the_hundred(index: Index, transactions: list[int]) -> None:
    taken = take_over(index.orders.store, "UP", ITEMS, complete=True)
    assert (COUNT, COUNT, 0, ()) == (taken.items, taken.changed, taken.withdrawn, taken.bad)
    assert [AT_ONCE, AT_ONCE, 1] == transactions
    assert COUNT == len(selected(index))
    again = take_over(index.orders.store, "UP", [*ITEMS[:-1], item(COUNT, Modality="MR")], complete=True)
    assert (COUNT, 1) == (again.items, again.changed)
    assert [AT_ONCE, AT_ONCE, 1, 1] == transactions


def test_a_bad_order_stops_no_other_of_its_hundred(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    put = index.orders.store._put

    def sometimes(order: Any) -> Any:
        if order.attributes["AccessionNumber"] == "A7":
            raise TypeError("brought up by one order")
        return put(order)

    monkeypatch.setattr(index.orders.store, "_put", sometimes)
    taken = take_over(index.orders.store, "UP", ITEMS, complete=True)
    assert (COUNT, COUNT - 1, ("an order: TypeError",)) == (taken.items, taken.changed, taken.bad)
    monkeypatch.setattr(index.orders.store, "_put", put)
    assert 1 == take_over(index.orders.store, "UP", ITEMS, complete=True).changed


def test_a_database_that_fails_ends_it(
    index: Index, transactions: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> None:
        raise NotKept("database: full")

    monkeypatch.setattr(index.orders.store, "_put", fails)
    with pytest.raises(NotKept):
        take_over(index.orders.store, "UP", ITEMS, complete=True)
    assert [AT_ONCE] == transactions
