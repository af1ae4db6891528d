"""Updates, merges and unlinks of patients by an ADT message (HL7 v2.5.1 Section 3.3)."""

from collections.abc import Mapping
from enum import StrEnum

from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.mapping import PATIENT, Overrides, patient_identity, read
from index.orders.hl7.message import Message, Segment
from index.orders.hl7.requests import MAX_GROUPS, identities_of, patient_segment
from index.orders.patients.merges import Merge, PatientUpdate


class Event(StrEnum):
    """What an ADT event does with a patient."""

    UPDATE = "update"
    MERGE = "merge"
    UNLINK = "unlink"
    UNABLE = "unable"
    """It would change orders or studies, and is not supported."""
    NOTHING = "nothing"


EVENTS: Mapping[str, Event] = {
    # The patient as it is now: A08 is the update; the others have the same segments.
    **dict.fromkeys(("A01", "A04", "A05", "A08", "A28", "A31"), Event.UPDATE),
    # A40 and its predecessors before HL7 2.3.1; A47 gives a patient another identifier.
    **dict.fromkeys(("A18", "A30", "A34", "A36", "A40", "A47"), Event.MERGE),
    "A37": Event.UNLINK,
    # Two records of one person linked, visits and accounts moved to another patient, external identifiers.
    **dict.fromkeys(("A24", "A39", "A43", "A44", "A45", "A46"), Event.UNABLE),
    # Admission, transfer and discharge, and their cancellation.
    **dict.fromkeys(("A02", "A03", "A06", "A07", "A09", "A10", "A11", "A12", "A13"), Event.NOTHING),
    **dict.fromkeys(("A14", "A15", "A16", "A17", "A20", "A21", "A22", "A25", "A26"), Event.NOTHING),
    **dict.fromkeys(("A27", "A32", "A33", "A38", "A52", "A53"), Event.NOTHING),
    # Records deleted (images stay), accounts, visits and alternate identifiers, doctors, allergies.
    **dict.fromkeys(("A23", "A29", "A35", "A41", "A42", "A48", "A49", "A50", "A51"), Event.NOTHING),
    **dict.fromkeys(("A54", "A55", "A60", "A61", "A62"), Event.NOTHING),
}
"""By MSH-9.2: the ADT events of HL7 Table 0003."""


def update_of(message: Message, overrides: Overrides, local: str | None = None) -> PatientUpdate:
    """Return the update of a patient. Raises BadMessage where there is no PID, or no identifier."""
    return _update(message, patient_segment(message), overrides, local)


def _update(
    message: Message, pid: Segment, overrides: Overrides, local: str | None, number: int = 1
) -> PatientUpdate:
    attributes = read(PATIENT, message, {"PID": pid}, overrides)
    return PatientUpdate(identities_of(message, pid, local, number), attributes)


def merges(message: Message, local: str | None = None) -> list[Merge]:
    """Return the merges: each MRG with the PID before it. Raises BadMessage, naming the segment."""
    found: list[Merge] = []
    pid: Segment | None = None
    is_merged = True
    for segment in message.segments:
        if segment.name == "PID":
            if not is_merged:
                raise _no_merge(len(found) + 1)
            pid, is_merged = segment, False
        elif segment.name == "MRG":
            found.append(_merge(message, pid, segment, local, len(found) + 1))
            is_merged = True
            if len(found) > MAX_GROUPS:
                raise BadMessage(Code.TOO_LONG, "MRG", f"more than {MAX_GROUPS} merges", reject=True)
    if not found or not is_merged:
        raise _no_merge(len(found) + 1)
    return found


def _no_merge(number: int) -> BadMessage:
    return BadMessage(Code.SEQUENCE, "MRG", "the segment is missing", number=number)


def _merge(message: Message, pid: Segment | None, mrg: Segment, local: str | None, number: int) -> Merge:
    survivors = patient_identity(message, pid, local=local) if pid else []
    if not survivors or pid is None:
        text = "the surviving patient's identifier is required"
        raise BadMessage(Code.REQUIRED, "PID-3", text, number=number)
    olds = patient_identity(message, mrg, 1, local=local)
    if not olds:
        raise BadMessage(Code.REQUIRED, "MRG-1", "the old patient's identifier is required", number=number)
    return Merge(tuple(olds), PatientUpdate(tuple(survivors), read(PATIENT, message, {"PID": pid}, {})))


def unlinked(
    message: Message, overrides: Overrides, local: str | None = None
) -> tuple[PatientUpdate, PatientUpdate]:
    """Return the two patients of an A37. Raises BadMessage, naming the segment."""
    found = message.all("PID")
    if len(found) != 2:  # noqa: PLR2004  ADT_A37 has two
        raise BadMessage(Code.SEQUENCE, "PID", f"two patients are unlinked, not {len(found)}", number=2)
    first, second = (_update(message, pid, overrides, local, n) for n, pid in enumerate(found, start=1))
    return first, second
