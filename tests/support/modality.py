"""A modality's procedure steps, by pynetdicom as SCU."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.association import Association

from support.dicom import CT_IMAGE_STORAGE

MPPS = "1.2.840.10008.3.1.2.3.3"


@contextmanager
def associated(port: int, sop_class: str, aet: str = "CT1") -> Iterator[Association]:
    """Yield an association of its own for one SOP Class."""
    ae = AE(aet)
    ae.add_requested_context(sop_class)
    association = ae.associate("127.0.0.1", port, ae_title="IMAGINGSTUDYD")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def create(port: int, uid: str | None, step: Dataset, aet: str = "CT1") -> Dataset:
    """N-CREATE a step on an association of its own; return the status."""
    with associated(port, MPPS, aet) as association:
        return association.send_n_create(step, MPPS, uid)[0]


def update(port: int, uid: str, changes: Dataset, aet: str = "CT1") -> Dataset:
    """N-SET a step on an association of its own; return the status."""
    with associated(port, MPPS, aet) as association:
        return association.send_n_set(changes, MPPS, uid)[0]


def begun(*worklist_items: Dataset, study_uid: str = "", **changes: Any) -> Dataset:
    """Return the data set of an N-CREATE: of these worklist items, or of an unscheduled step."""
    step = Dataset()
    step.ScheduledStepAttributesSequence = [_scheduled(item) for item in worklist_items] or [
        _unscheduled(study_uid)
    ]
    patient = worklist_items[0] if worklist_items else None
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        setattr(step, keyword, patient.get(keyword, "") if patient else "")
    step.PerformedProcedureStepID = "PPS1"
    step.PerformedStationAETitle = "CT1"
    step.PerformedStationName = ""
    step.PerformedLocation = ""
    step.PerformedProcedureStepStartDate = "20260102"
    step.PerformedProcedureStepStartTime = "102000"
    step.PerformedProcedureStepStatus = "IN PROGRESS"
    step.PerformedProcedureStepDescription = "Head native"
    step.PerformedProcedureTypeDescription = ""
    step.PerformedProcedureStepEndDate = ""
    step.PerformedProcedureStepEndTime = ""
    step.Modality = "CT"
    step.StudyID = ""
    step.PerformedProtocolCodeSequence = []
    step.PerformedSeriesSequence = []
    for keyword, value in changes.items():
        if value is None:
            del step[keyword]
        else:
            setattr(step, keyword, value)
    return step


def _scheduled(item: Dataset) -> Dataset:
    made = Dataset()
    made.StudyInstanceUID = item.StudyInstanceUID
    made.ReferencedStudySequence = []
    made.AccessionNumber = item.get("AccessionNumber", "")
    made.RequestedProcedureID = item.get("RequestedProcedureID", "")
    made.RequestedProcedureDescription = ""
    made.ScheduledProcedureStepID = item.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID
    made.ScheduledProcedureStepDescription = ""
    made.ScheduledProtocolCodeSequence = []
    return made


def _unscheduled(study_uid: str) -> Dataset:
    made = Dataset()
    made.StudyInstanceUID = study_uid
    made.AccessionNumber = ""
    return made


def ended(state: str, series_uid: str = "1.2.3", instances: Iterable[str] = (), **changes: Any) -> Dataset:
    """Return the data set of the last N-SET."""
    made, series = Dataset(), Dataset()
    made.PerformedProcedureStepStatus = state
    made.PerformedProcedureStepEndDate = "20260102"
    made.PerformedProcedureStepEndTime = "103000"
    series.PerformingPhysicianName = "Perform^Ing"
    series.ProtocolName = "Head"
    series.OperatorsName = ""
    series.SeriesInstanceUID = series_uid
    series.SeriesDescription = ""
    series.RetrieveAETitle = ""
    series.ReferencedImageSequence = [_reference(uid) for uid in instances]
    series.ReferencedNonImageCompositeSOPInstanceSequence = []
    made.PerformedSeriesSequence = [series]
    for keyword, value in changes.items():
        setattr(made, keyword, value)
    return made


def _reference(uid: str) -> Dataset:
    made = Dataset()
    made.ReferencedSOPClassUID = CT_IMAGE_STORAGE
    made.ReferencedSOPInstanceUID = uid
    return made


def reason(code: str, meaning: str) -> list[Dataset]:
    """Return a sequence with one code of DCM."""
    made = Dataset()
    made.CodeValue, made.CodingSchemeDesignator, made.CodeMeaning = code, "DCM", meaning
    return [made]
