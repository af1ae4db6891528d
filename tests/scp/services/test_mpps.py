"""Performed procedure steps by pynetdicom as SCU, and what follows from them."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from index import Index
from support.daemon import Daemon, cli, eventually, serving
from support.filling import STORAGE
from support.modality import MPPS, associated, begun, create, ended, reason, update
from support.worklist import findscu, item, query, write

_uids = iter(f"1.2.826.0.1.3680043.10.1555.77.{number}" for number in range(1, 1000))
_numbers = itertools.count(1)

UNKNOWN_CALLERS = {"IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS": "all"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One for all tests: each has orders and steps of its own."""
    yield from serving(tmp_path_factory.mktemp("shared") / "data", **UNKNOWN_CALLERS)


@pytest.fixture
def items(daemon: Daemon, tmp_path: Path) -> list[Dataset]:
    return ordered(daemon.data, tmp_path / "wl")


def ordered(data: Path, folder: Path) -> list[Dataset]:
    """Order two procedures; return the two items."""
    made = [item(next(_numbers)) for _ in range(2)]
    for one in made:
        write(one, folder / f"{one.RequestedProcedureID}.wl")
    index = Index(data, STORAGE)
    assert 2 == index.orders.import_files([folder]).taken
    index.close()
    return made


def states(data: Path) -> dict[str, list[str]]:
    """The state of each order, then of its steps, by RequestedProcedureID."""
    index = Index(data, STORAGE)
    try:
        return {
            one.attributes["RequestedProcedureID"]: [
                str(one.status),
                *(
                    step["ScheduledProcedureStepStatus"]
                    for step in one.attributes["ScheduledProcedureStepSequence"]
                ),
            ]
            for one in index.orders.listed()
        }
    finally:
        index.close()


def state(daemon: Daemon, one: Dataset) -> list[str]:
    return states(daemon.data)[one.RequestedProcedureID]


def step_id(one: Dataset) -> str:
    return one.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID


def test_a_step_takes_its_scheduled_step_along(daemon: Daemon, items: list[Dataset], tmp_path: Path) -> None:
    first, second = items
    uid = next(_uids)
    assert 0x0000 == create(daemon.port, uid, begun(first)).Status
    assert ["STARTED", "STARTED"] == state(daemon, first)
    open_ones = {step_id(one) for one in findscu(daemon.port, query(), tmp_path)[0]}
    assert {step_id(second)} == open_ones & {step_id(one) for one in items}
    asked = query(RequestedProcedureID=first.RequestedProcedureID)
    asked.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus = "STARTED"
    started, _ = findscu(daemon.port, asked, tmp_path)
    assert [step_id(first)] == [step_id(one) for one in started]

    assert 0x0000 == update(daemon.port, uid, ended("COMPLETED")).Status
    assert ["COMPLETED", "COMPLETED"] == state(daemon, first)
    said = daemon.wait_for(lambda event: (event.get("operation"), event.get("step_uid")) == ("updated", uid))
    assert ("0000", "COMPLETED", 1, "CT1") == tuple(
        said[key] for key in ("status", "state", "scheduled", "calling_aet")
    )


def test_several_steps_of_one_order(daemon: Daemon, tmp_path: Path) -> None:
    number = next(_numbers)
    first, second = item(number), item(number, ScheduledProcedureStepID=f"SPS{number}B")
    both = item(number)
    both.ScheduledProcedureStepSequence.append(second.ScheduledProcedureStepSequence[0])
    imported(daemon, write(both, tmp_path / "wl/1.wl"))
    open_ones = {step_id(one) for one in findscu(daemon.port, query(), tmp_path)[0]}
    assert {step_id(first), step_id(second)} <= open_ones

    one, other = next(_uids), next(_uids)
    create(daemon.port, one, begun(first))
    update(daemon.port, one, ended("COMPLETED"))
    assert ["STARTED", "COMPLETED", "SCHEDULED"] == state(daemon, both)
    create(daemon.port, other, begun(second))
    update(daemon.port, other, ended("DISCONTINUED"))
    assert ["COMPLETED", "COMPLETED", "DISCONTINUED"] == state(daemon, both)


def imported(daemon: Daemon, path: Path) -> None:
    assert 0 == cli("worklist", "import", "--data", str(daemon.data), str(path)).returncode


def test_one_step_for_several_orders(daemon: Daemon, items: list[Dataset]) -> None:
    create(daemon.port, next(_uids), begun(*items))
    assert [["STARTED"] * 2] * 2 == [state(daemon, one) for one in items]


def test_the_wrong_worklist_entry_is_scheduled_again(daemon: Daemon, items: list[Dataset]) -> None:
    uid = next(_uids)
    create(daemon.port, uid, begun(items[0]))
    mistaken = reason("110514", "Incorrect worklist entry selected")
    changes = ended("DISCONTINUED", PerformedProcedureStepDiscontinuationReasonCodeSequence=mistaken)
    assert 0x0000 == update(daemon.port, uid, changes).Status
    assert ["SCHEDULED", "SCHEDULED"] == state(daemon, items[0])


def test_an_order_that_comes_after_its_step(daemon: Daemon, tmp_path: Path) -> None:
    late, uid = item(next(_numbers)), next(_uids)
    create(daemon.port, uid, begun(late))
    update(daemon.port, uid, ended("COMPLETED"))
    assert late.RequestedProcedureID not in states(daemon.data)
    imported(daemon, write(late, tmp_path / "late/1.wl"))
    assert eventually(lambda: ["COMPLETED", "COMPLETED"] == state(daemon, late))


def test_an_unscheduled_step(daemon: Daemon, items: list[Dataset]) -> None:
    before = states(daemon.data)
    assert len(before) >= len(items)
    assert 0x0000 == create(daemon.port, next(_uids), begun(study_uid="1.2.3.4")).Status
    assert before == states(daemon.data)


def test_a_step_without_uid_is_given_one(daemon: Daemon, items: list[Dataset]) -> None:
    before = len(created(daemon))
    assert 0x0000 == create(daemon.port, None, begun(items[0])).Status
    assert eventually(lambda: before < len(created(daemon)))
    assert created(daemon)[before].startswith("2.25.")


def created(daemon: Daemon) -> list[str]:
    """The UIDs of the steps that the log names."""
    return [event["step_uid"] for event in daemon.events[:] if event.get("operation") == "created"]


def test_statuses_of_the_standard(daemon: Daemon, items: list[Dataset]) -> None:
    first, second = items
    uid, other = next(_uids), next(_uids)
    port = daemon.port
    assert 0x0000 == create(port, uid, begun(first)).Status
    # Duplicate SOP instance, no such SOP instance.
    assert 0x0111 == create(port, uid, begun(first)).Status
    assert 0x0112 == update(port, other, ended("COMPLETED")).Status
    # Invalid attribute value.
    assert 0x0106 == create(port, other, begun(first, PerformedProcedureStepStatus="COMPLETED")).Status
    assert 0x0106 == update(port, uid, ended("FINISHED")).Status
    # Missing attribute, missing attribute value.
    assert 0x0120 == create(port, other, begun(first, PerformedProcedureStepStatus=None)).Status
    assert 0x0120 == create(port, other, begun(first, ScheduledStepAttributesSequence=None)).Status
    assert 0x0121 == create(port, other, begun(first, PerformedStationAETitle="")).Status
    # May no longer be updated.
    assert 0x0000 == update(port, uid, ended("IN PROGRESS")).Status
    assert 0x0000 == create(port, other, begun(second)).Status
    for ending, step in (("DISCONTINUED", uid), ("COMPLETED", other)):
        assert 0x0000 == update(port, step, ended(ending)).Status
        for refused in ("IN PROGRESS", "COMPLETED", "DISCONTINUED"):
            late = update(port, step, ended(refused))
            assert (0x0110, 0xA710) == (late.Status, late.ErrorID)
            assert "may no longer be updated" in late.ErrorComment
    assert ["DISCONTINUED", "DISCONTINUED"] == state(daemon, first)
    assert ["COMPLETED", "COMPLETED"] == state(daemon, second)
    assert "Doe" not in "".join(daemon.lines)


def test_odd_values_are_kept_and_not_logged(daemon: Daemon, items: list[Dataset]) -> None:
    odd, uid = begun(items[0], PatientBirthDate="hidden", PatientID="L" * 70), next(_uids)
    assert 0x0000 == create(daemon.port, uid, odd).Status
    assert eventually(lambda: uid in created(daemon))
    assert [] == [line for line in daemon.lines if "hidden" in line or "Warning" in line]


RETRIEVE = "1.2.840.10008.3.1.2.3.4"


def got(
    daemon: Daemon, uid: str, *tags: int, context: str = RETRIEVE, sop_class: str = RETRIEVE
) -> tuple[int, Dataset | None]:
    """N-GET a step; return the status and the attributes."""
    with associated(daemon.port, context) as association:
        status, attributes = association.send_n_get(list(tags), sop_class, uid, meta_uid=context)
    return status.Status, attributes


def test_a_step_is_read_back(daemon: Daemon, items: list[Dataset]) -> None:
    """N-GET (PS3.4 Section F.8): all attributes, or those of an Attribute Identifier List."""
    uid, step = next(_uids), begun(items[0], PatientName="Müller^Hans", SpecificCharacterSet="ISO_IR 100")
    assert 0x0000 == create(daemon.port, uid, step).Status
    status, everything = got(daemon, uid)
    assert everything is not None
    assert (0x0000, "ISO_IR 192") == (status, everything.SpecificCharacterSet)
    assert step.to_json_dict() == {
        **everything.to_json_dict(),
        "00080005": step["00080005"].to_json_dict(None, 0),
    }
    status, some = got(daemon, uid, 0x00400252, 0x00100010)
    assert some is not None
    assert (0x0000, "IN PROGRESS", "Müller^Hans") == (
        status,
        some.PerformedProcedureStepStatus,
        some.PatientName,
    )
    assert 3 == len(some)
    assert 0x0000 == update(daemon.port, uid, ended("COMPLETED")).Status
    assert "COMPLETED" == got(daemon, uid, 0x00400252)[1].PerformedProcedureStepStatus  # type: ignore[union-attr]
    said = daemon.wait_for(lambda event: (event.get("operation"), event.get("step_uid")) == ("read", uid))
    assert "0000" == said["status"]


def test_statuses_of_reading_a_step(daemon: Daemon, items: list[Dataset]) -> None:
    uid = next(_uids)
    create(daemon.port, uid, begun(items[0]))
    # No such SOP Instance; the step stands under its own UID only.
    assert (0x0112, None) == got(daemon, next(_uids))
    # An attribute that this step does not have; one that is none: the others are there.
    for tag, expected in ((0x00104000, 0x0001), (0x00091001, 0x0107), (0x00000002, 0x0107)):
        status, attributes = got(daemon, uid, 0x00080060, tag)
        assert attributes is not None
        assert (expected, "CT", 1) == (status, attributes.Modality, len(attributes))
    # What the SCP always returns (PS3.4 Table F.8.2-1) is empty where the step has none.
    status, attributes = got(daemon, uid, 0x00081032)
    assert attributes is not None
    assert (0x0000, []) == (status, list(attributes.ProcedureCodeSequence))
    # Each SOP Class has operations of its own.
    assert 0x0211 == got(daemon, uid, context=MPPS, sop_class=MPPS)[0]
    with associated(daemon.port, RETRIEVE) as association:
        assert 0x0211 == association.send_n_set(ended("COMPLETED"), MPPS, uid, meta_uid=RETRIEVE)[0].Status


def test_a_restart_forgets_nothing(start: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon, uid = start(**UNKNOWN_CALLERS), next(_uids)
    first, _ = ordered(daemon.data, tmp_path / "wl")
    create(daemon.port, uid, begun(first))
    daemon.kill()
    again = start(**UNKNOWN_CALLERS)
    assert 0x0111 == create(again.port, uid, begun(first)).Status
    assert 0x0000 == update(again.port, uid, ended("COMPLETED")).Status
    assert ["COMPLETED", "COMPLETED"] == state(again, first)
