"""An order, the states of orders and of scheduled steps, and what every source of orders needs."""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from index.dicom.value_rules import valid_value
from index.records import Attributes

STEP_STATUS = "ScheduledProcedureStepStatus"


class Source(StrEnum):
    """The ways that orders come in."""

    HL7 = "hl7"
    FILE = "file"
    FHIR = "fhir"
    UPSTREAM = "upstream"
    CLI = "cli"


class OrderStatus(StrEnum):
    """The state of an order or of a scheduled step.

    SCHEDULED, ARRIVED, READY and STARTED are those of ScheduledProcedureStepStatus (PS3.3 C.4.10). The last
    three are ends: no worklist has them.
    """

    SCHEDULED = "SCHEDULED"
    ARRIVED = "ARRIVED"
    READY = "READY"
    STARTED = "STARTED"
    COMPLETED = "COMPLETED"
    CANCELLED = "CANCELLED"
    DISCONTINUED = "DISCONTINUED"


OPEN = (OrderStatus.SCHEDULED, OrderStatus.ARRIVED, OrderStatus.READY)
"""Not begun: what a worklist has by default."""
ENDED = (OrderStatus.COMPLETED, OrderStatus.CANCELLED, OrderStatus.DISCONTINUED)


@dataclass(frozen=True, slots=True)
class NewOrder:
    """An order from a source. With the identity of an order that is known, it changes that order.

    `identity` is the sender's name for it: one order for each (source, sender, identity). `patient` and
    `attributes` are by DICOM keyword (the latter of the Requested Procedure, Imaging Service Request and
    Visit modules, StudyInstanceUID where the source has one); `steps` are the items of
    ScheduledProcedureStepSequence. `charset` is the SpecificCharacterSet of the source.
    `partial`: attributes that are missing stay unchanged, attributes with None are deleted. `stamp` differs
    between versions of the order at its source. `firm`: the source names the state; it may reopen an order
    that the source itself began or completed.
    """

    source: Source
    sender: str
    identity: str
    patient: Attributes
    attributes: Attributes
    steps: Sequence[Attributes] = ()
    status: OrderStatus = OrderStatus.SCHEDULED
    charset: str = ""
    partial: bool = False
    stamp: str = ""
    firm: bool = False


def order_status(steps: Sequence[OrderStatus]) -> OrderStatus:
    """Return the state of an order from those of its steps. Cancelled steps count only if all are."""
    steps = [step for step in steps if step is not OrderStatus.CANCELLED] or steps
    if any(step is OrderStatus.STARTED for step in steps):
        return OrderStatus.STARTED
    still_open = [step for step in steps if step in OPEN]
    if still_open:
        return OrderStatus.STARTED if len(still_open) < len(steps) else OrderStatus.SCHEDULED
    return OrderStatus.COMPLETED if OrderStatus.COMPLETED in steps else steps[0]


def step_status(item: Attributes) -> OrderStatus:
    """Return the state that an item of ScheduledProcedureStepSequence has; SCHEDULED by default."""
    value = valid_value(item, STEP_STATUS)
    return OrderStatus(value) if value in set(OrderStatus) else OrderStatus.SCHEDULED


def progressed(before: OrderStatus, asked: OrderStatus, *, by_modality: bool, firm: bool) -> OrderStatus:
    """Return the state after a change of the order by its source.

    What a modality began or ended stays so. What the source itself began or completed is reopened only by a
    change that names the state (`firm`); what it cancelled is reopened by any change.
    """
    if by_modality:
        is_kept = before in (OrderStatus.COMPLETED, OrderStatus.DISCONTINUED) or (
            before is OrderStatus.STARTED and asked in OPEN
        )
    else:
        is_kept = not firm and before in (OrderStatus.STARTED, OrderStatus.COMPLETED) and asked in OPEN
    return before if is_kept else asked


# SH has at most 16 characters (PS3.5 Table 6.2-1).
SH = 16
# A shortened identifier is its first characters and a hash, so that two that differ still do.
_KEPT, _HASHED = 7, 8


def short_id(text: str) -> str:
    """Return an identifier that fits SH, as the worklist answers it."""
    if len(text) <= SH:
        return text
    return f"{text[:_KEPT]}-{hashlib.sha256(text.encode()).hexdigest()[:_HASHED]}"


def agree(one: str, other: str) -> bool:
    """Whether two values are equal or one of them is empty."""
    return not one or not other or one == other


def non_empty(attributes: Attributes) -> dict[str, Any]:
    """Return the attributes that have a value."""
    return {keyword: value for keyword, value in attributes.items() if value not in (None, "", [])}


def issuer_name(items: Iterable[Mapping[str, Any]] | None) -> str:
    """Return the issuer in a sequence of one item: its universal identifier, else its local name."""
    item: Mapping[str, Any] = next(iter(items or ()), {})
    return str(item.get("UniversalEntityID") or item.get("LocalNamespaceEntityID") or "")


def code_item(value: str, scheme: str, meaning: str) -> list[dict[str, str]]:
    """Return a code as items of a code sequence (PS3.3 Section 8.8); none for a code that does not fit SH."""
    if not 0 < len(value) <= SH:
        return []
    return [{"CodeValue": value, "CodingSchemeDesignator": scheme or "L", "CodeMeaning": meaning or value}]


# NUL, and half a surrogate pair: no database takes them as text.
_INVALID = re.compile("[\0\ud800-\udfff]+")


def clean_text(text: str) -> str:
    """Return a text without padding and without characters that a database does not take."""
    return _INVALID.sub(" ", text).strip()


def date_and_time_now() -> tuple[str, str]:
    """Return the local date and time as DA and TM."""
    now = datetime.now().astimezone()
    return now.strftime("%Y%m%d"), now.strftime("%H%M%S")
