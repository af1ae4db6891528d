"""One audit message as XML by the schema of PS3.15 Section A.5.1.1.

An event is built where it happens, and written by the thread of the trail. A patient is named by ID alone:
the name would travel to one more system, and nobody needs it to find the patient.
"""

import base64
import ipaddress
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from index import ReceivedStudy
from scp.observing.audit.codes import (
    APPLICATION_SERVER,
    PATIENT_NUMBER,
    STUDY_INSTANCE_UID,
    AccessPoint,
    Action,
    Code,
    ObjectType,
    Outcome,
    Role,
)

LONGEST_TEXT = 1000
"""Characters of one value: what comes from outside has no end."""
UNKNOWN = "unknown"
NO_PATIENT = "<none>"
"""ParticipantObjectID of a patient without an ID: the element may not be left out."""

# What XML 1.0 cannot hold (Section 2.2).
_UNPRINTABLE = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, slots=True)
class Party:
    """An ActiveParticipant: a user, process or node. `address`: where it calls from; empty: this machine."""

    user_id: str
    role: Code | None = None
    aet: str = ""
    address: str = ""
    is_requestor: bool = False


@dataclass(frozen=True, slots=True)
class StudyObject:
    """A study that took part, and its patient. `patient_id` None: still to be looked up, as the rest.

    `looked_up`: the study, series or instance that is looked up; empty: the study.
    """

    uid: str
    patient_id: str | None = None
    accession: str = ""
    classes: Mapping[str, int] = field(default_factory=dict)
    looked_up: str = ""


@dataclass(frozen=True, slots=True)
class OtherObject:
    """Something else that took part. `details`: by type; `query`: what was asked."""

    id: str
    kind: Code
    role: Role
    name: str = ""
    query: bytes | None = None
    details: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """Something that happened. `at` in ms since 1970."""

    event: Code
    action: Action
    parties: tuple[Party, ...]
    type: Code | None = None
    outcome: Outcome = Outcome.SUCCESS
    why: str = ""
    study: StudyObject | None = None
    others: tuple[OtherObject, ...] = ()
    # What came of the instances that were received: it is known once they are indexed.
    received: ReceivedStudy | None = None
    at: int = field(default_factory=lambda: time.time_ns() // 1_000_000)


@dataclass(frozen=True, slots=True)
class Source:
    """AuditSourceIdentification: who reports. `aet`: our AE title."""

    id: str
    site: str
    aet: str

    def ours(self, role: Code | None = None, *, is_requestor: bool = False) -> Party:
        """Return this process as a participant (PS3.15 Section A.5.2.1: by its process ID)."""
        return Party(str(os.getpid()), role, self.aet, "", is_requestor)


def message(event: AuditEvent, source: Source) -> bytes:
    """Return the XML of an event."""
    root = ET.Element("AuditMessage")
    identification = ET.SubElement(
        root,
        "EventIdentification",
        EventActionCode=event.action,
        EventDateTime=datetime.fromtimestamp(event.at / 1000, UTC).isoformat(timespec="milliseconds"),
        EventOutcomeIndicator=event.outcome,
    )
    _code(identification, "EventID", event.event)
    if event.type:
        _code(identification, "EventTypeCode", event.type)
    if event.why:
        ET.SubElement(identification, "EventOutcomeDescription").text = _text(event.why)
    for party in event.parties:
        _party(root, party)
    reported = ET.SubElement(root, "AuditSourceIdentification", AuditSourceID=_text(source.id))
    if source.site:
        reported.set("AuditEnterpriseSiteID", _text(source.site))
    ET.SubElement(reported, "AuditSourceTypeCode", {"csd-code": APPLICATION_SERVER})
    if event.study:
        _study(root, event.study)
    for other in event.others:
        _other(root, other)
    return bytes(ET.tostring(root, encoding="utf-8", xml_declaration=False))


def _party(root: ET.Element, party: Party) -> None:
    node = ET.SubElement(root, "ActiveParticipant", UserID=_text(party.user_id) or UNKNOWN)
    if party.aet:
        # PS3.15 Section A.5.2.2.
        node.set("AlternativeUserID", f"AETITLES={_text(party.aet)}")
    node.set("UserIsRequestor", str(party.is_requestor).lower())
    address = _text(party.address) or socket.gethostname()
    node.set("NetworkAccessPointID", address)
    node.set("NetworkAccessPointTypeCode", _kind_of(address))
    if party.role:
        _code(node, "RoleIDCode", party.role)


def _kind_of(address: str) -> AccessPoint:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return AccessPoint.MACHINE_NAME
    return AccessPoint.ADDRESS


def _study(root: ET.Element, study: StudyObject) -> None:
    node = _object(root, study.uid, ObjectType.SYSTEM, Role.REPORT, STUDY_INSTANCE_UID)
    ET.SubElement(node, "ParticipantObjectName").text = _text(study.uid) or UNKNOWN
    if study.classes or study.accession:
        described = ET.SubElement(node, "ParticipantObjectDescription")
        if study.accession:
            ET.SubElement(described, "Accession", Number=_text(study.accession))
        for uid, count in sorted(study.classes.items()):
            ET.SubElement(described, "SOPClass", UID=_text(uid), NumberOfInstances=str(count))
    patient = study.patient_id or NO_PATIENT
    node = _object(root, patient, ObjectType.PERSON, Role.PATIENT, PATIENT_NUMBER)
    ET.SubElement(node, "ParticipantObjectName").text = _text(patient)


def _other(root: ET.Element, other: OtherObject) -> None:
    node = _object(root, other.id, ObjectType.SYSTEM, other.role, other.kind)
    if other.query is None:
        ET.SubElement(node, "ParticipantObjectName").text = _text(other.name or other.id) or UNKNOWN
    else:
        ET.SubElement(node, "ParticipantObjectQuery").text = base64.b64encode(other.query).decode()
    for kind, value in other.details.items():
        encoded = base64.b64encode(value).decode()
        ET.SubElement(node, "ParticipantObjectDetail", type=kind, value=encoded)


def _object(root: ET.Element, name: str, kind: ObjectType, role: Role, of: Code) -> ET.Element:
    node = ET.SubElement(
        root,
        "ParticipantObjectIdentification",
        ParticipantObjectID=_text(name) or UNKNOWN,
        ParticipantObjectTypeCode=kind,
        ParticipantObjectTypeCodeRole=role,
    )
    _code(node, "ParticipantObjectIDTypeCode", of)
    return node


def _code(node: ET.Element, name: str, code: Code) -> None:
    value = {"csd-code": code.value, "codeSystemName": code.system}
    ET.SubElement(node, name, value | {"displayName": code.meaning, "originalText": code.meaning})


def _text(text: str) -> str:
    """Return a text as XML can hold it."""
    return _UNPRINTABLE.sub("\ufffd", text[:LONGEST_TEXT])
