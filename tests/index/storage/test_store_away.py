"""A store that answers 503, hangs, or cuts an answer off: nothing acknowledged is lost, and it comes back."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from index import Index, NotKept, Outcome, StorageSettings
from index.commitment.integrity import IndexedObject, Interrupted, Reading
from index.database.tables import Instance
from index.storage.remote import availability, s3
from support.daemon import eventually
from support.dicom import ROOT, encoded, instance
from support.failing_server import FailingServer, Failure, failing
from support.filling import begun, keep, receive
from support.object_server import BUCKET

LARGE = instance(number=2, PixelData=bytes(range(256)) * 25_000, BitsAllocated=8, Rows=1)
FAILURES = [Failure.UNAVAILABLE, Failure.HANG, Failure.CUT_ANSWER]
HOURS = 3600.0


@pytest.fixture
def proxy(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FailingServer]:
    monkeypatch.setattr(s3, "REQUEST", timedelta(seconds=1))
    monkeypatch.setattr(availability, "AGAIN_SECONDS", 0.1)
    with failing(server) as found:
        yield found


@pytest.fixture
def storage(proxy: FailingServer, prefix: str) -> StorageSettings:
    return StorageSettings(url=f"s3://{BUCKET}/{prefix}", endpoint=proxy.url, watermark=0)


@pytest.fixture
def by_journal(storage: StorageSettings) -> StorageSettings:
    return storage.model_copy(update={"acknowledge": "journal"})


def served(data: Path, storage: StorageSettings) -> Index:
    index = Index(data, storage)
    index.serve()
    return index


def is_object(line: str) -> bool:
    return "/objects/" in line


def is_put(line: str) -> bool:
    return line.startswith("PUT") and is_object(line)


def read(index: Index, uid: str) -> bytes:
    (found,) = index.retrieval.find_uid(uid).instances()
    with index.retrieval.open(found) as file:
        return file.read()


def paths(index: Index) -> list[str]:
    return sorted(path for (path,) in index._database.rows(Instance.select(Instance.path)))


def in_store(index: Index) -> list[str]:
    return sorted(path for path, _, _ in index._objects.remote.listed("objects/"))


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("dataset", [instance(number=2), LARGE], ids=["small", "large"])
def test_what_cannot_be_kept_is_refused(
    tmp_path: Path, storage: StorageSettings, proxy: FailingServer, failure: Failure, dataset
) -> None:
    with served(tmp_path, storage) as index:
        receive(index, instance(number=1))
        proxy.failure = failure
        with pytest.raises(NotKept, match="object store"):
            receive(index, dataset)
        assert "object store" in index.state().store_away
        proxy.failure = Failure.NONE
        # The daemon asks by itself, so that a balancer finds it well again.
        assert eventually(lambda: not index.state().store_away)
        receive(index, dataset)
        assert [f"{ROOT}.1.1.1", f"{ROOT}.1.1.2"] == sorted(
            uid for (uid,) in index._database.rows(Instance.select(Instance.uid))
        )
        assert encoded(dataset) == read(index, dataset.SOPInstanceUID)
        assert set(paths(index)) <= set(in_store(index))


def test_the_next_senders_do_not_wait(
    tmp_path: Path, storage: StorageSettings, proxy: FailingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(availability, "AGAIN_SECONDS", HOURS)
    with served(tmp_path, storage) as index:
        proxy.failure = Failure.HANG
        with pytest.raises(NotKept):
            receive(index, instance())
        asked = len(proxy.requests)
        for number in range(5):
            with pytest.raises(NotKept, match="object store"):
                begun(index, instance(number=number + 2))
        assert asked == len(proxy.requests)


def test_a_put_whose_answer_is_lost_is_made_once(
    tmp_path: Path, storage: StorageSettings, proxy: FailingServer
) -> None:
    with served(tmp_path, storage) as index:
        seen: list[str] = []

        def is_first_put(line: str) -> bool:
            seen.append(line)
            return is_put(line) and 1 == len([one for one in seen if is_put(one)])

        proxy.only, proxy.failure = is_first_put, Failure.CUT_ANSWER
        assert Outcome.STORED == receive(index, instance()).outcome
        assert len([line for line in seen if is_put(line)]) > 1
        assert paths(index) == in_store(index)
        assert encoded(instance()) == read(index, instance().SOPInstanceUID)


def test_what_is_read_from_a_store_that_fails_is_not_damaged(
    tmp_path: Path, storage: StorageSettings, proxy: FailingServer
) -> None:
    """Storage commitment would deny instances that are kept."""
    with served(tmp_path, storage) as index:
        receive(index, instance())
        columns = Instance.path, Instance.size, Instance.sha1, Instance.received
        ((path, size, sha1, received),) = index._database.rows(Instance.select(*columns))
        stored = IndexedObject(path, size, sha1, received)
        proxy.only, proxy.failure = is_object, Failure.UNAVAILABLE
        with pytest.raises(Interrupted):
            index._integrity.damage(stored, Reading(0, lambda seconds: seconds > 1))
        with pytest.raises(NotKept, match="object store"):
            list(index.verify(grace=0))
        proxy.failure = Failure.NONE
        assert eventually(lambda: not index.state().store_away)
        assert None is index._integrity.damage(stored, Reading(0, lambda _: False))


@pytest.mark.parametrize("failure", FAILURES)
def test_the_journal_takes_instances_meanwhile(
    tmp_path: Path, by_journal: StorageSettings, proxy: FailingServer, failure: Failure
) -> None:
    with served(tmp_path, by_journal) as index:
        keep(index, instance(number=1))
        proxy.failure = failure
        kept = [instance(number=3), LARGE]
        for dataset in kept:
            keep(index, dataset)
            assert encoded(dataset) == read(index, dataset.SOPInstanceUID)
        assert eventually(lambda: bool(index.state().store_away))
    with served(tmp_path, by_journal) as index:  # a start in the meantime
        keep(index, instance(number=4))
        assert encoded(LARGE) == read(index, LARGE.SOPInstanceUID)
        proxy.failure = Failure.NONE
        assert eventually(lambda: paths(index) == in_store(index) and not len(index._objects.pending))
        assert [] == list(tmp_path.glob("objects/**/*.dcm"))
        assert encoded(LARGE) == read(index, LARGE.SOPInstanceUID)
        assert 4 == len(paths(index))


def test_one_that_cannot_be_read_stops_no_other(
    tmp_path: Path, by_journal: StorageSettings, proxy: FailingServer
) -> None:
    with served(tmp_path, by_journal) as index:
        proxy.failure = Failure.UNAVAILABLE
        for number in range(3):
            keep(index, instance(number=number + 1))
        (first, *_) = tmp_path.glob("objects/**/*.dcm")
        content = first.read_bytes()
        first.unlink()
        first.mkdir()
        proxy.failure = Failure.NONE
        others = {path for path in paths(index) if path != str(first.relative_to(tmp_path))}
        assert eventually(lambda: others <= set(in_store(index)))
        assert not index.state().store_away
        first.rmdir()
        first.write_bytes(content)
        assert eventually(lambda: paths(index) == in_store(index))


def test_a_store_that_lets_us_remove_nothing_takes_objects(
    tmp_path: Path, storage: StorageSettings, proxy: FailingServer
) -> None:
    with served(tmp_path, storage) as index:
        receive(index, instance())
        proxy.only, proxy.failure = lambda line: "?delete" in line, Failure.FORBIDDEN
        index.delete(f"{ROOT}.1")
        assert 1 == len(in_store(index))
        assert "" == index.state().store_away
        receive(index, instance(2, 1, 1))
        proxy.failure = Failure.NONE
        index._deletion.finish()
        assert paths(index) == in_store(index)


def test_what_is_deleted_while_it_is_uploaded_leaves_the_store(
    tmp_path: Path, by_journal: StorageSettings, proxy: FailingServer
) -> None:
    with served(tmp_path, by_journal) as index:
        proxy.only, proxy.failure = is_put, Failure.HANG
        keep(index, instance())
        assert eventually(lambda: any(map(is_put, proxy.requests)))
        index.delete(f"{ROOT}.1")
        proxy.failure = Failure.NONE
        assert eventually(lambda: not len(index._objects.pending))
        assert [] == in_store(index)
        assert [] == list(tmp_path.glob("objects/**/*.dcm"))
