"""What an order is, whoever it came from, and the states that it and its steps can be in."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Any

from index.dicom.value_rules import doubts
from index.records import Attributes


class Source(StrEnum):
    """The ways that orders come in."""

    HL7 = "hl7"
    FILE = "file"
    FHIR = "fhir"
    UPSTREAM = "upstream"
    CLI = "cli"


class Status(StrEnum):
    """The state of an order or of a scheduled step.

    SCHEDULED, ARRIVED, READY and STARTED are those of ScheduledProcedureStepStatus (PS3.3 C.4.10); the last
    three are ends, which no worklist shows.
    """

    SCHEDULED = "SCHEDULED"
    ARRIVED = "ARRIVED"
    READY = "READY"
    STARTED = "STARTED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    DISCONTINUED = "DISCONTINUED"


OPEN = (Status.SCHEDULED, Status.ARRIVED, Status.READY)
"""What a worklist shows by default: nobody has begun it."""

ENDED = (Status.COMPLETED, Status.CANCELLED, Status.DISCONTINUED)


_DATE = re.compile(r"[0-9]{8}")
# SH holds 16 characters (PS3.5 Table 6.2-1).
SH = 16
# Of what is cut: the first characters, and a hash that tells it from others with the same beginning.
_KEPT, _HASHED = 7, 8


def short_id(text: str) -> str:
    """Return an identifier as a worklist can answer it: two that differ stay two (PS3.5 Table 6.2-1)."""
    if len(text) <= SH:
        return text
    return f"{text[:_KEPT]}-{hashlib.sha256(text.encode()).hexdigest()[:_HASHED]}"


def is_date(text: str) -> bool:
    """Whether a text is a day of the calendar as DA has it (PS3.5 Table 6.2-1)."""
    if not _DATE.fullmatch(text):
        return False
    try:
        date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order as a source tells it; told again under the same identity, it changes the one that is there.

    `identity` is what the sender calls it: one order for each (source, sender, identity). `patient` and
    `attributes` are by DICOM keyword (the latter of the Requested Procedure, Imaging Service Request and
    Visit modules, StudyInstanceUID where the source gives one); `steps` are the items of
    ScheduledProcedureStepSequence.
    `charset` is the SpecificCharacterSet that it came in. `partial`: what is not named stays as it was; an
    attribute of None goes. `stamp` is whatever tells the source's versions apart. `firm`: the state is what
    is told, not what an order has by default; it sets back what the source itself began or ended.
    """

    source: Source
    sender: str
    identity: str
    patient: Attributes
    attributes: Attributes
    steps: Sequence[Attributes] = ()
    status: Status = Status.SCHEDULED
    charset: str = ""
    partial: bool = False
    stamp: str = ""
    firm: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A scheduled step with its order, as a worklist item by keyword, sequences as lists.

    ScheduledProcedureStepSequence has one item. `order_id` and `step` are row ids.
    """

    order_id: int
    step: int
    step_id: str
    status: Status
    attributes: Mapping[str, Any]
    charset: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of `worklist list`: an order, its steps' worklist items, and the studies matched to it."""

    id: int
    key: str
    source: Source
    sender: str
    status: Status
    study_uid: str
    attributes: Mapping[str, Any]
    studies: tuple[str, ...] = field(default=())

    @property
    def doubts(self) -> list[str]:
        """Which attributes no worklist answers as they were told: their VR does not allow them."""
        return list(doubts(self.attributes))
