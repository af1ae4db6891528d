"""The rules of performed procedure steps (PS3.4 Section F.7.2): states, what must be there, what follows."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any

from index.errors import IndexFault
from index.orders.records import Status
from index.records import Attributes


class State(StrEnum):
    """PerformedProcedureStepStatus (0040,0252)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


TRANSITIONS: Mapping[State | None, frozenset[State]] = {
    None: frozenset({State.IN_PROGRESS}),
    State.IN_PROGRESS: frozenset(State),
    State.COMPLETED: frozenset(),
    State.DISCONTINUED: frozenset(),
}
"""From which state to which others; None: not created yet."""

STATUS = "PerformedProcedureStepStatus"
SCHEDULED = "ScheduledStepAttributesSequence"
SERIES = "PerformedSeriesSequence"

# Type 1 for N-CREATE in PS3.4 Table F.7.2-1; those of items stand behind their sequence.
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

# What N-SET may not change (same table): tags as DICOM JSON has them. Modalities send them all the same; what
# they were created with stays.
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

# DCM 110514, "Incorrect worklist entry selected" (PS3.16 CID 9300): the scheduled step was not begun.
WRONG_ENTRY = ("110514", "DCM")


class StepFault(IndexFault):
    """What a modality asked for of a performed procedure step is not to be done."""


class DuplicateStep(StepFault):
    """There is a step of this SOP Instance UID already."""


class NoSuchStep(StepFault):
    """There is no step of this SOP Instance UID."""


class StepEnded(StepFault):
    """The step has ended: it may no longer be updated."""


class BadStepValue(StepFault):
    """An attribute has a value that is not allowed (now)."""


class MissingAttribute(StepFault):
    """A required attribute is not there."""


class MissingValue(StepFault):
    """A required attribute has no value."""


def check_created(present: Attributes, keywords: frozenset[str]) -> None:
    """Check what a step is created with. `keywords` are those at the top, with a value or without.

    Raises MissingAttribute, MissingValue.
    """
    for first, *below in REQUIRED:
        if first not in keywords:
            raise MissingAttribute(f"{first} is missing")
        if not present.get(first):
            raise MissingValue(f"{first} has no value")
        for keyword in below:
            if not all(item.get(keyword) for item in present[first]):
                raise MissingAttribute(f"{first}: {keyword} is missing")


def next_state(state: State | None, asked: str | None) -> State:
    """Return the state after a request. Raises StepEnded, BadStepValue."""
    if state is not None and not TRANSITIONS[state]:
        raise StepEnded(f"the step is {state}: it may no longer be updated")
    if asked is None and state is not None:
        return state
    if asked not in TRANSITIONS[state]:
        allowed = ", ".join(sorted(TRANSITIONS[state]))
        raise BadStepValue(f"{STATUS} = {asked}: allowed is {allowed}")
    return State(asked)


def merged(before: Mapping[str, Any], told: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step's data set after N-SET, both as DICOM JSON."""
    return {**before, **{tag: element for tag, element in told.items() if tag not in CREATED_ONLY}}


def scheduled_status(performed: Sequence[tuple[State, bool]]) -> Status:
    """Return the state of a scheduled step from those that perform it; True: it was chosen by mistake."""
    states = {state for state, _ in performed}
    if State.IN_PROGRESS in states:
        return Status.STARTED
    if State.COMPLETED in states:
        return Status.COMPLETED
    return Status.SCHEDULED if all(mistaken for _, mistaken in performed) else Status.DISCONTINUED


def is_mistaken(attributes: Attributes) -> bool:
    """Whether a step was discontinued because the wrong worklist entry had been chosen."""
    reasons = attributes.get("PerformedProcedureStepDiscontinuationReasonCodeSequence") or ()
    return any((one.get("CodeValue"), one.get("CodingSchemeDesignator")) == WRONG_ENTRY for one in reasons)


def studies_of(attributes: Attributes) -> set[str]:
    """Return the Study Instance UIDs of a step."""
    return {
        uid for item in attributes.get(SCHEDULED) or () if (uid := str(item.get("StudyInstanceUID") or ""))
    }


def instances_of(attributes: Attributes) -> Iterator[str]:
    """Yield the SOP Instance UIDs that a step says it made (PS3.3 Table C.4-15)."""
    for series in attributes.get(SERIES) or ():
        yield from _referenced(series.get("ReferencedImageSequence") or ())
        yield from _referenced(series.get("ReferencedNonImageCompositeSOPInstanceSequence") or ())


def _referenced(items: Iterable[Attributes]) -> Iterator[str]:
    return (uid for item in items if (uid := str(item.get("ReferencedSOPInstanceUID") or "")))
