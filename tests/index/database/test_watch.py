"""What other processes change is seen by one cheap look."""

from pathlib import Path

import pytest

from index import Index
from index.database.opening import open_sqlite
from index.database.watch import ChangeWatch
from support.daemon import eventually
from support.filling import STORAGE

pytestmark = pytest.mark.sqlite


def test_a_commit_by_anybody_is_seen_once(tmp_path: Path) -> None:
    one, other = (open_sqlite(tmp_path / "index.sqlite", sync=False) for _ in range(2))
    watch = one.watch()
    assert [True, False, False] == [watch.is_changed() for _ in range(3)]
    for database in (one, other):
        with database.writing():
            database.peewee.execute_sql(f"CREATE TABLE t{id(database)} (id)")
        assert [True, False] == [watch.is_changed(), watch.is_changed()]
        with database.reading():
            database.peewee.execute_sql("SELECT * FROM sqlite_master").fetchall()
        assert not watch.is_changed()
    watch.close()
    assert watch.is_changed()
    watch.close()
    one.close()
    other.close()


def test_where_nothing_is_known_there_may_be_something(tmp_path: Path) -> None:
    for watch in (ChangeWatch(None), ChangeWatch(str(tmp_path / "none" / "index.sqlite"))):
        assert watch.is_changed()
        assert watch.is_changed()
        watch.close()


def test_whoever_works_off_a_queue_looks_when_another_process_has_committed(tmp_path: Path) -> None:
    index = Index(tmp_path, STORAGE)
    looks: list[str] = []
    index.outbox.on_look = lambda: looks.append("forwarding")
    index.completions.notifications.on_look = lambda: looks.append("notifications")
    index.serve()
    assert eventually(lambda: "notifications" in looks)
    looks.clear()
    other = open_sqlite(tmp_path / "index.sqlite", sync=False)
    with other.writing():
        other.peewee.execute_sql("CREATE TABLE more (id)")
    other.close()
    assert eventually(lambda: {"forwarding", "notifications"} == set(looks))
    index.close()
