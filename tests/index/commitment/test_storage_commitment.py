"""Storage commitment answers for objects that are there and whole (PS3.4 Section J.3.3), for no others."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from index import CommitmentReport, Index, NotKept
from index.commitment import integrity
from index.database.tables import CommitmentRow, Instance
from support.dicom import CT_IMAGE_STORAGE, ROOT, instance
from support.filling import STORAGE, keep, receive, served

WHOLE = (CT_IMAGE_STORAGE, f"{ROOT}.1.1.1")
HURT = (CT_IMAGE_STORAGE, f"{ROOT}.1.1.2")
OF_ANOTHER_CLASS = ("1.2.840.10008.5.1.4.1.1.4", f"{ROOT}.1.1.2")
# PS3.3 Section C.14.1.1.
PROCESSING_FAILURE, NO_SUCH_INSTANCE, CLASS_CONFLICT = 0x0110, 0x0112, 0x0119


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    index = Index(tmp_path / "data", STORAGE)
    for number in (1, 2):
        keep(index, instance(1, 1, number))
    index.publish()
    yield index
    index.close()


def hurt_file(index: Index) -> Path:
    """The file of the instance that is to be damaged."""
    ((path,),) = index._database.rows(Instance.select(Instance.path).where(Instance.uid == HURT[1]))
    return index.data / path


def replace_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def make_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def make_fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def lead_nowhere(file: Path) -> None:
    file.unlink()
    file.symlink_to("nowhere")


def lose_folder(file: Path) -> None:
    file.parent.rename(file.parent.with_name("gone"))


DAMAGES: dict[str, tuple[Callable[[Path], object], int]] = {
    "gone": (Path.unlink, NO_SUCH_INSTANCE),
    "a link to nothing": (lead_nowhere, NO_SUCH_INSTANCE),
    "empty": (lambda file: file.write_bytes(b""), PROCESSING_FAILURE),
    "cut short": (lambda file: os.truncate(file, 100), PROCESSING_FAILURE),
    "grown": (lambda file: file.write_bytes(file.read_bytes() + b"\0\0"), PROCESSING_FAILURE),
    "a bit has changed": (replace_bit, PROCESSING_FAILURE),
    "a folder": (make_folder, PROCESSING_FAILURE),
    "a FIFO": (make_fifo, PROCESSING_FAILURE),
}


def report(index: Index, *references: tuple[str, str], transaction: str = "1.2.3") -> CommitmentReport:
    """Ask for commitment, and return what is to be reported."""
    index.commitments.ask("CT1", transaction, references)
    (due,) = index.commitments.due()
    index.commitments.delivered(due)
    return due


def tried_again(index: Index, first: CommitmentReport) -> CommitmentReport:
    """The same report, after the peer could not be told."""
    index.commitments.postpone(first)
    index._database.execute(CommitmentRow.update(state="pending", due=0))
    (due,) = index.commitments.due()
    index.commitments.delivered(due)
    return due


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_object_is_not_committed(index: Index, name: str) -> None:
    damage, reason = DAMAGES[name]
    assert (WHOLE, HURT) == report(index, WHOLE, HURT).committed
    damage(hurt_file(index))
    found = report(index, WHOLE, HURT)
    assert ((WHOLE,), ((*HURT, reason),)) == (found.committed, found.failed)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_since_the_last_verify_is_found(index: Index, name: str) -> None:
    """The instance is older than that, and only the file's own time tells."""
    index._database.execute(Instance.update(received=0))
    assert [] == list(index.verify(grace=0))
    damage, reason = DAMAGES[name]
    damage(hurt_file(index))
    assert ((*HURT, reason),) == report(index, WHOLE, HURT).failed


def test_a_lost_folder_of_objects(index: Index) -> None:
    lose_folder(hurt_file(index))
    expected = ((*WHOLE, NO_SUCH_INSTANCE), (*HURT, NO_SUCH_INSTANCE))
    assert expected == report(index, WHOLE, HURT).failed


def test_a_class_conflict_comes_before_damage(index: Index) -> None:
    hurt_file(index).unlink()
    assert ((*OF_ANOTHER_CLASS, CLASS_CONFLICT),) == report(index, OF_ANOTHER_CLASS).failed


def hashed(index: Index, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows by the path of each file that is read."""
    read: list[str] = []
    original = index._integrity._sha1

    def sha1(path: str, *others: object) -> str:
        read.append(path.rpartition("/")[2])
        return original(path, *others)

    monkeypatch.setattr(index._integrity, "_sha1", sha1)
    return read


def age(index: Index, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Let `verify` and requests come so much later than the instances, as the clock says."""
    clock = index._integrity.clock
    monkeypatch.setattr(index._integrity, "clock", lambda: clock() + seconds * 1000)


def test_what_verify_has_read_is_not_read_again(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    age(index, monkeypatch, 60)
    read = hashed(index, monkeypatch)
    assert [] == list(index.verify(grace=0))
    assert (WHOLE, HURT) == report(index, WHOLE, HURT).committed
    assert [] == read


def test_what_came_after_verify_is_read(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    age(index, monkeypatch, -60)
    read = hashed(index, monkeypatch)
    assert [] == list(index.verify(grace=0))
    assert (WHOLE, HURT) == report(index, WHOLE, HURT).committed
    assert ["000.dcm", "001.dcm"] == read


def test_a_verify_that_was_interrupted_does_not_count(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    hurt_file(index).write_bytes(b"")
    age(index, monkeypatch, 60)
    read = hashed(index, monkeypatch)
    checks = index.verify(grace=0)
    next(checks)  # it has found the one that is damaged, and not yet read the others
    checks.close()  # type: ignore[attr-defined]  # a generator
    assert (WHOLE,) == report(index, WHOLE).committed
    assert ["000.dcm"] == read


def test_damage_that_verify_found_stays_until_it_is_mended(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk gives other bytes than it was given, which no time of a file tells."""
    age(index, monkeypatch, 60)
    whole = hurt_file(index).read_bytes()
    replace_bit(hurt_file(index))
    assert [("object-corrupt", HURT[1])] == [(one.kind, one.what) for one in index.verify(grace=0)]
    first = report(index, HURT)
    for found in (first, tried_again(index, first), report(index, HURT, transaction="1.2.4")):
        assert ((*HURT, PROCESSING_FAILURE),) == found.failed
    hurt_file(index).write_bytes(whole)
    assert (HURT,) == report(index, HURT).committed


def test_a_report_that_is_tried_again_reads_again_what_was_damaged(
    index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(index, monkeypatch, 60)
    replace_bit(hurt_file(index))
    read = hashed(index, monkeypatch)
    first = report(index, WHOLE, HURT)
    assert ["000.dcm", "001.dcm"] == read
    read.clear()
    assert ((*HURT, PROCESSING_FAILURE),) == first.failed == tried_again(index, first).failed
    assert ["001.dcm"] == read


def test_a_transaction_asked_again_for_others(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    age(index, monkeypatch, 60)
    assert (WHOLE,) == tried_again(index, report(index, WHOLE)).committed
    replace_bit(hurt_file(index))
    assert ((*HURT, PROCESSING_FAILURE),) == report(index, HURT).failed


def test_an_instance_deleted_while_it_is_read(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    original = index._integrity._sha1

    def sha1(path: Path, *others: object) -> str:
        index.delete(HURT[1])
        return original(path, *others)

    monkeypatch.setattr(index._integrity, "_sha1", sha1)
    assert ((*HURT, NO_SUCH_INSTANCE),) == report(index, HURT).failed


def test_an_instance_replaced_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index(tmp_path / "data", STORAGE.model_copy(update={"duplicates": "replace"})) as index:
        keep(index, instance(1, 1, 2))
        first, original = hurt_file(index), index._integrity._sha1

        def sha1(path: Path, *others: object) -> str:
            if path == first:
                keep(index, instance(1, 1, 2, StudyDescription="the better one"))
            return original(path, *others)

        monkeypatch.setattr(index._integrity, "_sha1", sha1)
        assert (HURT,) == report(index, HURT).committed


def test_damage_is_in_the_log(index: Index) -> None:
    hurt_file(index).unlink()
    with capture_logs() as logged:
        report(index, HURT)
    (said,) = (one for one in logged if one["event"] == "object_damaged")
    assert HURT[1] == said["sop_instance_uid"]
    assert "error" == said["log_level"]


def test_reading_is_bounded_and_stops_when_asked(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "RATE", 1)  # a byte a second: some 2,000 seconds for both
    stopping = threading.Event()
    stopping.set()
    index.commitments.ask("CT1", "1.2.3", [WHOLE, HURT])
    assert [] == list(index.commitments.due(stopping.wait))
    stopping.clear()
    monkeypatch.setattr(integrity, "RATE", 1 << 40)
    (found,) = index.commitments.due(stopping.wait)
    assert (WHOLE, HURT) == found.committed


def test_what_is_acknowledged_and_not_indexed_is_not_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*_: object, **__: object) -> None:
        raise NotKept("database: database is locked")

    monkeypatch.setattr("index.facade.CATCH_UP_SECONDS", 0.1)
    monkeypatch.setattr("index.reception.indexer.RETRY_SECONDS", 0.01)
    with served(tmp_path / "data") as index:
        with monkeypatch.context() as patched:
            patched.setattr(index._reception._indexing, "_index", busy)
            receive(index, instance(1, 1, 1))
            index.commitments.ask("CT1", "1.2.3", [WHOLE])
            assert [] == list(index.commitments.due())
        assert index.catch_up(60)
        assert [(WHOLE,)] == [report.committed for report in index.commitments.due()]
