"""The orders of an ORM or OMI message, each with what is to be done with it (HL7 v2.5.1; IHE RAD TF-2)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from index.dicom.uids import UID
from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.mapping import ORDER, PATIENT, STEP, Overrides, patient_identity, read
from index.orders.hl7.message import Message, Segment
from index.orders.records import ENDED, OrderStatus, short_id


class Action(StrEnum):
    """What an order control (ORC-1) does with an order."""

    NEW = "new"
    CHANGE = "change"
    CONFIRMED = "confirmed"
    """A change of a known order; for an unknown order it is ignored."""
    STATUS = "status"
    CANCEL = "cancel"
    DISCONTINUE = "discontinue"
    REPLACED = "replaced"
    """Cancelled, and replaced by another order of the message."""
    NOTHING = "nothing"


CONTROLS: Mapping[str, Action] = {
    **dict.fromkeys(("NW", "SN", "RO", "PA", "CH"), Action.NEW),
    **dict.fromkeys(("XO", "XX"), Action.CHANGE),
    "XR": Action.CONFIRMED,
    **dict.fromkeys(("SC", "SR"), Action.STATUS),
    **dict.fromkeys(("CA", "OC", "CR"), Action.CANCEL),
    **dict.fromkeys(("DC", "OD", "DR"), Action.DISCONTINUE),
    **dict.fromkeys(("RP", "RQ", "RU"), Action.REPLACED),
    # Answers between placer and filler: accepted, received, unable to.
    **dict.fromkeys(("OK", "RR", "DE", "UA", "UC", "UD", "UF", "UH", "UM", "UR", "UX"), Action.NOTHING),
    # Held and released: the worklist has no state for an order on hold; it stays.
    **dict.fromkeys(("HD", "HR", "OH", "RL", "OR", "OE"), Action.NOTHING),
    # Numbers, status requests, results, refills, charges, links to problems, steps of a laboratory.
    **dict.fromkeys(("NA", "SS", "RE", "CN", "PR", "MC", "LI", "UN", "CP"), Action.NOTHING),
    **dict.fromkeys(("RF", "AF", "DF", "FU", "OF", "OP", "PY"), Action.NOTHING),
}
"""By ORC-1: all of HL7 Table 0119."""

STATES: Mapping[str, OrderStatus | None] = {
    "SC": OrderStatus.SCHEDULED,
    "IP": OrderStatus.STARTED,
    "A": OrderStatus.STARTED,
    "CM": OrderStatus.COMPLETED,
    "CA": OrderStatus.CANCELLED,
    "RP": OrderStatus.CANCELLED,
    "DC": OrderStatus.DISCONTINUED,
    "HD": None,
    "ER": None,
}
"""By ORC-5: all of HL7 Table 0038. None: on hold, or not found by its sender; nothing changes."""

ENDING: Mapping[Action, OrderStatus] = {
    Action.CANCEL: OrderStatus.CANCELLED,
    Action.REPLACED: OrderStatus.CANCELLED,
    Action.DISCONTINUE: OrderStatus.DISCONTINUED,
}
"""The state after controls that end an order; they overrule ORC-5."""


def _status(action: Action, value: str) -> OrderStatus | None:
    """Return the state after a control with this ORC-5; None: it does not change.

    A new or changed order may have ended (IHE: XO with CM). "In process" is ignored there: systems send it
    for orders that have not begun.
    """
    if action in ENDING:
        return ENDING[action]
    state = STATES.get(value)
    if action is Action.STATUS:
        return state
    return state if state in ENDED else OrderStatus.SCHEDULED


# Orders of one message: a patient has some dozen orders a day.
MAX_GROUPS = 500

_STEP_ID = {"ScheduledProcedureStepID": STEP["ScheduledProcedureStepID"]}
# Segments that belong to an order group, from its ORC or OBR on; other segments are for the whole message.
_GROUPED = ("ORC", "OBR", "TQ1", "IPC", "ZDS", "NTE", "DG1", "OBX")

Identity = dict[str, Any]
"""A PatientID with its issuer, as attributes."""


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """One order of a message. None in `attributes` and in items of `steps`: to be deleted.

    `firm`: the message names the state. `identities` are all identifiers of the patient; `patient` has the
    first of them. `group` counts the message's order groups. `has_detail`: there is an OBR.
    """

    action: Action
    status: OrderStatus
    firm: bool
    identities: tuple[Identity, ...]
    patient: dict[str, Any]
    attributes: dict[str, Any]
    steps: list[dict[str, Any]]
    group: int
    has_detail: bool = True

    def _text(self, keyword: str) -> str:
        return str(self.attributes.get(keyword) or "")

    @property
    def placer(self) -> str:
        """PlacerOrderNumberImagingServiceRequest, empty where missing."""
        return self._text("PlacerOrderNumberImagingServiceRequest")

    @property
    def filler(self) -> str:
        """FillerOrderNumberImagingServiceRequest, empty where missing."""
        return self._text("FillerOrderNumberImagingServiceRequest")

    @property
    def accession(self) -> str:
        """AccessionNumber, empty where missing."""
        return self._text("AccessionNumber")

    @property
    def procedure(self) -> str:
        """RequestedProcedureID, empty where missing."""
        return self._text("RequestedProcedureID")

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID, empty where missing."""
        return self._text("StudyInstanceUID")

    @property
    def numbers(self) -> tuple[str, str, str]:
        """Placer, filler and accession number."""
        return self.placer, self.filler, self.accession

    @property
    def step_ids(self) -> frozenset[str]:
        """The ids of the scheduled steps that are named."""
        ids = (step.get("ScheduledProcedureStepID") for step in self.steps)
        return frozenset(str(step_id) for step_id in ids if step_id)

    @property
    def short_step_ids(self) -> frozenset[str]:
        """The same as the index has them."""
        return frozenset(map(short_id, self.step_ids))


@dataclass(slots=True)
class _Group:
    """An order group: ORC, OBR and their segments. Each IPC is a step."""

    number: int
    segments: dict[str, Segment] = field(default_factory=dict)
    steps: list[Segment] = field(default_factory=list)

    def add(self, name: str, segment: Segment) -> None:
        if name == "IPC":
            self.steps.append(segment)
        self.segments.setdefault(name, segment)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Errors within this are of this group."""
        try:
            yield
        except BadMessage as error:
            error.number = self.number
            raise


def _groups(message: Message) -> tuple[dict[str, Segment], list[_Group]]:
    """Return the segments of the whole message, and its order groups. The only ZDS is for all groups."""
    common: dict[str, Segment] = {}
    groups: list[_Group] = []
    for segment in message.segments:
        name, last = segment.name, groups[-1] if groups else None
        if name == "ORC" or (name == "OBR" and (last is None or "OBR" in last.segments)):
            if len(groups) == MAX_GROUPS:
                raise BadMessage(Code.TOO_LONG, name, f"more than {MAX_GROUPS} orders", reject=True)
            groups.append(_Group(len(groups) + 1))
            # A further OBR without its own ORC belongs to the ORC before.
            if name == "OBR" and last and "ORC" in last.segments:
                groups[-1].add("ORC", last.segments["ORC"])
        if name in _GROUPED and groups:
            groups[-1].add(name, segment)
        else:
            common.setdefault(name, segment)
    studies = [group.segments["ZDS"] for group in groups if "ZDS" in group.segments]
    if len(studies) == 1:
        common["ZDS"] = studies[0]
    return common, groups


def patient_segment(message: Message) -> Segment:
    """Return the only PID. Raises BadMessage where there is none, or several.

    Segments after a second PID would be taken for the first patient's.
    """
    found = message.all("PID")
    if not found:
        raise BadMessage(Code.SEQUENCE, "PID", "the segment is missing")
    if len(found) > 1:
        raise BadMessage(Code.SEQUENCE, "PID", "the message type has one patient", number=2)
    return found[0]


def identities_of(message: Message, pid: Segment, local: str | None, number: int = 1) -> tuple[Identity, ...]:
    """Return the patient identifiers of PID, that of the local authority first. Raises BadMessage: none."""
    found = patient_identity(message, pid, local=local) or patient_identity(message, pid, 2, local=local)
    if not found:
        raise BadMessage(Code.REQUIRED, "PID-3", "a patient identifier is required", number=number)
    return tuple(found)


def requests(message: Message, overrides: Overrides, local: str | None = None) -> list[OrderRequest]:
    """Return the orders of an ORM or OMI, without those whose order control changes nothing.

    Several OBR of one requested procedure are steps of one order. Raises BadMessage, naming the segment.
    """
    common, groups = _groups(message)
    if not groups:
        raise BadMessage(Code.SEQUENCE, "ORC", "the segment is missing")
    identities = identities_of(message, patient_segment(message), local)
    actions = [(group, *_action(message, group)) for group in groups]
    if any(action is Action.REPLACED for _, action, _ in actions) and not any(
        message.value(group.segments.get("ORC"), 1).upper() == "RO" for group in groups
    ):
        raise BadMessage(Code.SEQUENCE, "ORC", "an order is replaced, and none with RO follows")
    found: dict[tuple[Any, ...], OrderRequest] = {}
    for group, action, status in actions:
        if status is None:
            continue
        segments = {**common, **group.segments}
        with group.reading():
            request = _request(message, segments, group, overrides, identities, action, status)
        first = found.setdefault(_procedure(request), request)
        if first is not request:
            first.steps.extend(request.steps)
    return list(found.values())


def _procedure(request: OrderRequest) -> tuple[Any, ...]:
    """Return the key of a requested procedure: OBRs with one key are its steps (IHE RAD TF-2 Section 4.4).

    Without a RequestedProcedureID these are OBRs with all numbers and steps the same.
    """
    key = (request.action, request.status, request.study_uid)
    if request.procedure:
        return (*key, request.procedure, request.accession)
    return (*key, *request.numbers, request.step_ids)


def _request(
    message: Message,
    segments: Mapping[str, Segment],
    group: _Group,
    overrides: Overrides,
    identities: tuple[Identity, ...],
    action: Action,
    status: OrderStatus,
) -> OrderRequest:
    if "OBR" not in segments and action is Action.NEW:
        raise BadMessage(Code.SEQUENCE, "OBR", f"the segment is missing behind ORC {group.number}")
    attributes = read(ORDER, message, segments, overrides)
    # To end a step its id is enough: an invalid date must not keep it on the worklist.
    table = _STEP_ID if action in ENDING else STEP
    parts: list[dict[str, Segment]] = [{"IPC": ipc} for ipc in group.steps] or [{}]
    steps = [read(table, message, {**segments, **part}, overrides) for part in parts]
    patient = {**identities[0], **read(PATIENT, message, segments, overrides)}
    firm = action is Action.STATUS or (action is not Action.NEW and _state(message, group) in STATES)
    steps = [step for step in steps if step]
    request = OrderRequest(
        action, status, firm, identities, patient, attributes, steps, group.number, "OBR" in segments
    )
    if not (any(request.numbers) or request.procedure):
        raise BadMessage(
            Code.REQUIRED, "ORC-2", "a placer, filler, accession or procedure number is required"
        )
    if request.study_uid and not UID.fullmatch(request.study_uid):
        location = "ZDS-1" if "ZDS" in segments else "IPC-3"
        text = f"{request.study_uid[:80]!r} is not a UID of 1 to 64 of [0-9.]"
        raise BadMessage(Code.DATA_TYPE, location, text)
    return request


def _state(message: Message, group: _Group) -> str:
    return message.value(group.segments.get("ORC"), 5).upper()


def _action(message: Message, group: _Group) -> tuple[Action, OrderStatus | None]:
    """Return what is to be done with an order, and its state; None: nothing. Raises BadMessage."""
    orc = group.segments.get("ORC")
    control = message.value(orc, 1).upper() if orc is not None else "NW"
    state = _state(message, group)
    with group.reading():
        if control not in CONTROLS:
            text = f"order control {control!r} is none of {', '.join(CONTROLS)}"
            raise BadMessage(Code.TABLE_VALUE, "ORC-1", text)
        action = CONTROLS[control]
        if action is Action.STATUS and state and state not in STATES:
            text = f"order status {state!r} is none of {', '.join(STATES)}"
            raise BadMessage(Code.TABLE_VALUE, "ORC-5", text)
    return action, None if action is Action.NOTHING else _status(action, state)
