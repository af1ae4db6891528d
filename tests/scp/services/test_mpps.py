"""Performed procedure steps by pynetdicom as SCU, and what follows from them."""

from collections.abc import Callable
from pathlib import Path

import pytest

from index import Index
from support.daemon import Daemon, cli, eventually
from support.filling import STORAGE
from support.modality import begun, create, ended, reason, update
from support.worklist import findscu, item, query, write

ITEMS = [item(number) for number in range(1, 6)]
# A second step of the order of the first item.
SECOND = item(1, ScheduledProcedureStepID="SPS1B")

_uids = iter(f"1.2.826.0.1.3680043.10.1555.77.{number}" for number in range(1, 1000))


@pytest.fixture
def daemon(start: Callable[..., Daemon], tmp_path: Path) -> Daemon:
    first = item(1)
    first.ScheduledProcedureStepSequence.append(SECOND.ScheduledProcedureStepSequence[0])
    for number, one in enumerate([first, *ITEMS[1:]], start=1):
        write(one, tmp_path / "wl" / f"{number}.wl")
    index = Index(tmp_path / "data", STORAGE)
    assert 5 == index.orders.import_files([tmp_path / "wl"]).taken
    index.close()
    return start(IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS="all")


def states(daemon: Daemon) -> dict[str, list[str]]:
    """The state of each order, then of its steps, by RequestedProcedureID."""
    index = Index(daemon.data, STORAGE)
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


def test_a_step_takes_its_scheduled_step_along(daemon: Daemon, tmp_path: Path) -> None:
    uid = next(_uids)
    assert 0x0000 == create(daemon.port, uid, begun(ITEMS[1])).Status
    assert ["STARTED", "STARTED"] == states(daemon)["RP2"]
    open_ones, _ = findscu(daemon.port, query(), tmp_path)
    assert {"SPS1", "SPS1B", "SPS3", "SPS4", "SPS5"} == {
        one.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID for one in open_ones
    }
    started, _ = findscu(daemon.port, _with_status("STARTED"), tmp_path)
    assert ["RP2"] == [one.RequestedProcedureID for one in started]

    assert 0x0000 == update(daemon.port, uid, ended("COMPLETED")).Status
    assert ["COMPLETED", "COMPLETED"] == states(daemon)["RP2"]
    said = daemon.wait_for(lambda event: event.get("operation") == "updated")
    assert ("0000", "COMPLETED", 1, "CT1") == tuple(
        said[key] for key in ("status", "state", "scheduled", "calling_aet")
    )


def _with_status(status: str):
    asked = query()
    asked.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus = status
    return asked


def test_several_steps_of_one_order(daemon: Daemon) -> None:
    one, other = next(_uids), next(_uids)
    create(daemon.port, one, begun(ITEMS[0]))
    update(daemon.port, one, ended("COMPLETED"))
    assert ["STARTED", "COMPLETED", "SCHEDULED"] == states(daemon)["RP1"]
    create(daemon.port, other, begun(SECOND))
    update(daemon.port, other, ended("DISCONTINUED"))
    assert ["COMPLETED", "COMPLETED", "DISCONTINUED"] == states(daemon)["RP1"]


def test_one_step_for_several_orders(daemon: Daemon) -> None:
    create(daemon.port, next(_uids), begun(ITEMS[1], ITEMS[2]))
    found = states(daemon)
    assert (["STARTED"] * 2, ["STARTED"] * 2) == (found["RP2"], found["RP3"])


def test_the_wrong_worklist_entry_is_scheduled_again(daemon: Daemon) -> None:
    uid = next(_uids)
    create(daemon.port, uid, begun(ITEMS[3]))
    mistaken = reason("110514", "Incorrect worklist entry selected")
    changes = ended("DISCONTINUED", PerformedProcedureStepDiscontinuationReasonCodeSequence=mistaken)
    assert 0x0000 == update(daemon.port, uid, changes).Status
    assert ["SCHEDULED", "SCHEDULED"] == states(daemon)["RP4"]


def test_an_order_that_comes_after_its_step(daemon: Daemon, tmp_path: Path) -> None:
    late, uid = item(6), next(_uids)
    create(daemon.port, uid, begun(late))
    update(daemon.port, uid, ended("COMPLETED"))
    assert "RP6" not in states(daemon)
    write(late, tmp_path / "late/6.wl")
    assert 0 == cli("worklist", "import", "--data", str(daemon.data), str(tmp_path / "late")).returncode
    assert eventually(lambda: ["COMPLETED", "COMPLETED"] == states(daemon)["RP6"])


def test_an_unscheduled_step(daemon: Daemon) -> None:
    before = states(daemon)
    assert 0x0000 == create(daemon.port, next(_uids), begun(study_uid="1.2.3.4")).Status
    assert before == states(daemon)


def test_a_step_without_uid_is_given_one(daemon: Daemon) -> None:
    assert 0x0000 == create(daemon.port, None, begun(ITEMS[4])).Status
    assert daemon.wait_for(lambda event: event.get("operation") == "created")["step_uid"].startswith("2.25.")


def test_statuses_of_the_standard(daemon: Daemon) -> None:
    uid, other = next(_uids), next(_uids)
    port = daemon.port
    assert 0x0000 == create(port, uid, begun(ITEMS[1])).Status
    # Duplicate SOP instance, no such SOP instance.
    assert 0x0111 == create(port, uid, begun(ITEMS[1])).Status
    assert 0x0112 == update(port, other, ended("COMPLETED")).Status
    # Invalid attribute value.
    assert 0x0106 == create(port, other, begun(ITEMS[1], PerformedProcedureStepStatus="COMPLETED")).Status
    assert 0x0106 == update(port, uid, ended("FINISHED")).Status
    # Missing attribute, missing attribute value.
    assert 0x0120 == create(port, other, begun(ITEMS[1], PerformedProcedureStepStatus=None)).Status
    assert 0x0120 == create(port, other, begun(ITEMS[1], ScheduledStepAttributesSequence=None)).Status
    assert 0x0121 == create(port, other, begun(ITEMS[1], PerformedStationAETitle="")).Status
    # May no longer be updated.
    assert 0x0000 == update(port, uid, ended("IN PROGRESS")).Status
    assert 0x0000 == create(port, other, begun(ITEMS[2])).Status
    for ending, step in (("DISCONTINUED", uid), ("COMPLETED", other)):
        assert 0x0000 == update(port, step, ended(ending)).Status
        for state in ("IN PROGRESS", "COMPLETED", "DISCONTINUED"):
            late = update(port, step, ended(state))
            assert (0x0110, 0xA710) == (late.Status, late.ErrorID)
            assert "may no longer be updated" in late.ErrorComment
    assert ["DISCONTINUED", "DISCONTINUED"] == states(daemon)["RP2"]
    assert ["COMPLETED", "COMPLETED"] == states(daemon)["RP3"]
    assert "Doe" not in "".join(daemon.lines)


def test_odd_values_are_kept_and_not_logged(daemon: Daemon) -> None:
    odd = begun(ITEMS[1], PatientBirthDate="hidden", PatientID="L" * 70)
    assert 0x0000 == create(daemon.port, next(_uids), odd).Status
    daemon.wait_for(lambda event: event.get("operation") == "created")
    assert [] == [line for line in daemon.lines if "hidden" in line or "Warning" in line]


def test_a_restart_forgets_nothing(daemon: Daemon, start: Callable[..., Daemon]) -> None:
    uid = next(_uids)
    create(daemon.port, uid, begun(ITEMS[1]))
    daemon.kill()
    again = start(IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS="all")
    assert 0x0111 == create(again.port, uid, begun(ITEMS[1])).Status
    assert 0x0000 == update(again.port, uid, ended("COMPLETED")).Status
    assert ["COMPLETED", "COMPLETED"] == states(again)["RP2"]
