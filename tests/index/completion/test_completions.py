"""A study is told to be complete once, with its reason, in the feed, the metrics and to peers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from index import (
    FhirSettings,
    Index,
    NewOrder,
    Observer,
    OrderStatus,
    Source,
)
from index.completion import completions as completions_module
from index.database.tables import CompletionRow, ImagingOrder, Study
from scp.commands.main import register_commands
from support.completion import STEP, STUDY, entries, opened, pass_time, put, step, told
from support.daemon import eventually
from support.dicom import CT_IMAGE_STORAGE, ROOT, instance
from support.filling import STORAGE, keep
from support.modality import begun, ended


class Counts(Observer):
    """What was observed."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def study_complete(self, reason: str) -> None:
        self.seen.append(("complete", reason))

    def study_reopened(self, reason: str) -> None:
        self.seen.append(("reopened", reason))


@pytest.fixture
def counts() -> Counts:
    return Counts()


@pytest.fixture
def index(tmp_path: Path, counts: Counts) -> Iterator[Index]:
    with opened(tmp_path / "data", counts) as index:
        yield index


def order(index: Index, status: OrderStatus, *, firm: bool = True) -> None:
    new = NewOrder(
        Source.HL7,
        "RIS",
        "1",
        {"PatientID": "P1"},
        {"StudyInstanceUID": STUDY, "AccessionNumber": "A1"},
        status=status,
        firm=firm,
    )
    index.orders.store.put(new)
    index.publish()


def test_when_all_performed_instances_are_here(index: Index, counts: Counts) -> None:
    put(index, 1)
    step(index, 1, 2)
    assert told(index) is None
    put(index, 2)
    assert ("mpps", 2, 0) == told(index)
    assert [("ImagingStudy", STUDY, "mpps")] == entries(index)
    assert [("complete", "mpps")] == counts.seen
    # It is no version of the resource.
    kinds = [one.change for one in index.resources.history("r4", "ImagingStudy", STUDY)]
    assert "updated" == kinds[-1]


def test_a_step_that_ends_after_its_instances_came(index: Index) -> None:
    put(index, 1)
    step(index, state="")
    assert told(index) is None
    index.procedures.update(STEP, ended("COMPLETED", f"{STUDY}.1", [f"{STUDY}.1.1"]))
    index.publish()
    assert ("mpps", 1, 0) == told(index)


def test_not_while_another_step_is_in_progress_or_made_nothing(index: Index) -> None:
    put(index, 1)
    index.procedures.create(f"{STEP}.1", "CT1", begun(study_uid=STUDY))
    step(index, 1)
    assert told(index) is None
    index.procedures.update(f"{STEP}.1", ended("DISCONTINUED"))
    index.publish()
    assert ("mpps", 1, 0) == told(index)
    put(index, 1, study=2)
    index.procedures.create(f"{STEP}.2", "CT1", begun(study_uid=f"{ROOT}.2"))
    index.procedures.update(f"{STEP}.2", ended("DISCONTINUED"))
    index.publish()
    assert told(index, f"{ROOT}.2") is None


def commit(index: Index, *numbers: int, transaction: str = "1.2.3") -> None:
    asked = [(CT_IMAGE_STORAGE, f"{STUDY}.1.{number}") for number in numbers]
    index.commitments.ask("CT1", transaction, asked)
    for report in index.commitments.due():
        index.commitments.delivered(report)


def test_when_a_storage_commitment_covers_it(index: Index) -> None:
    put(index, 1, 2)
    commit(index, 1)
    commit(index, 1, 2, 3, transaction="1.2.4")
    assert told(index) is None
    commit(index, 1, 2, transaction="1.2.5")
    assert ("commitment", 2, 0) == told(index)


def test_a_commitment_before_the_publication_counts_after_it(index: Index) -> None:
    keep(index, instance(1, 1, 1))
    commit(index, 1)
    assert told(index) is None
    index.publish()
    assert ("commitment", 1, 0) == told(index)


def test_a_commitment_says_nothing_of_what_came_since(index: Index) -> None:
    keep(index, instance(1, 1, 1))
    commit(index, 1)
    put(index, 2)
    assert told(index) is None


def test_a_commitment_while_a_step_is_in_progress_is_not_the_end(index: Index) -> None:
    put(index, 1)
    step(index, state="")
    commit(index, 1)
    assert told(index) is None


def test_when_its_order_says_so_and_nothing_is_being_sent(index: Index) -> None:
    order(index, OrderStatus.SCHEDULED)
    put(index, 1)
    order(index, OrderStatus.COMPLETED)
    assert told(index) is None
    pass_time(index, completions_module.ORDER_QUIET_SECONDS / 3)
    assert told(index) is None
    pass_time(index, completions_module.ORDER_QUIET_SECONDS)
    assert ("order", 1, 0) == told(index)


def test_an_order_that_is_opened_again_says_nothing(index: Index) -> None:
    order(index, OrderStatus.COMPLETED)
    put(index, 1)
    order(index, OrderStatus.STARTED)
    pass_time(index, 60)
    assert told(index) is None


def test_a_step_that_an_image_ends_is_no_completed_order(tmp_path: Path) -> None:
    """`[worklist] without_mpps`: the first image ends the step, and with it the order."""
    from index import WorklistSettings

    with Index(tmp_path, STORAGE, worklist=WorklistSettings(without_mpps=["*"])) as index:
        order(index, OrderStatus.SCHEDULED)
        keep(index, instance(1, 1, 1, AccessionNumber="A1", PatientID="P1"))
        index.publish()
        assert [("COMPLETED", 0)] == index._database.rows(
            ImagingOrder.select(ImagingOrder.status, ImagingOrder.is_completed)
        )
        pass_time(index, 60)
        assert told(index) is None
        order(index, OrderStatus.COMPLETED)
        pass_time(index, 60)
        assert ("order", 1, 0) == told(index)


def test_when_it_has_been_quiet(index: Index, counts: Counts) -> None:
    put(index, 1)
    put(index, 1, study=2)
    pass_time(index, 500)
    assert told(index) is None
    put(index, 2)
    pass_time(index, 101)
    assert (None, ("quiet", 1, 0)) == (told(index), told(index, f"{ROOT}.2"))
    pass_time(index, 600)
    assert ("quiet", 2, 0) == told(index)
    assert [("complete", "quiet")] * 2 == counts.seen


def test_what_an_order_changes_is_no_noise(index: Index) -> None:
    """A study whose order is updated every few minutes would never be complete."""
    put(index, 1)
    with index._database.writing():
        index._database.execute(Study.update(last_received=Study.last_received - 590_000))
    order(index, OrderStatus.SCHEDULED)
    pass_time(index, 11)
    assert ("quiet", 1, 0) == told(index)


def test_a_step_in_progress_keeps_a_quiet_study_open_for_a_day(index: Index) -> None:
    put(index, 1)
    step(index, state="")
    pass_time(index, 601)
    assert told(index) is None
    pass_time(index, completions_module.STEP_SECONDS)
    assert told(index) is None  # the step itself has not changed for a day
    with index._database.writing():
        index._database.peewee.execute_sql("UPDATE performed_step SET changed = changed - 90000000")
    pass_time(index, completions_module.STEP_SECONDS)
    assert ("quiet", 1, 0) == told(index)


def test_never_by_silence_where_that_is_configured(tmp_path: Path) -> None:
    with opened(tmp_path, quiet=0) as index:
        put(index, 1)
        assert [(None,)] == index._database.rows(CompletionRow.select(CompletionRow.due))
        assert float("inf") == index.completions.find_quiet()
        order(index, OrderStatus.COMPLETED)
        pass_time(index, 60)
        assert ("order", 1, 0) == told(index)


def test_it_is_told_once_and_what_comes_later_is_counted(index: Index, counts: Counts) -> None:
    put(index, 1)
    pass_time(index, 601)
    put(index, 2)
    put(index, 3)
    step(index, 1, 2, 3)
    pass_time(index, 601)
    assert ("quiet", 1, 2) == told(index)
    assert [("ImagingStudy", STUDY, "quiet")] == entries(index)
    assert [("complete", "quiet"), ("reopened", "quiet")] == counts.seen


def test_a_study_waits_for_its_publication(index: Index) -> None:
    put(index, 1)
    keep(index, instance(1, 1, 2))
    pass_time(index, 601)
    assert told(index) is None
    index.publish()
    pass_time(index, 601)
    assert ("quiet", 2, 0) == told(index)


def test_a_study_that_comes_again_after_its_deletion_is_another(index: Index) -> None:
    put(index, 1)
    pass_time(index, 601)
    index.delete(STUDY)
    index.publish()
    assert told(index) is None
    put(index, 1)
    pass_time(index, 601)
    assert ("quiet", 1, 0) == told(index)


def test_an_order_without_images_is_not_complete(index: Index) -> None:
    order(index, OrderStatus.COMPLETED)
    step(index)
    pass_time(index, 601)
    assert [] == index._database.rows(CompletionRow.select(CompletionRow.id))


def test_an_entry_for_each_version_of_fhir(tmp_path: Path) -> None:
    with Index(tmp_path, STORAGE, fhir=FhirSettings(versions=("r4", "r5"))) as index:
        put(index, 1)
        pass_time(index, 601)
        found = [(one.fhir, one.version) for one in index.changes() if one.change == "complete"]
        assert [("r4", 1), ("r5", 1)] == sorted(found)


def test_a_daemon_finds_quiet_studies_by_itself(tmp_path: Path, counts: Counts) -> None:
    with opened(tmp_path, counts) as index:
        put(index, 1)
        pass_time(index, 590)
    with opened(tmp_path, counts, quiet=0.2) as index:
        index.serve()
        keep(index, instance(2, 1, 1))
        assert eventually(lambda: told(index, f"{ROOT}.2") == ("quiet", 1, 0))
        assert told(index) is None  # it was left with the other time


def test_a_fault_of_the_disk_delays_it(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    from index import NotKept

    put(index, 1)
    with monkeypatch.context() as patched:
        patched.setattr(index.completions, "_tell", lambda *_: (_ for _ in ()).throw(NotKept("full")))
        step(index, 1)
        assert told(index) is None
    pass_time(index, 601)
    assert ("mpps", 1, 0) == told(index)


def test_peers_are_to_be_notified_in_the_same_transaction(index: Index) -> None:
    index.completions.notifications.use(["RIS "])
    added: list[str] = []
    index.completions.notifications.on_added = added.extend
    put(index, 1, 2, 3)
    index.procedures.create(STEP, "CT1", begun(study_uid=STUDY))
    index.procedures.update(STEP, ended("COMPLETED", f"{STUDY}.1", [f"{STUDY}.1.{n}" for n in (2, 3)]))
    index.publish()
    (waiting,) = index.completions.notifications.due("RIS", 10)
    assert (STUDY, ["RIS"]) == (waiting.uid, added)
    of_step, others = index.completions.notifications.contents(STUDY)
    assert (STEP, "") == (of_step.step_uid, others.step_uid)
    assert [(f"{STUDY}.1", [(CT_IMAGE_STORAGE, f"{STUDY}.1.{n}") for n in (2, 3)])] == of_step.series
    assert [(f"{STUDY}.1", [(CT_IMAGE_STORAGE, f"{STUDY}.1.1")])] == others.series
    assert [one.uid for one in index.completions.notifications.contents(STUDY)] == [of_step.uid, others.uid]
    assert of_step.uid != others.uid


def test_many_references_are_several_notifications(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.forwarding.notifications.MOST_REFERENCES", 2)
    put(index, 1, 2, 3)
    found = list(index.completions.notifications.contents(STUDY))
    assert [2, 1] == [sum(len(references) for _, references in one.series) for one in found]
    assert 2 == len({one.uid for one in found})


@pytest.mark.sqlite
def test_a_user_is_told(index: Index, tmp_path: Path) -> None:
    put(index, 1)
    put(index, 1, study=2)
    step(index, 1)
    put(index, 2)
    index.close()
    runner = CliRunner()

    def run(*arguments: str) -> Result:
        return runner.invoke(register_commands(), [*arguments, "--data", str(tmp_path / "data")])

    shown = run("show", STUDY).stderr
    assert re.search(r"complete since \S+ \(mpps\), with 1 instances, and 1 came later", shown)
    assert "complete" not in run("show", f"{ROOT}.2").stderr
    (row,) = json.loads(run("studies", "--complete", "--json").stdout)
    assert (STUDY, "mpps", 1) == (row["uid"], row["reason"], row["later"])
    feed = run("changes").stdout.splitlines()
    (line,) = [line for line in feed if " complete " in line]
    assert line.endswith(f" complete r4 ImagingStudy/{STUDY} version 2 (mpps)")
    entries = [json.loads(line) for line in run("changes", "--json").stdout.splitlines()]
    assert [("complete", "mpps")] == [(one["change"], one["reason"]) for one in entries if "reason" in one]
