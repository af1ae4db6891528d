"""The log: acknowledged together, in order, within bounds; a part is free when all is durable elsewhere."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from index import Index, InvalidUID, Kept, NotKept, Outcome, StorageSettings
from index.reception import log, settling
from index.reception.instance import keep_all
from index.storage import durable, journal
from support.daemon import eventually
from support.dicom import instance
from support.filling import begun, keep, keep_by_threads, receive, served

STORAGE = StorageSettings(watermark=0)


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = served(tmp_path / "data", STORAGE)
    yield index
    index.close()


def busy(*_: object, **__: object) -> None:
    raise NotKept("database: database is locked")


def fail(*_: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("durability", ["power-loss", "process-crash"])
def test_a_small_journal_is_turned_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durability: str
) -> None:
    monkeypatch.setattr(journal, "SEGMENT", 5000)
    with served(tmp_path, STORAGE.model_copy(update={"durability": durability})) as index:
        keep_by_threads(index, [instance(study, 1, number) for study in (1, 2) for number in range(1, 30)], 4)
        assert 2 * [29] == [study["instances"] for study in index.studies()]
        assert (tmp_path / "journal/0").stat().st_size <= 5000


def test_records_of_a_part_are_bounded(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "PART_RECORDS", 3)
    for number in range(1, 20):
        receive(index, instance(number=number))
    assert index.catch_up(60)
    assert [19] == [study["instances"] for study in index.studies()]


def test_a_full_log_holds_senders_up_and_then_refuses(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "PART_RECORDS", 2)
    monkeypatch.setattr("index.reception.indexer.RETRY_SECONDS", 0.01)
    with monkeypatch.context() as patched:
        patched.setattr(index._reception._indexing, "_index", busy)
        with pytest.raises(NotKept, match=r"journal: no room for 0\.5 seconds"):  # noqa: PT012
            patched.setattr(log, "FULL_SECONDS", 0.5)
            for number in range(1, 10):
                receive(index, instance(number=number))
        assert 1.0 == index.state().journal
        assert index.state().index_failing
        patched.setattr(log, "FULL_SECONDS", 600)
        index._reception._log._full_until = None
        sender = threading.Thread(target=receive, args=(index, instance(9)))
        sender.start()
        assert eventually(lambda: index._reception._log._full_until is not None)
    sender.join(60)
    assert index.catch_up(60)
    assert 2 == len(index.studies())
    assert eventually(lambda: index.state().journal < 1)


def test_a_sync_that_fails_is_told_to_all_of_its_group(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(journal.os, "fdatasync", fail)
        with pytest.raises(NotKept, match="journal: Input/output error"):
            receive(index, instance())
    # The journal is made anew; its senders wait for that moment.
    assert Outcome.STORED is keep(index, instance(number=2)).outcome
    assert [1] == [study["instances"] for study in index.studies()]


def test_a_journal_that_breaks_while_it_is_settled_loses_nothing(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was acknowledged since it was turned is in the part that broke: that is settled first."""
    events: list[str] = []

    def slow(descriptor: int) -> None:
        if not events:
            events.append("meanwhile")
            receive(index, instance(2))
            with monkeypatch.context() as patched:
                patched.setattr(journal.os, "fdatasync", fail)
                with pytest.raises(NotKept, match="journal: Input/output error"):
                    receive(index, instance(3))
        durable.sync_filesystem(descriptor)
        events.append("synced")

    def renew(one: journal.Journal) -> None:
        plain(one)
        events.append("renewed")

    plain = journal.Journal.renew
    monkeypatch.setattr(journal.Journal, "renew", renew)
    monkeypatch.setattr("index.storage.object_store.sync_filesystem", slow)
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 0)
    receive(index, instance(1))
    assert eventually(lambda: "renewed" in events)
    assert ["meanwhile", "synced", "synced", "renewed"] == events
    assert Outcome.STORED is keep(index, instance(3)).outcome
    assert 3 == len(index.studies())


def test_a_part_is_not_free_before_its_instances_are_indexed(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 0)
    begun, go_on = threading.Event(), threading.Event()
    write = index._objects.write

    def slow(path: str, content: bytes) -> None:
        begun.set()
        go_on.wait(60)
        write(path, content)

    monkeypatch.setattr(index._objects, "write", slow)
    receive(index, instance())
    assert begun.wait(60)
    receive(index, instance(number=2))
    numbers = [record.number for record in journal.read(index.data / "journal")]
    assert [0, 1] == [number - numbers[0] for number in numbers]
    go_on.set()
    assert index.catch_up(60)


def test_what_is_indexed_during_a_sync_is_not_settled_by_it(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its file may have come after the sync: a power cut would take it, and its record must be read again."""
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 0)
    plain, reception = index._objects.settle_placed, index._reception
    meanwhile, settled = [instance(number=2)], []

    def sync() -> None:
        plain()
        if meanwhile:
            keep(index, meanwhile.pop())

    monkeypatch.setattr(index._objects, "settle_placed", sync)
    monkeypatch.setattr(
        reception._settling, "_unlink_removed", lambda: settled.append(reception._replay._position.read())
    )
    keep(index, instance(number=1))
    assert eventually(lambda: settled)
    (indexed, until) = settled[0]
    assert until + 1 == indexed


def test_several_instances_are_kept_by_one_sync(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    appended: list[int] = []
    plain = journal.Journal.append

    def append(one: journal.Journal, first: int, bodies: list[bytes]) -> None:
        appended.append(len(bodies))
        plain(one, first, bodies)

    monkeypatch.setattr(journal.Journal, "append", append)
    receivers = [begun(index, instance(number=number)) for number in (1, 2)]
    receivers.append(begun(index, instance(number=3, SeriesInstanceUID="none")))
    receivers.append(begun(index, instance(number=4, EncapsulatedDocument=bytes(100_000))))
    kept = keep_all(receivers)
    assert [3] == appended
    assert [Kept, Kept, InvalidUID, Kept] == [type(one) for one in kept]
    assert index.catch_up(60)
    assert [3] == [study["instances"] for study in index.studies()]
    assert 3 == len(list((index.data / "objects").rglob("*.dcm")))
