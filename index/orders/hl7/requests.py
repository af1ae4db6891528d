"""From a message to the orders that it tells of, each with what is to become of it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from index.dicom.uids import UID
from index.orders.hl7.controls import CONTROLS, ENDING, STATES, Action, status_of
from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.mapping import ORDER, PATIENT, STEP, Entry, Overrides, patient_identity, read
from index.orders.hl7.message import Message, Segment
from index.orders.records import Status

# Orders of one message. A message has one patient, whose orders of a day are some dozen at most.
MAX_GROUPS = 500

# PS3.5 Section 9.1.
_STEP_NAME = {"ScheduledProcedureStepID": STEP["ScheduledProcedureStepID"]}
# Segments that belong to a group from its ORC or OBR on; the others are the message's.
_GROUPED = ("ORC", "OBR", "TQ1", "IPC", "ZDS", "NTE", "DG1", "OBX")

Identity = dict[str, Any]
"""A PatientID with its issuer, as attributes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One order of a message. `attributes` and items of `steps` hold None for what is to be deleted.

    `identities` are all that PID-3 calls the patient; `patient` has the first of them. `firm`: the state is
    what the message says, not what an order has by default. `has_detail`: there is an OBR.
    """

    action: Action
    status: Status
    firm: bool
    identities: tuple[Identity, ...]
    patient: dict[str, Any]
    attributes: dict[str, Any]
    steps: list[dict[str, Any]]
    place: int
    has_detail: bool = True

    def _said(self, keyword: str) -> str:
        return str(self.attributes.get(keyword) or "")

    @property
    def placer(self) -> str:
        """PlacerOrderNumberImagingServiceRequest, empty where missing."""
        return self._said("PlacerOrderNumberImagingServiceRequest")

    @property
    def filler(self) -> str:
        """FillerOrderNumberImagingServiceRequest, empty where missing."""
        return self._said("FillerOrderNumberImagingServiceRequest")

    @property
    def accession(self) -> str:
        """AccessionNumber, empty where missing."""
        return self._said("AccessionNumber")

    @property
    def procedure(self) -> str:
        """RequestedProcedureID, empty where missing."""
        return self._said("RequestedProcedureID")

    @property
    def study_uid(self) -> str:
        """StudyInstanceUID, empty where missing."""
        return self._said("StudyInstanceUID")

    @property
    def step_ids(self) -> frozenset[str]:
        """The scheduled steps that are named."""
        return frozenset(
            str(step["ScheduledProcedureStepID"])
            for step in self.steps
            if step.get("ScheduledProcedureStepID")
        )


@dataclass(slots=True)
class _Group:
    """ORC, OBR and what follows them; several IPC are several steps."""

    number: int
    segments: dict[str, Segment] = field(default_factory=dict)
    steps: list[Segment] = field(default_factory=list)

    def add(self, name: str, segment: Segment) -> None:
        if name == "IPC":
            self.steps.append(segment)
        self.segments.setdefault(name, segment)


def _groups(message: Message) -> tuple[dict[str, Segment], list[_Group]]:
    """Return the message's own segments, and its groups. A ZDS that stands alone at the end is for all."""
    common: dict[str, Segment] = {}
    groups: list[_Group] = []
    for name, segment in message.segments():
        last = groups[-1] if groups else None
        if name == "ORC" or (name == "OBR" and (last is None or "OBR" in last.segments)):
            # A further OBR without an ORC of its own is ordered by the one before.
            before = (
                {}
                if name == "ORC" or last is None
                else {k: v for k, v in last.segments.items() if k == "ORC"}
            )
            if len(groups) == MAX_GROUPS:
                raise BadMessage(Code.TOO_LONG, name, f"more than {MAX_GROUPS} orders", reject=True)
            groups.append(_Group(len(groups) + 1, before))
        if name in _GROUPED and groups:
            groups[-1].add(name, segment)
        else:
            common.setdefault(name, segment)
    studies = [group.segments["ZDS"] for group in groups if "ZDS" in group.segments]
    if len(studies) == 1:
        common["ZDS"] = studies[0]
    return common, groups


def patient_segment(message: Message) -> Segment:
    """Return the one PID. Raises BadMessage where there is none, or several.

    What follows a second PID would be the first one's.
    """
    found = message.all("PID")
    if not found:
        raise BadMessage(Code.SEQUENCE, "PID", "the segment is missing")
    if len(found) > 1:
        raise BadMessage(Code.SEQUENCE, "PID", "the message type has one patient", number=2)
    return found[0]


def identities_of(message: Message, pid: Segment, local: str | None, number: int = 1) -> tuple[Identity, ...]:
    """Return what PID calls the patient, the identifier that is ours first. Raises BadMessage: none."""
    found = patient_identity(message, pid, local=local) or patient_identity(message, pid, 2, local=local)
    if not found:
        raise BadMessage(Code.REQUIRED, "PID-3", "a patient identifier is required", number=number)
    return tuple(found)


def requests(message: Message, overrides: Overrides, local: str | None = None) -> list[Request]:
    """Return the orders of an ORM or OMI: OBRs of one requested procedure are steps of one order.

    Those whose order control changes nothing are left out. Raises BadMessage, naming the segment.
    """
    common, groups = _groups(message)
    if not groups:
        raise BadMessage(Code.SEQUENCE, "ORC", "the segment is missing")
    pid = patient_segment(message)
    identities = identities_of(message, pid, local)
    said = [(group, _action(message, group)) for group in groups]
    if any(action is Action.REPLACED for _, (action, _) in said) and not any(
        message.value(group.segments.get("ORC"), 1).upper() == "RO" for group, _ in said
    ):
        raise BadMessage(Code.SEQUENCE, "ORC", "an order is replaced, and none with RO follows")
    made: dict[tuple[Any, ...], Request] = {}
    for group, (action, status) in said:
        if status is None:
            continue
        segments = {**common, **group.segments}
        request = _request(message, segments, group, overrides, identities, action, status)
        key = _procedure(request)
        if key in made:
            made[key].steps.extend(request.steps)
        else:
            made[key] = request
    return list(made.values())


def _procedure(request: Request) -> tuple[Any, ...]:
    """Return what makes two OBRs steps of one requested procedure (IHE RAD TF-2 Section 4.4).

    Without a RequestedProcedureID they are one where all their numbers are the same, and the step.
    """
    told = (request.action, request.status, request.study_uid)
    if request.procedure:
        return (*told, request.procedure, request.accession)
    return (*told, request.placer, request.filler, request.accession, request.step_ids)


def _request(
    message: Message,
    segments: Mapping[str, Segment],
    group: _Group,
    overrides: Overrides,
    identities: tuple[Identity, ...],
    action: Action,
    status: Status,
) -> Request:
    if "OBR" not in segments and action is Action.NEW:
        raise BadMessage(
            Code.SEQUENCE, "OBR", f"the segment is missing behind ORC {group.number}", number=group.number
        )
    try:
        attributes = read(ORDER, message, segments, overrides)
        # To end a step its name is enough; a date that cannot be read does not keep it on the worklist.
        wanted = _STEP_NAME if action in ENDING else STEP
        steps = list(_steps(message, segments, group, wanted, overrides))
        patient = {**identities[0], **read(PATIENT, message, segments, overrides)}
    except BadMessage as error:
        error.number = group.number
        raise
    firm = action is Action.STATUS or (action is not Action.NEW and _state(message, group) in STATES)
    request = Request(
        action, status, firm, identities, patient, attributes, steps, group.number, "OBR" in segments
    )
    if not any((request.placer, request.filler, request.procedure, request.accession)):
        raise BadMessage(
            Code.REQUIRED,
            "ORC-2",
            "a placer, filler, accession or procedure number is required",
            number=group.number,
        )
    _check_uid(request.study_uid, segments, group.number)
    return request


def _check_uid(uid: str, segments: Mapping[str, Segment], number: int) -> None:
    if uid and not UID.fullmatch(uid):
        place = "ZDS-1" if "ZDS" in segments else "IPC-3"
        raise BadMessage(Code.DATA_TYPE, place, f"{uid[:80]!r} is no UID of 1 to 64 of [0-9.]", number=number)


def _state(message: Message, group: _Group) -> str:
    return message.value(group.segments.get("ORC"), 5).upper()


def _action(message: Message, group: _Group) -> tuple[Action, Status | None]:
    """Return what is to be done with an order, and its state; None where nothing is. Raises BadMessage."""
    orc = group.segments.get("ORC")
    control = message.value(orc, 1).upper() if orc is not None else "NW"
    if control not in CONTROLS:
        raise BadMessage(
            Code.TABLE_VALUE,
            "ORC-1",
            f"order control {control!r} is none of {', '.join(CONTROLS)}",
            number=group.number,
        )
    action = CONTROLS[control]
    if action is Action.NOTHING:
        return action, None
    said = _state(message, group)
    if action is Action.STATUS and said and said not in STATES:
        raise BadMessage(
            Code.TABLE_VALUE,
            "ORC-5",
            f"order status {said!r} is none of {', '.join(STATES)}",
            number=group.number,
        )
    return action, status_of(action, said)


def _steps(
    message: Message,
    segments: Mapping[str, Segment],
    group: _Group,
    wanted: Mapping[str, Entry],
    overrides: Overrides,
) -> Iterator[dict[str, Any]]:
    for own in [{"IPC": ipc} for ipc in group.steps] or [{}]:
        step = read(wanted, message, {**segments, **own}, overrides)
        if step:
            yield step
