"""The rules of performed procedure steps (PS3.4 Section F.7.2): states and attributes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from index.dicom.uids import is_uid
from index.errors import IndexFault
from index.orders.records import OrderStatus
from index.records import Attributes


class PerformedStepStatus(StrEnum):
    """PerformedProcedureStepStatus (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


TRANSITIONS: Mapping[PerformedStepStatus | None, frozenset[PerformedStepStatus]] = {
    None: frozenset({PerformedStepStatus.IN_PROGRESS}),
    PerformedStepStatus.IN_PROGRESS: frozenset(PerformedStepStatus),
    PerformedStepStatus.COMPLETED: frozenset(),
    PerformedStepStatus.DISCONTINUED: frozenset(),
}
"""The states that may follow each state; None: not created yet."""

STATUS = "PerformedProcedureStepStatus"
SCHEDULED = "ScheduledStepAttributesSequence"
SERIES = "PerformedSeriesSequence"

# Type 1 for N-CREATE in PS3.4 Table F.7.2-1; attributes of items after their sequence.
REQUIRED: tuple[tuple[str, ...], ...] = (
    (SCHEDULED,),
    (SCHEDULED, "StudyInstanceUID"),
    ("PerformedProcedureStepID",),
    ("PerformedStationAETitle",),
    ("PerformedProcedureStepStartDate",),
    ("PerformedProcedureStepStartTime",),
    (STATUS,),
    ("Modality",),
)

# Attributes that N-SET may not change (same table), by their tag in DICOM JSON. Modalities send them anyway:
# they are ignored.
CREATED_ONLY = frozenset(
    (
        "00080060",  # Modality
        "00081120",  # ReferencedPatientSequence
        "00100010",  # PatientName
        "00100020",  # PatientID
        "00100021",  # IssuerOfPatientID
        "00100030",  # PatientBirthDate
        "00100040",  # PatientSex
        "00200010",  # StudyID
        "00400241",  # PerformedStationAETitle
        "00400242",  # PerformedStationName
        "00400243",  # PerformedLocation
        "00400244",  # PerformedProcedureStepStartDate
        "00400245",  # PerformedProcedureStepStartTime
        "00400253",  # PerformedProcedureStepID
        "00400270",  # ScheduledStepAttributesSequence
    )
)

# "Incorrect worklist entry selected" (PS3.16 CID 9300): the scheduled step has not begun.
WRONG_ENTRY = ("110514", "DCM")


class StepFault(IndexFault):
    """Raised when the request of a modality for a performed procedure step is not allowed."""


class DuplicateStep(StepFault):
    """There is already a step with this SOP Instance UID."""


class NoSuchStep(StepFault):
    """There is no step with this SOP Instance UID."""


class StepEnded(StepFault):
    """The step has ended and may no longer be updated."""


class BadStepValue(StepFault):
    """An attribute has a value that is not allowed, or not in this state."""


class MissingAttribute(StepFault):
    """A required attribute is missing."""


class MissingValue(StepFault):
    """A required attribute has no value."""


def check_created(present: Attributes, keywords: frozenset[str]) -> None:
    """Check the attributes of a new step. `keywords` are those at the top level, with a value or without.

    Raises MissingAttribute, MissingValue, BadStepValue.
    """
    for first, *below in REQUIRED:
        if first not in keywords:
            raise MissingAttribute(f"{first} is missing")
        if not present.get(first):
            raise MissingValue(f"{first} has no value")
        for keyword in below:
            if not all(item.get(keyword) for item in present[first]):
                raise MissingAttribute(f"{first}: {keyword} is missing")
    for uid in studies_of(present):
        if not is_uid(uid):
            raise BadStepValue(f"{SCHEDULED}: StudyInstanceUID = {uid[:64]!r}: not a UID")


def next_state(state: PerformedStepStatus | None, asked: Any) -> PerformedStepStatus:
    """Return the state after a request for a state; None: it names none. Raises StepEnded, BadStepValue."""
    if state is not None and not TRANSITIONS[state]:
        raise StepEnded(f"the step is {state}: it may no longer be updated")
    if asked is None and state is not None:
        return state
    text = str(asked)  # of several values as well
    if text not in TRANSITIONS[state]:
        allowed = ", ".join(sorted(TRANSITIONS[state]))
        raise BadStepValue(f"{STATUS} = {text}: allowed is {allowed}")
    return PerformedStepStatus(text)


def merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data set of a step after N-SET, all as DICOM JSON."""
    return {**before, **{tag: element for tag, element in changes.items() if tag not in CREATED_ONLY}}


def scheduled_status(performed: Sequence[tuple[PerformedStepStatus, bool]]) -> OrderStatus:
    """Return the state of a scheduled step from the steps that perform it; True: wrong worklist entry."""
    states = {state for state, _ in performed}
    if PerformedStepStatus.IN_PROGRESS in states:
        return OrderStatus.STARTED
    if PerformedStepStatus.COMPLETED in states:
        return OrderStatus.COMPLETED
    return OrderStatus.SCHEDULED if all(is_wrong for _, is_wrong in performed) else OrderStatus.DISCONTINUED


def is_wrong_entry(attributes: Attributes) -> bool:
    """Whether a step was discontinued because the wrong worklist entry had been selected."""
    reasons = attributes.get("PerformedProcedureStepDiscontinuationReasonCodeSequence") or ()
    return any((one.get("CodeValue"), one.get("CodingSchemeDesignator")) == WRONG_ENTRY for one in reasons)


def studies_of(attributes: Attributes) -> set[str]:
    """Return the Study Instance UIDs of a step."""
    return {
        uid for item in attributes.get(SCHEDULED) or () if (uid := str(item.get("StudyInstanceUID") or ""))
    }


def instances_of(attributes: Attributes) -> Iterator[str]:
    """Yield the SOP Instance UIDs of the instances that a step names (PS3.3 Table C.4-15)."""
    for series in attributes.get(SERIES) or ():
        yield from _referenced(series.get("ReferencedImageSequence") or ())
        yield from _referenced(series.get("ReferencedNonImageCompositeSOPInstanceSequence") or ())


def _referenced(items: Iterable[Attributes]) -> Iterator[str]:
    return (uid for item in items if (uid := str(item.get("ReferencedSOPInstanceUID") or "")))
