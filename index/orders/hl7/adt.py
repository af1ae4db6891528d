"""From a message to the patients that it updates, merges or parts (HL7 v2.5.1 Section 3.3)."""

from collections.abc import Sequence
from typing import Any

from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.mapping import PATIENT, Overrides, patient_identity, read
from index.orders.hl7.message import Message, Segment
from index.orders.hl7.requests import MAX_GROUPS, identities_of, patient_segment
from index.orders.patients.merges import Merge, Update


def update_of(message: Message, overrides: Overrides, local: str | None = None) -> Update:
    """Return what PID says of its patient. Raises BadMessage where there is no PID, or no identifier."""
    pid = patient_segment(message)
    return _update(message, pid, overrides, local)


def _update(
    message: Message, pid: Segment, overrides: Overrides, local: str | None, number: int = 1
) -> Update:
    said = read(PATIENT, message, {"PID": pid}, overrides)
    return Update(identities_of(message, pid, local, number), said)


def merges(message: Message, local: str | None = None) -> list[Merge]:
    """Return the merges: each MRG goes with the PID before it. Raises BadMessage, naming the segment."""
    made: list[Merge] = []
    pid: Segment | None = None
    merged = True
    for name, segment in message.segments():
        if name == "PID":
            if not merged:
                raise _no_merge(len(made) + 1)
            pid, merged = segment, False
        elif name == "MRG":
            made.append(_merge(message, pid, segment, local, len(made) + 1))
            merged = True
            if len(made) > MAX_GROUPS:
                raise BadMessage(Code.TOO_LONG, "MRG", f"more than {MAX_GROUPS} merges", reject=True)
    if not made or not merged:
        raise _no_merge(len(made) + 1)
    return made


def _no_merge(number: int) -> BadMessage:
    return BadMessage(Code.SEQUENCE, "MRG", "the segment is missing", number=number)


def _merge(message: Message, pid: Segment | None, mrg: Segment, local: str | None, number: int) -> Merge:
    survivors: Sequence[dict[str, Any]] = patient_identity(message, pid, local=local) if pid else ()
    if not survivors or pid is None:
        raise BadMessage(
            Code.REQUIRED, "PID-3", "the surviving patient's identifier is required", number=number
        )
    olds = patient_identity(message, mrg, 1, local=local)
    if not olds:
        raise BadMessage(Code.REQUIRED, "MRG-1", "the old patient's identifier is required", number=number)
    said = read(PATIENT, message, {"PID": pid}, {})
    return Merge(tuple(olds), Update(tuple(survivors), said))


def unlinked(message: Message, overrides: Overrides, local: str | None = None) -> tuple[Update, Update]:
    """Return the two patients of an A37, which are two again. Raises BadMessage, naming the segment."""
    found = message.all("PID")
    if len(found) != 2:  # noqa: PLR2004  ADT_A37 has two
        raise BadMessage(Code.SEQUENCE, "PID", f"two patients are parted, not {len(found)}", number=2)
    first, second = (_update(message, pid, overrides, local, n) for n, pid in enumerate(found, start=1))
    return first, second
