"""Attributes of performed procedure steps that have several values where one is due, or that are no UID."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from index import BadStepValue, Index, StepFault
from support.filling import STORAGE
from support.modality import begun, ended

STEP = "1.2.826.0.1.56.9"
STUDY = "1.2.826.0.1.56.1"
SINGLE = (
    *("PerformedProcedureStepID", "PerformedStationAETitle", "PerformedProcedureStepStartDate"),
    *("PerformedProcedureStepStartTime", "PerformedProcedureStepStatus", "Modality", "PatientID"),
    *("PatientName", "StudyID", "PerformedStationName", "PerformedLocation"),
)
VALUES = {"PerformedProcedureStepStartDate": "20260102", "PerformedProcedureStepStartTime": "1015"}


@pytest.fixture
def index(tmp_path: Path) -> Iterator[Index]:
    with Index(tmp_path / "data", STORAGE) as index:
        yield index


@pytest.mark.parametrize("states", [["IN PROGRESS", "COMPLETED"], ["IN PROGRESS"] * 2, ["", "IN PROGRESS"]])
def test_several_states_are_not_allowed(index: Index, states: list[str]) -> None:
    """PerformedProcedureStepStatus has one value (PS3.6), else the answer is 0106 (PS3.7 Annex C)."""
    with pytest.raises(BadStepValue, match="PerformedProcedureStepStatus"):
        index.procedures.create(STEP, "CT1", begun(study_uid=STUDY, PerformedProcedureStepStatus=states))
    index.procedures.create(STEP, "CT1", begun(study_uid=STUDY))
    with pytest.raises(BadStepValue, match="PerformedProcedureStepStatus"):
        index.procedures.update(STEP, ended("COMPLETED", PerformedProcedureStepStatus=states))


@pytest.mark.parametrize("keyword", SINGLE)
def test_several_values_are_no_internal_error(index: Index, keyword: str) -> None:
    values = [VALUES.get(keyword, "A"), VALUES.get(keyword, "B")]
    try:
        index.procedures.create(STEP, "CT1", begun(study_uid=STUDY, **{keyword: values}))
        index.procedures.update(STEP, ended("COMPLETED", **{keyword: values}))
    except StepFault:
        assert "PerformedProcedureStepStatus" == keyword
    index.publish()
    assert isinstance(index.announced(), list)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("uid", [[STUDY, f"{STUDY}.2"], "1.2.x", "1." * 40])
def test_a_study_has_one_uid(index: Index, uid: str | list[str]) -> None:
    dataset = begun(study_uid=STUDY)
    dataset.ScheduledStepAttributesSequence[0]["StudyInstanceUID"]._value = uid
    with pytest.raises(BadStepValue, match=r"StudyInstanceUID = .*: not a UID"):
        index.procedures.create(STEP, "CT1", dataset)
    assert [] == index.announced()
