"""FHIR R4 ServiceRequest with its Patient, contained or in one Bundle, as an order."""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from typing import Any

from index.dicom.uids import UID
from index.orders.records import (
    NewOrder,
    OrderStatus,
    Source,
    clean_text,
    code_item,
    date_and_time_now,
    non_empty,
)

STATUSES: Mapping[str, OrderStatus] = {
    "draft": OrderStatus.SCHEDULED,
    "active": OrderStatus.SCHEDULED,
    "on-hold": OrderStatus.SCHEDULED,
    "unknown": OrderStatus.SCHEDULED,
    "revoked": OrderStatus.CANCELLED,
    "entered-in-error": OrderStatus.CANCELLED,
    "completed": OrderStatus.COMPLETED,
}
"""By ServiceRequest.status (request-status)."""
PRIORITIES = {"stat": "STAT", "asap": "HIGH", "urgent": "HIGH", "routine": "ROUTINE"}
"""RequestedProcedurePriority by ServiceRequest.priority."""
GENDERS = {"male": "M", "female": "F", "other": "O"}
"""PatientSex by Patient.gender."""
NUMBERS = {
    "PLAC": "PlacerOrderNumberImagingServiceRequest",
    "FILL": "FillerOrderNumberImagingServiceRequest",
    "ACSN": "AccessionNumber",
}
"""By Identifier.type (HL7 Table 0203)."""
SCHEMES = {
    "http://snomed.info/sct": "SCT",
    "http://loinc.org": "LN",
    "http://dicom.nema.org/resources/ontology/DCM": "DCM",
    "http://www.radlex.org": "RADLEX",
}
"""CodingSchemeDesignator by Coding.system (PS3.16 Section 8)."""
_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_UIDS = "urn:dicom:uid"
_DATE_TIME = re.compile(r"(\d{4}-\d{2}-\d{2})(?:T(\d{2}):(\d{2})(?::([0-5]\d|60))?.*)?", re.ASCII)
# Characters of a wrong value in an error message.
_SHOWN = 60


class BadResource(ValueError):
    """Raised when a resource is not an order; the text names the element and what is allowed."""


class Element:
    """An object of a resource, read by the names of its children; a missing child is empty.

    Raises BadResource where a child has another type than in FHIR.
    """

    def __init__(self, path: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise BadResource(f"{path}: must be an object")
        self.path = path
        self.value = value

    def text(self, name: str) -> str:
        """Return a child that is a string (a FHIR primitive other than number and boolean)."""
        return self._text(name, self.value.get(name))

    def texts(self, name: str) -> list[str]:
        """Return a child that is a list of strings; null is a string that only has an extension."""
        return [self._text(name, one) for one in self._list(name) if one is not None]

    def one(self, name: str) -> "Element":
        """Return a child that is an object."""
        value = self.value.get(name)
        return Element(f"{self.path}.{name}", {} if value is None else value)

    def many(self, name: str) -> list["Element"]:
        """Return a child that is a list of objects."""
        return [Element(f"{self.path}.{name}[{n}]", one) for n, one in enumerate(self._list(name))]

    def _list(self, name: str) -> list[Any]:
        value = self.value.get(name)
        if value is not None and not isinstance(value, list):
            raise BadResource(f"{self.path}.{name}: must be a list")
        return value or []

    def _text(self, name: str, value: Any) -> str:
        if value is not None and not isinstance(value, str):
            raise BadResource(f"{self.path}.{name}: must be a string")
        return clean_text(value or "")


ReferencedResources = Mapping[str, Element | None]
"""Resources by their references; None for a reference to two different resources."""


def orders_of(resource: Any, sender: str = "") -> list[NewOrder]:
    """Return the orders of a ServiceRequest, or of all in a Bundle. Raises BadResource."""
    if not isinstance(resource, Mapping):
        raise BadResource("is not a FHIR resource: a JSON object is needed")
    named = resource.get("resourceType")
    root = Element(str(named)[:_SHOWN] if named else "resource", resource)
    kind = root.text("resourceType")
    entries = root.many("entry") if kind == "Bundle" else []
    others = [entry.one("resource") for entry in entries]
    requests = [one for one in (root, *others) if one.text("resourceType") == "ServiceRequest"]
    if not requests:
        raise BadResource(
            f"resourceType {kind[:_SHOWN]!r}: a ServiceRequest, or a Bundle with one, is needed"
        )
    by_url = ((entry.text("fullUrl"), one) for entry, one in zip(entries, others, strict=True))
    by_id = ((f"{one.text('resourceType')}/{one.text('id')}", one) for one in others if one.text("id"))
    known = _by_reference((*by_url, *by_id))
    return [_order(one, known, sender) for one in requests]


def _by_reference(named: Iterable[tuple[str, Element]]) -> dict[str, Element | None]:
    """Return resources by reference; None where two of them have the same one: they may be two patients."""
    known: dict[str, Element | None] = {}
    for name, one in named:
        if name:
            other = known.get(name, one)
            known[name] = one if other and other.value == one.value else None
    return known


def _order(request: Element, in_bundle: ReferencedResources, sender: str) -> NewOrder:
    contained = [one for one in request.many("contained") if one.text("id")]
    known = {**in_bundle, **_by_reference((f"#{one.text('id')}", one) for one in contained)}
    status = request.text("status") or "unknown"
    if status not in STATUSES:
        raise BadResource(f"ServiceRequest.status {status[:_SHOWN]!r} is none of {', '.join(STATUSES)}")
    attributes = _attributes(request, known)
    identity = request.text("id") or next((attributes[k] for k in NUMBERS.values() if k in attributes), "")
    if not identity:
        raise BadResource("ServiceRequest has neither id nor an identifier of type PLAC, FILL or ACSN")
    reference = request.one("subject").text("reference")
    patient = known.get(reference)
    if patient is None or patient.text("resourceType") != "Patient":
        raise BadResource(
            f"ServiceRequest.subject {reference[:_SHOWN]!r} is not a Patient, contained or in the same Bundle"
        )
    return NewOrder(
        Source.FHIR,
        sender,
        identity,
        _patient(patient),
        attributes,
        [_step(request, known)],
        STATUSES[status],
        "ISO_IR 192",
    )


def _patient(patient: Element) -> dict[str, Any]:
    identifiers = [one for one in patient.many("identifier") if one.text("value")]
    if not identifiers:
        raise BadResource("Patient.identifier: one with a value is needed")
    first = next((one for one in identifiers if "MR" in _codes(one.one("type"))), identifiers[0])
    names = patient.many("name")
    official = [one for one in names if one.text("use") == "official"]
    return non_empty(
        {
            "PatientID": first.text("value"),
            **_issuer(first),
            "PatientName": next(map(person_name, official or names), ""),
            "PatientBirthDate": date_and_time(patient.text("birthDate"))[0],
            "PatientSex": GENDERS.get(patient.text("gender"), ""),
        }
    )


def _issuer(identifier: Element) -> dict[str, Any]:
    """Return the issuer of an identifier whose system is an OID; DICOM has no form for other systems."""
    system = identifier.text("system")
    if not system.startswith("urn:oid:"):
        return {}
    item = {"UniversalEntityID": system.removeprefix("urn:oid:"), "UniversalEntityIDType": "ISO"}
    return {"IssuerOfPatientIDQualifiersSequence": [item]}


def person_name(name: Element) -> str:
    """Return a HumanName as a PN (PS3.5 Section 6.2.1)."""
    given = name.texts("given")
    parts = (
        name.text("family") or ("" if given else name.text("text")),
        given[0] if given else "",
        " ".join(given[1:]),
        " ".join(name.texts("prefix")),
        " ".join(name.texts("suffix")),
    )
    return "^".join(part.replace("^", " ").replace("=", " ").replace("\\", " ") for part in parts).rstrip("^")


def _codes(concept: Element) -> list[str]:
    return [one.text("code") for one in concept.many("coding")]


def _numbers(request: Element) -> dict[str, str]:
    """Return the numbers of an order, and the UID of its study if it is valid."""
    made: dict[str, str] = {}
    for one in request.many("identifier"):
        value = one.text("value")
        for code in _codes(one.one("type")):
            if code in NUMBERS and value:
                made.setdefault(NUMBERS[code], value)
        uid = value.removeprefix("urn:oid:")
        if one.text("system") == _UIDS and UID.fullmatch(uid):
            made.setdefault("StudyInstanceUID", uid)
    return made


def _attributes(request: Element, known: ReferencedResources) -> dict[str, Any]:
    made = _numbers(request)
    concept, reasons = request.one("code"), request.many("reasonCode")
    requester = _person(request.one("requester"), known)
    date, time = date_and_time(request.text("authoredOn"))
    number = made.get("FillerOrderNumberImagingServiceRequest") or request.text("id")
    return non_empty(
        {
            **made,
            "RequestedProcedureID": number,
            "RequestedProcedureDescription": _text(concept),
            "RequestedProcedureCodeSequence": _code_items(concept),
            "RequestedProcedurePriority": PRIORITIES.get(request.text("priority"), ""),
            "ReasonForTheRequestedProcedure": next(map(_text, reasons), ""),
            "ReasonForRequestedProcedureCodeSequence": [item for one in reasons for item in _code_items(one)],
            "RequestingPhysician": requester,
            "ReferringPhysicianName": requester,
            "IssueDateOfImagingServiceRequest": date,
            "IssueTimeOfImagingServiceRequest": time,
            "RequestedProcedureComments": " ".join(one.text("text") for one in request.many("note")),
        }
    )


def _person(reference: Element, known: ReferencedResources) -> str:
    person = known.get(reference.text("reference"))
    names = person.many("name") if person else []
    return person_name(names[0]) if names else reference.text("display")


def _step(request: Element, known: ReferencedResources) -> dict[str, Any]:
    date, time = _scheduled(request)
    details = [one for concept in request.many("orderDetail") for one in concept.many("coding")]
    modality = next((one.text("code") for one in details if one.text("system") == _DCM), "")
    stations = list(filter(None, (_station(one, known) for one in request.many("performer"))))
    return non_empty(
        {
            "Modality": modality,
            "ScheduledStationAETitle": stations[0] if len(stations) == 1 else stations,
            "ScheduledProcedureStepStartDate": date,
            "ScheduledProcedureStepStartTime": time,
            "ScheduledProcedureStepDescription": _text(request.one("code")),
            "ScheduledProtocolCodeSequence": _code_items(request.one("code")),
        }
    )


def _scheduled(request: Element) -> tuple[str, str]:
    """Return the date and time of a step; the present where there is none: a query by date must find it."""
    name, when = "occurrenceDateTime", request.text("occurrenceDateTime")
    if not when:
        name, when = "occurrencePeriod.start", request.one("occurrencePeriod").text("start")
    if not when:
        return date_and_time_now()
    date, time = date_and_time(when)
    if not date:
        raise BadResource(f"ServiceRequest.{name} {when[:_SHOWN]!r}: a date like 2026-01-31 is needed")
    return date, time


def _station(performer: Element, known: ReferencedResources) -> str:
    """Return the AE title of a performer that is a device; empty for other performers."""
    reference = performer.text("reference")
    if "Device" not in reference and performer.text("type") != "Device":
        return ""
    device = known.get(reference)
    identifiers = device.many("identifier") if device else []
    return next((one.text("value") for one in identifiers), "") or performer.one("identifier").text("value")


def date_and_time(value: str) -> tuple[str, str]:
    """Return a FHIR dateTime as DA and TM; both empty where it is not a full date."""
    match = _DATE_TIME.fullmatch(value)
    if not match:
        return "", ""
    day, hour, minute, second = match.groups()
    try:
        dt.date.fromisoformat(day)
        dt.time(int(hour or 0), int(minute or 0))
    except ValueError:
        return "", ""
    return day.replace("-", ""), f"{hour}{minute}{second or '00'}" if hour else ""


def _text(concept: Element) -> str:
    return concept.text("text") or next((one.text("display") for one in concept.many("coding")), "")


def _code_items(concept: Element) -> list[dict[str, str]]:
    return [
        item
        for one in concept.many("coding")
        for item in code_item(one.text("code"), SCHEMES.get(one.text("system"), ""), one.text("display"))
    ]
