"""What an order is, whoever it came from, and the states that it and its steps can be in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from index.orders.vr import doubts
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


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order as a source tells it; told again under the same identity, it changes the one that is there.

    `identity` is what the sender calls it: one order for each (source, sender, identity). `patient` and
    `attributes` are by DICOM keyword (the latter of the Requested Procedure, Imaging Service Request and
    Visit modules, StudyInstanceUID where the source gives one); `steps` are the items of
    ScheduledProcedureStepSequence.
    `charset` is the SpecificCharacterSet that it came in. `partial`: what is not named stays as it was; an
    attribute of None goes. `stamp` is whatever tells the source's versions apart.
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
