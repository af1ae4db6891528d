"""Batches made part of the index: whole, or not at all; one bad instance stops no other."""

import errno
import threading
from pathlib import Path

import peewee
import pytest
from playhouse.pool import MaxConnectionsExceeded

from index import DatabaseFault, Index, NotKept, Outcome
from index.database.instance_rows import RowGone
from index.errors import Contention
from index.reception.indexing import TRIES, Indexing
from support.daemon import eventually
from support.dicom import ROOT, instance
from support.filling import STORAGE, files, keep, keep_by_threads, receive, served


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path, STORAGE)


def fail(*_: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def raising(error: Exception):
    def act(*_: object, **__: object) -> None:
        raise error

    return act


def rows(index: Index):
    return index._reception._indexing._rows


def test_a_transaction_that_fails_leaves_nothing(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(rows(index), "add", raising(NotKept("database: database or disk is full")))
        with pytest.raises(NotKept, match="disk is full"):
            keep(index, instance())
    assert {} == files(index.data / "objects")
    assert Outcome.STORED is keep(index, instance()).outcome


def test_files_that_cannot_be_synced_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(tmp_path, STORAGE.model_copy(update={"durability": "power-loss"}))
    with monkeypatch.context() as patched:
        patched.setattr("index.storage.object_store.sync_folder", fail)
        with pytest.raises(NotKept, match="Input/output error"):
            keep(index, instance())
    assert [] == index.studies()
    assert {} == files(index.data / "objects")
    # A later sync may say success though the kernel has dropped what the first could not write.
    keep(index, instance(number=2))
    assert ["000001/000.dcm"] == list(files(index.data / "objects"))


def test_what_the_database_refuses_is_kept_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others of its batch are indexed."""
    with served(tmp_path) as index:
        add = rows(index).add

        def picky(batch):
            if any(stored.header.sop_instance_uid.endswith(".3") for stored in batch):
                raise ValueError("brought up by one instance\0")
            return add(batch)

        monkeypatch.setattr(rows(index), "add", picky)
        kept = [receive(index, instance(number=number)) for number in range(1, 6)]
        assert index.catch_up(60)
        expected = ["stored", "stored", "not-indexed", "stored", "stored"]
        assert expected == [str(one.outcome) for one in kept]
        assert [4] == [study["instances"] for study in index.studies()]
        assert 5 == len(files(index.data / "objects"))
        (found,) = [one for one in index.verify(grace=0) if "object" in one.kind]
        assert ("objects/000000/002.dcm", "object-not-indexed") == (found.path, found.kind)
        assert "brought up by one instance" in found.detail
        monkeypatch.undo()
        assert [True] == [one.mended for one in index.verify(repair=True, grace=0) if "object" in one.kind]
        assert [5] == [study["instances"] for study in index.studies()]
        assert [] == [one for one in index.verify(grace=0) if "object" in one.kind]


def test_what_the_database_refused_is_taken_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path) as index, monkeypatch.context() as patched:
        patched.setattr(rows(index), "add", raising(ValueError("refused")))
        assert Outcome.NOT_INDEXED is keep(index, instance()).outcome
    with served(tmp_path) as index:
        assert [1] == [study["instances"] for study in index.studies()]
        assert [] == [one for one in index.verify(grace=0) if "object" in one.kind]


def test_a_database_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.reception.indexer.RETRY_SECONDS", 0.01)
    with served(tmp_path) as index:
        tried = threading.Event()

        def busy(*_: object) -> None:
            tried.set()
            raise NotKept("database: database is locked")

        with monkeypatch.context() as patched:
            patched.setattr(rows(index), "add", busy)
            kept = [receive(index, instance(number=number)) for number in range(1, 4)]
            assert tried.wait(60)
            assert not index.catch_up(0.05)
            assert [None] * 3 == [one.outcome if one.arrival.is_indexed else None for one in kept]
            assert index.state().index_failing
        assert index.catch_up(60)
        assert [3] == [study["instances"] for study in index.studies()]
        assert not index.state().index_failing


def test_a_file_that_cannot_be_written_now_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.reception.indexer.RETRY_SECONDS", 0.01)
    with served(tmp_path) as index:
        with monkeypatch.context() as patched:
            patched.setattr(index._objects, "write", fail)
            receive(index, instance())
            assert not index.catch_up(0.05)
        assert index.catch_up(60)
        assert [] == [one for one in index.verify(grace=0) if "object" in one.kind]


def test_two_data_sets_of_one_uid_in_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.reception.indexer.BATCH_SECONDS", 0.5)
    with served(tmp_path) as index:
        kept = [
            receive(index, instance(StudyDescription=text))
            for text in ("Head", "Head", "Neck", "Neck", "Leg")
        ]
        assert index.catch_up(60)
        expected = ["stored", "duplicate", "conflict", "conflict", "conflict"]
        assert expected == [str(one.outcome) for one in kept]
        assert 2 == len(files(index.data / "conflicts"))
        assert [1] == [study["instances"] for study in index.studies()]


def test_replacements_in_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.reception.indexer.BATCH_SECONDS", 0.5)
    with served(tmp_path, STORAGE.model_copy(update={"duplicates": "replace"})) as index:
        kept = [receive(index, instance(StudyDescription=text)) for text in ("Head", "Neck", "Neck", "Leg")]
        assert index.catch_up(60)
        assert ["stored", "replaced", "duplicate", "replaced"] == [str(one.outcome) for one in kept]
        assert b"Leg" in index.resource(instance().StudyInstanceUID)[0]
    (left,) = files(tmp_path / "objects").values()
    assert b"Leg" in left
    assert 2 == len(files(tmp_path / "conflicts"))


def test_an_instance_is_kept_though_tidying_up_fails(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(index, instance())
    monkeypatch.setattr(index._objects, "remove", fail)
    assert Outcome.DUPLICATE == keep(index, instance()).outcome
    assert Outcome.CONFLICT == keep(index, instance(StudyDescription="Other")).outcome
    assert [1] == [study["instances"] for study in index.studies()]


@pytest.mark.sqlite
def test_a_damaged_database_is_told_whoever_meets_it_first(tmp_path: Path) -> None:
    told: list[DatabaseFault] = []
    index = Index(tmp_path, STORAGE, on_fatal=told.append)
    keep(index, instance())
    index._database.peewee.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    index._database.close()
    path = tmp_path / "index.sqlite"
    path.write_bytes(path.read_bytes()[:4096] + b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(DatabaseFault, match=r"index.sqlite.*malformed"):
        index.studies()
    assert ["malformed" in str(fault) for fault in told] == [True]
    with pytest.raises(DatabaseFault):
        keep(index, instance(number=2))
    assert 1 == len(told)


def test_rows_that_another_process_removed_are_made_again(index: Index) -> None:
    """The rows of a series that arrives are remembered; an operator's `delete` may take some or all away."""
    uids = {1: f"{ROOT}.1.1", 2: f"{ROOT}.1"}  # the series alone, then its study
    for series in (1, 2):
        keep(index, instance(1, series, 1))
        keep(index, instance(1, series, 2))
    for number, uid in uids.items():
        with Index(index.data, STORAGE) as other:
            other.delete(uid)
        keep(index, instance(1, 1, 10 + number))
        keep(index, instance(1, 1, 20 + number))
        ((series, instances),) = [(one["series"], one["instances"]) for one in index.studies()]
        assert {1: (2, 4), 2: (1, 2)}[number] == (series, instances)
    index.publish()
    assert [] == list(index.verify(grace=0))


def test_ids_of_a_failed_transaction_are_forgotten(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite gives the ids of a transaction that was rolled back to the next one."""
    with monkeypatch.context() as patched:
        patched.setattr(rows(index)._sql.instance, "run_many", raising(NotKept("no")))
        with pytest.raises(NotKept):
            keep(index, instance(1))
    keep(index, instance(2))
    keep(index, instance(1))
    keep(index, instance(1, number=2))
    assert [2, 1] == [study["instances"] for study in sorted(index.studies(), key=lambda one: one["uid"])]
    index.publish()
    assert [] == list(index.verify(grace=0))


def test_studies_are_published_when_their_association_ends(tmp_path: Path) -> None:
    with served(tmp_path) as index:
        index._publisher._pace = index._publisher._pace.model_copy(update={"interval": 3600})
        keep_by_threads(index, [instance(1, 1, number) for number in range(1, 21)], 4)
        for number in range(4):
            index.association_ended(f"a{number}")
        path = tmp_path / "fhir/r4/ImagingStudy" / f"{ROOT}.1.json"
        assert eventually(lambda: path.exists() and b'"numberOfInstances":20' in path.read_bytes())


@pytest.mark.parametrize("more", [{}, {"EncapsulatedDocument": bytes(100_000)}], ids=["small", "large"])
@pytest.mark.parametrize("same", [True, False])
def test_another_process_takes_the_same_instance_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, bytes], *, same: bool
) -> None:
    """It comes between the look and the transaction: the second look finds the file in its place."""
    place, others = Indexing._place, []
    theirs = instance(**more) if same else instance(StudyDescription="Other", **more)

    def place_and_be_late(self: Indexing, *arguments):
        placed = place(self, *arguments)
        if not others:
            others.append(Index(tmp_path, STORAGE))
            keep(others[0], theirs)
        return placed

    monkeypatch.setattr(Indexing, "_place", place_and_be_late)
    with served(tmp_path) as index:
        outcome = keep(index, instance(**more)).outcome
        others[0].close()
        assert (Outcome.DUPLICATE if same else Outcome.CONFLICT) is outcome
        assert (1, int(not same)) == (len(files(tmp_path / "objects")), len(files(tmp_path / "conflicts")))
        assert {} == files(tmp_path / "incoming")
        assert [] == [finding for finding in index.verify(grace=0) if "object" in finding.kind]


def test_an_instance_is_deleted_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, deleted = Indexing._place, []
    with served(tmp_path, STORAGE.model_copy(update={"duplicates": "replace"})) as index:
        keep(index, instance())

        def place_after_deletion(self: Indexing, batch, existing):
            if not deleted:
                deleted.append(index.delete(batch[0].uid))
            return place(self, batch, existing)

        monkeypatch.setattr(Indexing, "_place", place_after_deletion)
        assert Outcome.STORED is keep(index, instance(StudyDescription="Other")).outcome


def test_a_deadlock_with_another_process_is_tried_again(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a log: a single try would be answered A700."""
    plain, deadlocks = rows(index).add, [Contention("database: deadlock detected") for _ in range(TRIES - 1)]

    def add(batch):
        if deadlocks:
            raise deadlocks.pop()
        return plain(batch)

    monkeypatch.setattr(rows(index), "add", add)
    assert Outcome.STORED is keep(index, instance()).outcome


def test_rows_that_others_change_again_and_again_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served(tmp_path) as index:
        plain, times = rows(index).add, []

        def add(batch):
            times.append(None)
            if len(times) <= 2 * TRIES:
                raise RowGone
            return plain(batch)

        monkeypatch.setattr(rows(index), "add", add)
        assert Outcome.STORED is keep(index, instance()).outcome


def test_a_thread_without_a_connection_waits_for_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More threads than connections are no reason to refuse an instance."""
    with served(tmp_path) as index:
        plain, refused = index._database.peewee.connect, []

        def connect(*arguments, **options):
            if threading.current_thread().name == "indexer" and not refused:
                refused.append(None)
                raise MaxConnectionsExceeded("Exceeded maximum connections.")
            return plain(*arguments, **options)

        monkeypatch.setattr(index._database.peewee, "connect", connect)
        assert Outcome.STORED is keep(index, instance()).outcome
        assert [None] == refused


def test_a_value_that_postgresql_refuses_is_refused_for_good(index: Index) -> None:
    error = peewee.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")
    assert error is index._database.translate(error)


def test_a_damaged_object_that_has_its_row_stays(index: Index) -> None:
    keep(index, instance())
    (path,) = (index.data / "objects").glob("*/*.dcm")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert index._reception.index_object(str(path.relative_to(index.data))) is None
    assert bytes(content) == path.read_bytes()


def test_a_data_set_that_is_kept_aside_takes_no_room_twice(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE.model_copy(update={"conflicts": 1})) as index:
        keep(index, instance())
        for _ in range(2):
            assert keep(index, instance(StudyDescription="Other")).arrival.kept_aside
        assert not keep(index, instance(StudyDescription="Third")).arrival.kept_aside
