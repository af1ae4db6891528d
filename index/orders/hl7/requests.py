"""From a message to what it asks for: orders to keep or to end, patients to update or to merge."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.mapping import ORDER, PATIENT, STEP, Overrides, patient_identity, read
from index.orders.hl7.message import Message
from index.orders.records import Status

CONTROLS: Mapping[str, Status | None] = {
    **dict.fromkeys(("NW", "XO", "XX", "RO", "RP", "RU", "SN", "PA", "CH"), Status.SCHEDULED),
    **dict.fromkeys(("CA", "OC", "CR"), Status.CANCELLED),
    **dict.fromkeys(("DC", "OD", "DR"), Status.DISCONTINUED),
    "SC": None,
    "SR": None,
}
"""What ORC-1 (HL7 Table 0119) makes of an order; where None, ORC-5 says it."""

NEW = ("NW", "SN", "RO", "PA", "CH")
STATES: Mapping[str, Status] = {
    "SC": Status.SCHEDULED,
    "HD": Status.SCHEDULED,
    "IP": Status.STARTED,
    "A": Status.STARTED,
    "CM": Status.COMPLETED,
    "CA": Status.CANCELLED,
    "RP": Status.CANCELLED,
    "DC": Status.DISCONTINUED,
    "ER": Status.DISCONTINUED,
}
"""By ORC-5 (HL7 Table 0038)."""

# PS3.5 Section 9.1.
_UID = re.compile(r"[0-9.]{1,64}")
# Segments that belong to a group from its ORC or OBR on; the others are the message's.
_GROUPED = ("ORC", "OBR", "TQ1", "IPC", "ZDS", "NTE", "DG1", "OBX")


@dataclass(frozen=True, slots=True)
class Request:
    """One order of a message. `attributes` and items of `steps` hold None for what is to be deleted."""

    status: Status
    is_new: bool
    patient: dict[str, Any]
    attributes: dict[str, Any]
    steps: list[dict[str, Any]]
    place: int

    @property
    def numbers(self) -> tuple[str, str, str]:
        """Placer number, filler number and requested procedure id; empty where missing."""
        names = ("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest")
        placer, filler, procedure = (
            str(self.attributes.get(n) or "") for n in (*names, "RequestedProcedureID")
        )
        return placer, filler, procedure


@dataclass(slots=True)
class _Group:
    """ORC, OBR and what follows them; several IPC are several steps."""

    number: int
    segments: dict[str, Any] = field(default_factory=dict)
    steps: list[Any] = field(default_factory=list)

    def add(self, name: str, segment: Any) -> None:
        if name == "IPC":
            self.steps.append(segment)
        self.segments.setdefault(name, segment)


def _groups(message: Message) -> tuple[dict[str, Any], list[_Group]]:
    """Return the message's own segments, and its groups. A ZDS that stands alone at the end is for all."""
    common: dict[str, Any] = {}
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
            groups.append(_Group(len(groups) + 1, before))
        if name in _GROUPED and groups:
            groups[-1].add(name, segment)
        else:
            common.setdefault(name, segment)
    studies = [group.segments["ZDS"] for group in groups if "ZDS" in group.segments]
    if len(studies) == 1:
        common["ZDS"] = studies[0]
    return common, groups


def patient_of(
    message: Message, overrides: Overrides, segments: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the patient of PID. Raises BadMessage where there is no PID, or no identifier in it."""
    pid = message.first("PID")
    if pid is None:
        raise BadMessage(Code.SEQUENCE, "PID", "the segment is missing")
    identities = patient_identity(message, pid) or patient_identity(message, pid, 2)
    if not identities:
        raise BadMessage(Code.REQUIRED, "PID-3", "a patient identifier is required")
    return {**identities[0], **read(PATIENT, message, {"PID": pid, **(segments or {})}, overrides)}


def requests(message: Message, overrides: Overrides) -> list[Request]:
    """Return the orders of an ORM or OMI: OBRs of one requested procedure are steps of one order.

    Raises BadMessage, naming the segment.
    """
    common, groups = _groups(message)
    if not groups:
        raise BadMessage(Code.SEQUENCE, "ORC", "the segment is missing")
    made: dict[tuple[str, ...], Request] = {}
    for group in groups:
        request = _request(message, {**common, **group.segments}, group, overrides)
        key = _procedure(request)
        if key in made:
            made[key].steps.extend(request.steps)
        else:
            made[key] = request
    return list(made.values())


def _procedure(request: Request) -> tuple[str, ...]:
    """Return what makes two OBRs steps of one requested procedure (IHE RAD TF-2 Section 4.4)."""
    accession = str(request.attributes.get("AccessionNumber") or "")
    placer, filler, procedure = request.numbers
    return (
        (request.status, procedure, accession) if procedure else (request.status, placer, filler, accession)
    )


def _request(message: Message, segments: Mapping[str, Any], group: _Group, overrides: Overrides) -> Request:
    status, control = _status(message, segments, group.number)
    if "OBR" not in segments and control in NEW:
        raise BadMessage(
            Code.SEQUENCE, "OBR", f"the segment is missing behind ORC {group.number}", number=group.number
        )
    attributes = read(ORDER, message, segments, overrides)
    request = Request(
        status,
        control in NEW,
        patient_of(message, overrides, segments),
        attributes,
        list(_steps(message, segments, group, overrides)),
        group.number,
    )
    if not any(request.numbers) and not attributes.get("AccessionNumber"):
        raise BadMessage(
            Code.REQUIRED,
            "ORC-2",
            "a placer, filler, accession or procedure number is required",
            number=group.number,
        )
    _check_uid(attributes.get("StudyInstanceUID"), segments, group.number)
    return request


def _check_uid(uid: str | None, segments: Mapping[str, Any], number: int) -> None:
    if uid and not _UID.fullmatch(uid):
        place = "ZDS-1" if "ZDS" in segments else "IPC-3"
        raise BadMessage(Code.DATA_TYPE, place, f"{uid[:80]!r} is no UID of 1 to 64 of [0-9.]", number=number)


def _status(message: Message, segments: Mapping[str, Any], number: int) -> tuple[Status, str]:
    orc = segments.get("ORC")
    control = message.value(orc, 1).upper() if orc is not None else "NW"
    if control not in CONTROLS:
        allowed = ", ".join(CONTROLS)
        raise BadMessage(
            Code.TABLE_VALUE, "ORC-1", f"order control {control!r} is none of {allowed}", number=number
        )
    status = CONTROLS[control]
    if status is None:
        said = message.value(orc, 5).upper()
        if said not in STATES:
            raise BadMessage(
                Code.TABLE_VALUE,
                "ORC-5",
                f"order status {said!r} is none of {', '.join(STATES)}",
                number=number,
            )
        status = STATES[said]
    return status, control


def _steps(
    message: Message, segments: Mapping[str, Any], group: _Group, overrides: Overrides
) -> Iterator[dict[str, Any]]:
    for ipc in group.steps or [None]:
        step = read(STEP, message, {**segments, "IPC": ipc} if ipc is not None else segments, overrides)
        if step:
            yield step


def merges(message: Message) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the pairs of old and surviving patient of a merge: each MRG goes with the PID before it.

    Raises BadMessage, naming the segment.
    """
    made: list[tuple[dict[str, Any], dict[str, Any]]] = []
    pid: Any = None
    for name, segment in message.segments():
        if name == "PID":
            pid = segment
        elif name == "MRG":
            number = len(made) + 1
            survivors = patient_identity(message, pid) if pid is not None else []
            if not survivors:
                raise BadMessage(
                    Code.REQUIRED, "PID-3", "the surviving patient's identifier is required", number=number
                )
            olds = patient_identity(message, segment, 1)
            if not olds:
                raise BadMessage(
                    Code.REQUIRED, "MRG-1", "the old patient's identifier is required", number=number
                )
            survivor = {**survivors[0], **read(PATIENT, message, {"PID": pid}, {})}
            made += [(old, survivor) for old in olds]
    if not made:
        raise BadMessage(Code.SEQUENCE, "MRG", "the segment is missing")
    return made
