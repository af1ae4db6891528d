"""The data directories of an index: one for SQLite, several for PostgreSQL, each with its own objects.

Two daemons on one PostgreSQL database gave their objects each other's paths, and unlinked each other's files.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import peewee
import pytest
from pydantic import SecretStr

from index import DatabaseFault, FhirSettings, Index, IndexSettings, Locked, StorageSettings, reindex
from index.database import node
from index.database.node import Node
from index.errors import ForeignIndex
from support.daemon import cli, eventually
from support.dicom import ROOT, instance, save
from support.filling import keep
from support.postgresql import emptied, server

STORAGE = StorageSettings(watermark=0, durability="process-crash")


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with server() as url:
        yield url


@pytest.fixture(params=["postgresql", "sqlite"])
def elsewhere(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty index that is in no data directory."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/elsewhere.sqlite"
    return emptied(request.getfixturevalue("postgresql"))


def opened(data: Path, url: str, **options: object) -> Index:
    return Index(data, STORAGE, IndexSettings(url=SecretStr(url)), **options)  # type: ignore[arg-type]


def served(data: Path, url: str) -> Index:
    index = opened(data, url)
    index.serve()
    return index


def test_a_second_daemon_is_refused(elsewhere: str, tmp_path: Path) -> None:
    with served(tmp_path / "one", elsewhere) as one:
        keep(one, instance())
        if elsewhere.startswith("sqlite"):
            with pytest.raises(ForeignIndex, match=r"index\.url"):
                opened(tmp_path / "two", elsewhere, joins=True)
        else:  # a copy has the same identity
            shutil.copytree(tmp_path / "one", tmp_path / "copy")
            (tmp_path / "copy/lock").unlink()
            with opened(tmp_path / "copy", elsewhere) as copy, pytest.raises(Locked, match="another daemon"):
                copy.serve()
        keep(one, instance(number=2))
    served(tmp_path / "one", elsewhere).close()


def test_commands_of_another_directory_are_refused(elsewhere: str, tmp_path: Path) -> None:
    """A deletion there unlinked 120 files of other instances; see the module."""
    with served(tmp_path / "one", elsewhere) as one:
        for number in (1, 2):
            keep(one, instance(number=number))
        for arguments in (
            ["delete", f"{ROOT}.1"], ["studies"], ["verify", "--repair"], ["retain"], ["worklist", "list"],
            ["import", str(save(instance(3), tmp_path / "3.dcm"))],
        ):  # fmt: skip
            (tmp_path / "two").mkdir(exist_ok=True)
            said = cli(*arguments, "--data", str(tmp_path / "two"), IMAGINGSTUDYD_INDEX__URL=elsewhere)
            assert (1, True) == (said.returncode, "is the index of" in said.stderr), (arguments, said)
            assert str((tmp_path / "one").resolve()) in said.stderr
        assert [2] == [study["instances"] for study in one.studies()]
        one._publisher.publish_all()
        assert [] == list(one.verify(grace=0))
    with opened(tmp_path / "one", elsewhere) as same:
        assert 2 == same.delete(f"{ROOT}.1").instances


def test_reindex_of_another_directory_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/elsewhere.sqlite"
    with served(tmp_path / "one", url) as one:
        keep(one, instance())
    (tmp_path / "two/objects").mkdir(parents=True)
    settings = IndexSettings(url=SecretStr(url))
    before = (tmp_path / "elsewhere.sqlite").read_bytes()
    with pytest.raises(ForeignIndex, match="is the index of"):
        reindex(tmp_path / "two", STORAGE, settings, FhirSettings())
    assert before == (tmp_path / "elsewhere.sqlite").read_bytes()
    assert 1 == reindex(tmp_path / "one", STORAGE, settings, FhirSettings()).instances
    with pytest.raises(ForeignIndex):
        opened(tmp_path / "two", url)


def test_an_index_of_an_earlier_version_is_known_by_its_objects(elsewhere: str, tmp_path: Path) -> None:
    """It knows no directory yet: the one that holds its objects becomes its own."""
    with opened(tmp_path / "one", elsewhere) as index:
        keep(index, instance())
        with pytest.raises(ForeignIndex, match="its objects are not in"):
            opened(tmp_path / "two", elsewhere)
        assert [] == index._database.rows(Node.select(Node.identity))
    with served(tmp_path / "one", elsewhere) as index:
        ((identity,),) = index._database.rows(Node.select(Node.identity))
    assert f"{identity}\n" == (tmp_path / "one/identity").read_text()


def test_a_restored_directory_is_made_known_as_the_message_says(elsewhere: str, tmp_path: Path) -> None:
    with served(tmp_path / "one", elsewhere) as index:
        keep(index, instance())
    (tmp_path / "one/identity").unlink()
    with pytest.raises(ForeignIndex, match=r"write ([0-9a-f]{32}) into its file identity") as refused:
        opened(tmp_path / "one", elsewhere)
    identity = str(refused.value).partition("write ")[2].split()[0]
    (tmp_path / "one/identity").write_text(identity)
    with served(tmp_path / "one", elsewhere) as index:
        assert 1 == len(index.studies())


def test_an_empty_identity_is_named(elsewhere: str, tmp_path: Path) -> None:
    served(tmp_path / "one", elsewhere).close()
    (tmp_path / "one/identity").write_text("")
    with pytest.raises(DatabaseFault, match="identity: is empty"):
        opened(tmp_path / "one", elsewhere)
    (tmp_path / "one/identity").unlink()
    os.mkfifo(tmp_path / "one/identity")
    with pytest.raises(DatabaseFault, match="identity: cannot be read"):
        opened(tmp_path / "one", elsewhere)


@pytest.mark.sqlite
def test_an_index_in_its_directory_needs_no_identity(tmp_path: Path) -> None:
    """A backup is copied to where it is to be."""
    with Index(tmp_path / "one", STORAGE) as index:
        index.serve()
        keep(index, instance())
        index.backup(tmp_path / "two")
    with Index(tmp_path / "two", STORAGE) as restored:
        restored.serve()
        assert 1 == len(restored.studies())
    url = f"sqlite:///{tmp_path}/two/index.sqlite"
    with served(tmp_path / "two", url) as named:
        assert 1 == len(named.studies())
    assert not (tmp_path / "two/identity").exists()


def test_two_that_start_on_an_empty_database(postgresql: str, tmp_path: Path) -> None:
    """One made the schema, the other died in the middle of it."""
    url = emptied(postgresql)
    ends: list[object] = []
    ready = threading.Barrier(4)

    def begin(number: int) -> None:
        ready.wait()
        try:
            with opened(tmp_path / str(number), url) as index:
                ends.append(index.studies())
        except Exception as error:  # noqa: BLE001  whatever it is, the test is to show it
            ends.append(error)

    starts = [threading.Thread(target=begin, args=(number,)) for number in range(4)]
    for start in starts:
        start.start()
    for start in starts:
        start.join()
    assert [[]] * 4 == ends


def test_a_lost_lock_is_taken_again_or_ends_the_daemon(
    postgresql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server forgets it with its connection, as when it is restarted."""
    monkeypatch.setattr(node, "CHECK_SECONDS", 0.05)
    url = emptied(postgresql)
    fatal: list[DatabaseFault] = []
    with opened(tmp_path / "one", url, on_fatal=fatal.append) as index:
        index.serve()

        def holders() -> int:
            with index._database.connection():
                sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                return int(index._database.peewee.execute_sql(sql).fetchone()[0])

        def cut() -> None:
            with index._database.connection():
                index._database.peewee.execute_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                )

        # That of the node, and that of the index, which all daemons share.
        assert 2 == holders()
        cut()
        assert eventually(lambda: 2 == holders())
        assert [] == fatal
        # Another daemon is faster.
        monkeypatch.setattr(node.ServingLock, "try_to_take", lambda _: False)
        cut()
        assert eventually(lambda: bool(fatal))
        assert "another daemon serves from" in str(fatal[0])


def test_the_table_is_what_the_model_says() -> None:
    assert {"id", "identity", "host", "path", "since", "seen"} == set(Node._meta.fields)
    assert issubclass(Node, peewee.Model)
