"""Work that one process at a time does, whichever node it runs on."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.database.claims import Work
from index.database.connection import Database
from index.database.opening import open_database
from index.errors import ClaimLost
from support.daemon import eventually

ENGINES = ["sqlite", "postgresql"]


@pytest.fixture
def both(migrated: str, tmp_path: Path) -> Iterator[tuple[Database, Database]]:
    """The same database in two processes, as it were."""
    url = migrated.replace("/postgres?", "/migrated?")
    pair = open_database(url, tmp_path), open_database(url, tmp_path)
    yield pair
    for database in pair:
        database.close()


def is_given(database: Database, name: object = 1) -> bool:
    with database.claims.claimed(Work.STUDY, name) as claim:
        if claim:
            claim.check()
        return claim is not None


def test_work_is_claimed_once(both: tuple[Database, Database]) -> None:
    one, other = both
    with one.claims.claimed(Work.STUDY, 1) as claim:
        assert claim
        assert [False, False] == [is_given(one), is_given(other)]
        assert [True, True] == [is_given(one, 2), is_given(other, 2)]
        with other.claims.claimed(Work.RETENTION, 1) as of_other_work:
            assert of_other_work
        claim.check()
    assert [True, True] == [is_given(one), is_given(other)]


@pytest.mark.parametrize("engine", ENGINES)
def test_of_several_threads_one_has_it(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if engine == "sqlite":
        databases = (open_database(None, tmp_path),) * 2
        request.addfinalizer(databases[0].close)
    else:
        databases = request.getfixturevalue("both")
    ready, done, given = threading.Barrier(6), threading.Barrier(6), []

    def claim(database: Database) -> None:
        ready.wait(60)
        with database.claims.claimed(Work.STUDY, 7) as found:
            given.append(found is not None)
            done.wait(60)

    threads = [threading.Thread(target=claim, args=(databases[number % 2],)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [False] * 5 + [True] == sorted(given)


def test_a_lost_connection_loses_its_claims(both: tuple[Database, Database]) -> None:
    """The holder notices that before it commits; what it claims later is on another connection."""
    one, other = both
    with one.claims.claimed(Work.STUDY, 1) as claim, one.claims.claimed(Work.STUDY, 2) as second:
        assert claim
        assert second
        assert one.claims._connection
        ((pid,),) = one.claims._connection.execute_sql("SELECT pg_backend_pid()").fetchall()
        with other.connection():
            other.peewee.execute_sql("SELECT pg_terminate_backend(%s)", (pid,))
        assert eventually(lambda: is_given(other))
        with pytest.raises(ClaimLost):
            claim.check()
        assert is_given(one)
        with pytest.raises(ClaimLost):
            second.check()
    assert is_given(one, 2)


def test_after_a_lost_connection_a_claim_is_given_at_once(both: tuple[Database, Database]) -> None:
    one, other = both
    assert is_given(one)
    assert one.claims._connection
    ((pid,),) = one.claims._connection.execute_sql("SELECT pg_backend_pid()").fetchall()
    with other.connection():
        other.peewee.execute_sql("SELECT pg_terminate_backend(%s)", (pid,))
        gone = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
        assert eventually(lambda: not other.peewee.execute_sql(gone, (pid,)).fetchone()[0])
    assert is_given(one)
