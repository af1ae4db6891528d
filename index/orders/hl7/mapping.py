"""The HL7 fields of each attribute (IHE RAD TF-2 Appendix B); senders can have other fields."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from index.dicom.value_rules import valid_values
from index.orders.hl7.faults import BadMessage, Code
from index.orders.hl7.message import NULL, Message, Path, Segment, parse_path
from index.orders.records import code_item

Segments = Mapping[str, Segment]
"""Segments by name: those of the order group, and those of the whole message."""

Reader = Callable[[Message, Segment, Path], Any]

# YYYYMMDD, then HH, HHMM or HHMMSS, a fraction and a zone (HL7 Section 2.A.75).
_TIMESTAMP = re.compile(
    r"(\d{8})((?:[01]\d|2[0-3])(?:[0-5]\d(?:[0-5]\d|60)?)?)?(?:\.\d+)?(?:[+-]\d{4})?", re.ASCII
)
SEXES = {"F": "F", "M": "M", "O": "O", "A": "O"}
"""PatientSex by HL7 Table 0001; unknown and not applicable are left out."""
PRIORITIES = {"S": "STAT", "A": "HIGH", "P": "HIGH", "C": "HIGH", "T": "MEDIUM", "R": "ROUTINE"}
"""RequestedProcedurePriority by TQ-6 and TQ1-9 (HL7 Section 4.3.6, Table 0485)."""
MODALITIES = {
    "NMR": "MR",
    "RUS": "US",
    "NMS": "NM",
    "VUS": "US",
    "OUS": "US",
    "EC": "US",
    "CUS": "US",
    "XRC": "RF",
}
"""Modality by OBR-24 (HL7 Table 0074), for codes that are not DICOM's."""
# PID-3.5 (HL7 Table 0203): the types of a hospital's patient numbers, the preferred first.
_RECORD_NUMBERS = ("MR", "PI", "PT", "")
# An unescaped delimiter of HL7 may be a delimiter of PN (PS3.5 Section 6.2.1).
_PN_DELIMITERS = re.compile(r"[\\^=]")


def text(message: Message, segment: Segment, at: Path) -> str:
    """Read a component as text."""
    return message.value(segment, at.field, at.component, at.subcomponent)


def person(message: Message, segment: Segment, at: Path) -> str:
    """Read an XPN as a PN; repetitions are its component groups, by XPN-8 (PS3.5 Section 6.2.1)."""
    groups = {"A": "", "I": "", "P": ""}
    for repetition in message.repetitions(segment, at.field):
        code = message.part(repetition, 8)
        group = code if code in groups else "A"
        groups[group] = groups[group] or _name(message, repetition, 1)
    if groups["A"] == NULL:
        return NULL
    return "=".join(groups.values()).rstrip("=")


def staff(message: Message, segment: Segment, at: Path) -> str:
    """Read an XCN as a PN: the name after the identifier, or the first component without a name."""
    repetitions = message.repetitions(segment, at.field)
    if not repetitions:
        return ""
    return _name(message, repetitions[0], 2) or message.part(repetitions[0], 1)


def _name(message: Message, repetition: Any, start: int) -> str:
    """Return a PN: family^given^middle^prefix^suffix; HL7 has the suffix before the prefix."""
    parts = (message.part(repetition, start + n) for n in range(5))
    family, given, middle, suffix, prefix = (_PN_DELIMITERS.sub(" ", part) for part in parts)
    return f"{family}^{given}^{middle}^{prefix}^{suffix}".rstrip("^")


def _date_and_time(value: str) -> tuple[str, str]:
    """Return the date and time of a TS; both empty where the day is missing or not in the calendar."""
    match = _TIMESTAMP.fullmatch(value)
    return (match[1], match[2] or "") if match and valid_values("StudyDate", match[1]) else ("", "")


def date(message: Message, segment: Segment, at: Path) -> str:
    """Read the date of a TS; empty where the day is missing."""
    value = text(message, segment, at)
    return value if value == NULL else _date_and_time(value)[0]


def time(message: Message, segment: Segment, at: Path) -> str:
    """Read the time of a TS, without fraction and zone."""
    return _date_and_time(text(message, segment, at))[1]


def start_date(message: Message, segment: Segment, at: Path) -> str:
    """Read the date that a step is scheduled for. Raises BadMessage: a query by date must find the step."""
    value = text(message, segment, at)
    if value and value != NULL and not _date_and_time(value)[0]:
        allowed = "YYYYMMDD[HH[MM[SS]]] of a day that there is"
        raise BadMessage(Code.DATA_TYPE, f"{at.segment}-{at.field}", f"{value[:40]!r} is not {allowed}")
    return date(message, segment, at)


def ae_titles(message: Message, segment: Segment, at: Path) -> Any:
    """Read AE titles: a text, or a list of several repetitions."""
    parts = (
        message.part(one, at.component, at.subcomponent) for one in message.repetitions(segment, at.field)
    )
    titles = list(dict.fromkeys(part for part in parts if part))
    return titles if len(titles) > 1 else "".join(titles)


def codes(message: Message, segment: Segment, at: Path) -> Any:
    """Read CEs as code items, from their first component on, or as alternates from the fourth on."""
    first = at.component or 1
    items: list[dict[str, str]] = []
    for repetition in message.repetitions(segment, at.field):
        value, meaning, scheme = (message.part(repetition, first + n) for n in range(3))
        if value == NULL:
            return NULL
        items += code_item(value, scheme, meaning)
    return items


def reason_codes(message: Message, segment: Segment, at: Path) -> Any:
    """Read the CEs that name their coding scheme; others are mostly free texts."""
    items = codes(message, segment, at)
    return items if items == NULL else [item for item in items if item["CodingSchemeDesignator"] != "L"]


def translated(table: Mapping[str, str], *, keep_others: bool = False) -> Reader:
    """Return a reader that translates by a table; other values are left out, or kept."""

    def read(message: Message, segment: Segment, at: Path) -> str:
        value = text(message, segment, at)
        return NULL if value == NULL else table.get(value.upper(), value if keep_others else "")

    return read


def issuer(message: Message, segment: Segment, at: Path) -> Any:
    """Read the issuer of an EI: namespace, universal id and its type, after the number."""
    names = ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType")
    values = {name: message.value(segment, at.field, n) for n, name in enumerate(names, start=2)}
    item = {name: value for name, value in values.items() if value}
    return [item] if item else []


@dataclass(frozen=True, slots=True)
class Entry:
    """The paths of an attribute, of which the first with a value counts, and their reader."""

    paths: tuple[Path, ...]
    read: Reader = text


def _entry(paths: str, read: Reader = text) -> Entry:
    return Entry(tuple(map(parse_path, paths.split())), read)


PATIENT: Mapping[str, Entry] = {
    "PatientName": _entry("PID-5", person),
    "PatientBirthDate": _entry("PID-7", date),
    "PatientSex": _entry("PID-8", translated(SEXES)),
    "PatientMotherBirthName": _entry("PID-6", person),
    "EthnicGroup": _entry("PID-22.2"),
    "PatientState": _entry("OBR-12.2 OBR-12.1"),
}

ORDER: Mapping[str, Entry] = {
    "AccessionNumber": _entry("OBR-18 IPC-1.1"),
    "IssuerOfAccessionNumberSequence": _entry("IPC-1", issuer),
    "RequestedProcedureID": _entry("OBR-19 IPC-2.1"),
    "StudyInstanceUID": _entry("ZDS-1.1 IPC-3.1"),
    "PlacerOrderNumberImagingServiceRequest": _entry("ORC-2.1 OBR-2.1"),
    "FillerOrderNumberImagingServiceRequest": _entry("ORC-3.1 OBR-3.1"),
    "OrderPlacerIdentifierSequence": _entry("ORC-2 OBR-2", issuer),
    "OrderFillerIdentifierSequence": _entry("ORC-3 OBR-3", issuer),
    "RequestedProcedureDescription": _entry("OBR-44.2 OBR-4.2 OBR-4.5"),
    "RequestedProcedureCodeSequence": _entry("OBR-44 OBR-4", codes),
    "RequestedProcedurePriority": _entry("TQ1-9 OBR-27.6 ORC-7.6", translated(PRIORITIES)),
    "RequestedProcedureComments": _entry("OBR-39.2 OBR-39.1"),
    "ReasonForTheRequestedProcedure": _entry("OBR-31.2 OBR-31.1"),
    "ReasonForRequestedProcedureCodeSequence": _entry("OBR-31", reason_codes),
    "RequestingPhysician": _entry("OBR-16 ORC-12", staff),
    "ReferringPhysicianName": _entry("PV1-8 OBR-16", staff),
    "RequestingService": _entry("ORC-17.2 ORC-17.1"),
    "OrderEnteredBy": _entry("ORC-10", staff),
    "OrderEntererLocation": _entry("ORC-13.1"),
    "OrderCallbackPhoneNumber": _entry("ORC-14.1 OBR-17.1"),
    "IssueDateOfImagingServiceRequest": _entry("ORC-9", date),
    "IssueTimeOfImagingServiceRequest": _entry("ORC-9", time),
    "AdmissionID": _entry("PV1-19.1 PID-18.1"),
    "CurrentPatientLocation": _entry("PV1-3.1"),
    "PatientTransportArrangements": _entry("OBR-30"),
    "NamesOfIntendedRecipientsOfResults": _entry("OBR-28", staff),
    "ReasonForTheImagingServiceRequest": _entry("ORC-16.2 ORC-16.1"),
}
"""Requested Procedure, Imaging Service Request and Visit modules (PS3.3 C.4.11, C.4.12, C.3)."""

STEP: Mapping[str, Entry] = {
    "ScheduledProcedureStepID": _entry("IPC-4.1 OBR-20"),
    "Modality": _entry("IPC-5.1 OBR-24", translated(MODALITIES, keep_others=True)),
    "ScheduledStationAETitle": _entry("IPC-9 OBR-21", ae_titles),
    "ScheduledStationName": _entry("IPC-7.1"),
    "ScheduledProcedureStepLocation": _entry("IPC-8.2 IPC-8.1"),
    "ScheduledProtocolCodeSequence": _entry("IPC-6 OBR-4.4 OBR-4", codes),
    "ScheduledProcedureStepDescription": _entry("IPC-6.2 OBR-4.5 OBR-4.2"),
    "ScheduledProcedureStepStartDate": _entry("TQ1-7 OBR-36 OBR-27.4 ORC-7.4 OBR-6", start_date),
    "ScheduledProcedureStepStartTime": _entry("TQ1-7 OBR-36 OBR-27.4 ORC-7.4 OBR-6", time),
    "ScheduledPerformingPhysicianName": _entry("OBR-34", staff),
}
"""Items of ScheduledProcedureStepSequence (PS3.3 C.4.10)."""

KEYWORDS = frozenset((*PATIENT, *ORDER, *STEP))
"""The attributes that a sender may have in other fields."""

Overrides = Mapping[str, Path]
"""A sender's own fields, by keyword."""


def read(
    table: Mapping[str, Entry], message: Message, segments: Segments, overrides: Overrides
) -> dict[str, Any]:
    """Return the attributes of a table that are in the segments. None: to be deleted."""
    attributes: dict[str, Any] = {}
    for keyword, entry in table.items():
        for path in (overrides[keyword],) if keyword in overrides else entry.paths:
            segment = segments.get(path.segment)
            value = entry.read(message, segment, path) if segment else ""
            if value:
                attributes[keyword] = None if value == NULL else value
                break
    return attributes


def patient_identity(
    message: Message, segment: Segment, field: int = 3, *, local: str | None = None
) -> list[dict[str, Any]]:
    """Return the patient identifiers (CX) of a field, as PatientID and issuer.

    First that of the `local` authority, then record numbers. Numbers of other types (insurance, passport) are
    left out if there are record numbers: they may be the PatientID of another patient.
    """
    found = []
    for repetition in message.repetitions(segment, field):
        number, namespace = message.part(repetition, 1), message.part(repetition, 4, 1)
        universal, kind = message.part(repetition, 4, 2), message.part(repetition, 4, 3)
        if not number or number == NULL:
            continue
        identity: dict[str, Any] = {"PatientID": number}
        if namespace:
            identity["IssuerOfPatientID"] = namespace
        if universal:
            item = {"UniversalEntityID": universal, "UniversalEntityIDType": kind}
            identity["IssuerOfPatientIDQualifiersSequence"] = [{k: v for k, v in item.items() if v}]
        type_ = message.part(repetition, 5).upper()
        rank = _RECORD_NUMBERS.index(type_) if type_ in _RECORD_NUMBERS else len(_RECORD_NUMBERS)
        found.append((local is None or local not in (namespace, universal), rank, identity))
    found.sort(key=lambda one: one[:2])
    kept = [one for one in found if one[1] < len(_RECORD_NUMBERS)] or found
    # A number without a type and an issuer counts only if there is no other.
    clear = [one for one in kept if one[1] < len(_RECORD_NUMBERS) - 1 or len(one[2]) > 1]
    return [identity for *_, identity in clear or kept]
