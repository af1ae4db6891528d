"""Storage commitment where several nodes keep the objects: each answers for its own, one reports."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from index import CommitmentReport, Index
from index.commitment import vouching
from index.commitment.storage_commitment import NO_SUCH_INSTANCE, PROCESSING_FAILURE
from index.database.claims import Work
from index.database.tables import CommitmentRow, Instance
from support.dicom import CT_IMAGE_STORAGE, ROOT, instance
from support.filling import keep, receive
from support.nodes import fall_silent, joined, without_publisher

HERE, THERE = [(CT_IMAGE_STORAGE, f"{ROOT}.1.1.{number}") for number in (1, 2)]


@pytest.fixture
def two(shared_url: str, tmp_path: Path) -> Iterator[tuple[Index, Index]]:
    """Two nodes; the first has one instance of a study, the other another one."""
    with joined(tmp_path / "one", shared_url) as one, joined(tmp_path / "two", shared_url) as other:
        for number, index in enumerate((one, other), start=1):
            keep(without_publisher(index), instance(1, 1, number))
        yield one, other


def due(index: Index) -> list[CommitmentReport]:
    """What is reported now; it is taken each time."""
    found = []
    for report in index.commitments.due():
        index.commitments.delivered(report)
        found.append(report)
    return found


def file_of(index: Index, uid: str) -> Path:
    ((path,),) = index._database.rows(Instance.select(Instance.path).where(Instance.uid == uid))
    return index.data / path


def test_each_node_answers_for_its_own_objects(two: tuple[Index, Index]) -> None:
    """The first one said of the other's object that it had failed."""
    one, other = two
    one.commitments.ask("CT1", "1.2.3", [HERE, THERE])
    assert ([], []) == (due(one), due(other))
    (report,) = due(one)
    assert ((HERE, THERE), ()) == (report.committed, report.failed)
    assert ([], []) == (due(one), due(other))


def test_a_damaged_object_of_another_node(two: tuple[Index, Index]) -> None:
    one, other = two
    file_of(other, THERE[1]).write_bytes(b"")
    one.commitments.ask("CT1", "1.2.3", [HERE, THERE])
    due(one)
    due(other)
    (report,) = due(one)
    assert ((HERE,), ((*THERE, PROCESSING_FAILURE),)) == (report.committed, report.failed)


def test_what_another_node_has_yet_to_index(two: tuple[Index, Index]) -> None:
    """It is acknowledged: the other node indexes it before it answers."""
    one, other = two
    late = (CT_IMAGE_STORAGE, f"{ROOT}.1.1.3")
    one.commitments.ask("CT1", "1.2.3", [late, (CT_IMAGE_STORAGE, "1.2.3.4")])
    assert [] == due(one)
    receive(other, instance(1, 1, 3))
    due(other)
    (report,) = due(one)
    assert ((late,), ((CT_IMAGE_STORAGE, "1.2.3.4", NO_SUCH_INSTANCE),)) == (report.committed, report.failed)


def test_a_node_that_does_not_answer_is_waited_for(
    two: tuple[Index, Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = two
    fall_silent(one, other)
    one.commitments.ask("CT1", "1.2.3", [HERE, THERE])
    assert [] == due(one)
    monkeypatch.setattr("index.commitment.storage_commitment.WAIT_SECONDS", 0)
    (report,) = due(one)
    assert ((HERE,), ((*THERE, PROCESSING_FAILURE),)) == (report.committed, report.failed)


def test_a_silent_node_is_replaced(two: tuple[Index, Index]) -> None:
    one, other = two
    other.commitments.ask("CT1", "1.2.3", [HERE])
    assert [] == due(one)
    fall_silent(one, other)
    (report,) = due(one)
    assert ((HERE,), ()) == (report.committed, report.failed)


def test_one_node_at_a_time_reports(two: tuple[Index, Index]) -> None:
    one, other = two
    row = one.commitments.ask("CT1", "1.2.3", [HERE])
    with other._database.claims.claimed(Work.COMMITMENT, row):
        assert [] == due(one)
    assert 1 == len(due(one))


def test_an_old_answer_is_asked_for_again(two: tuple[Index, Index], monkeypatch: pytest.MonkeyPatch) -> None:
    """The report could not be delivered, and the object was damaged meanwhile."""
    one, other = two
    row = one.commitments.ask("CT1", "1.2.3", [THERE])
    assert ([], []) == (due(one), due(other))
    (report,) = one.commitments.due()
    one.commitments.postpone(report)
    file_of(other, THERE[1]).write_bytes(b"")
    monkeypatch.setattr(vouching, "GOOD_SECONDS", -1.0)
    with one._database.writing():
        one._database.execute(CommitmentRow.update(due=0).where(CommitmentRow.id == row))
    monkeypatch.setattr("index.commitment.storage_commitment.WAIT_SECONDS", 1e10)
    assert ([], []) == (due(one), due(other))
    monkeypatch.setattr(vouching, "GOOD_SECONDS", 3600.0)
    (report,) = due(one)
    assert ((), ((*THERE, PROCESSING_FAILURE),)) == (report.committed, report.failed)
