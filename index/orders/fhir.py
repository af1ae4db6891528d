"""FHIR R4 ServiceRequest with its Patient, contained or in one Bundle, as an order."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from index.orders.records import NewOrder, Source, Status, is_date

Resource = Mapping[str, Any]

STATUSES: Mapping[str, Status] = {
    "draft": Status.SCHEDULED,
    "active": Status.SCHEDULED,
    "on-hold": Status.SCHEDULED,
    "unknown": Status.SCHEDULED,
    "revoked": Status.CANCELLED,
    "entered-in-error": Status.CANCELLED,
    "completed": Status.COMPLETED,
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
_MOMENT = re.compile(r"(\d{4})-(\d{2})-(\d{2})(?:T(\d{2}):(\d{2})(?::(\d{2}))?.*)?")
_LONGEST_CODE = 16


class BadResource(ValueError):
    """A resource that is no order; the text names the element and what is allowed."""


def orders_of(resource: Any, sender: str = "") -> list[NewOrder]:
    """Return the orders of a ServiceRequest, or of all in a Bundle. Raises BadResource."""
    if not isinstance(resource, Mapping):
        raise BadResource("is no FHIR resource: a JSON object is needed")
    kind = resource.get("resourceType")
    beside = {}
    if kind == "Bundle":
        entries = [one for one in resource.get("entry") or () if isinstance(one, Mapping)]
        others = [(entry.get("fullUrl"), entry.get("resource") or {}) for entry in entries]
        beside = {
            name: one for url, one in others for name in (url, f"{one.get('resourceType')}/{one.get('id')}")
        }
        asked = [one for _, one in others if one.get("resourceType") == "ServiceRequest"]
    else:
        asked = [resource] if kind == "ServiceRequest" else []
    if not asked:
        raise BadResource(f"resourceType {kind!r}: a ServiceRequest, or a Bundle with one, is needed")
    return [_order(one, beside, sender) for one in asked]


def _order(request: Resource, beside: Mapping[Any, Resource], sender: str) -> NewOrder:
    contained = {f"#{one.get('id')}": one for one in request.get("contained") or ()}
    known = {**beside, **contained}
    status = request.get("status", "unknown")
    if status not in STATUSES:
        raise BadResource(f"ServiceRequest.status {status!r} is none of {', '.join(STATUSES)}")
    attributes = _attributes(request, known)
    identity = request.get("id") or next((attributes[k] for k in NUMBERS.values() if k in attributes), "")
    if not identity:
        raise BadResource("ServiceRequest has neither id nor an identifier of type PLAC, FILL or ACSN")
    reference = _reference(request.get("subject"))
    patient = known.get(reference)
    if patient is None or patient.get("resourceType") != "Patient":
        raise BadResource(
            f"ServiceRequest.subject {reference!r} is no Patient, contained or in the same Bundle"
        )
    return NewOrder(
        Source.FHIR,
        sender,
        str(identity),
        _patient(patient),
        attributes,
        [_step(request, known)],
        STATUSES[status],
        "ISO_IR 192",
    )


def _reference(value: Any) -> str:
    return str(value.get("reference", "")) if isinstance(value, Mapping) else ""


def _patient(patient: Resource) -> dict[str, Any]:
    identifiers = [one for one in patient.get("identifier") or () if one.get("value")]
    first = next(
        (one for one in identifiers if "MR" in _codes(one.get("type"))), next(iter(identifiers), None)
    )
    if first is None:
        raise BadResource("Patient.identifier: one with a value is needed")
    names = patient.get("name") or [{}]
    name = next((one for one in names if one.get("use") == "official"), names[0])
    return _said(
        {
            "PatientID": first["value"],
            **_issuer(first),
            "PatientName": person_name(name),
            "PatientBirthDate": str(patient.get("birthDate", "")).replace("-", "")
            if len(patient.get("birthDate", "")) == len("YYYY-MM-DD")
            else "",
            "PatientSex": GENDERS.get(patient.get("gender", ""), ""),
        }
    )


def _issuer(identifier: Resource) -> dict[str, Any]:
    """An OID as a system is the issuer's universal id; other systems say nothing that DICOM knows."""
    system = str(identifier.get("system", ""))
    if not system.startswith("urn:oid:"):
        return {}
    item = {"UniversalEntityID": system.removeprefix("urn:oid:"), "UniversalEntityIDType": "ISO"}
    return {"IssuerOfPatientIDQualifiersSequence": [item]}


def person_name(name: Resource) -> str:
    """Return a HumanName as a PN (PS3.5 Section 6.2.1)."""
    given = list(name.get("given") or ())
    parts = (
        name.get("family") or ("" if given else name.get("text", "")),
        given[0] if given else "",
        " ".join(given[1:]),
        " ".join(name.get("prefix") or ()),
        " ".join(name.get("suffix") or ()),
    )
    return "^".join(part.replace("^", " ").replace("=", " ").replace("\\", " ") for part in parts).rstrip("^")


def _codes(concept: Any) -> list[str]:
    return [str(one.get("code", "")) for one in (concept or {}).get("coding") or ()]


def _attributes(request: Resource, known: Mapping[Any, Resource]) -> dict[str, Any]:
    identifiers = [one for one in request.get("identifier") or () if one.get("value")]
    made: dict[str, Any] = {}
    for one in identifiers:
        for code in _codes(one.get("type")):
            if code in NUMBERS:
                made.setdefault(NUMBERS[code], one["value"])
        if one.get("system") == _UIDS:
            made.setdefault("StudyInstanceUID", str(one["value"]).removeprefix("urn:oid:"))
    concept = request.get("code") or {}
    reasons = request.get("reasonCode") or [{}]
    requester = request.get("requester") or {}
    day, time = moment(request.get("authoredOn"))
    return _said(
        {
            **made,
            "RequestedProcedureID": made.get(
                "FillerOrderNumberImagingServiceRequest", str(request.get("id", ""))
            ),
            "RequestedProcedureDescription": _text(concept),
            "RequestedProcedureCodeSequence": list(_items(concept)),
            "RequestedProcedurePriority": PRIORITIES.get(request.get("priority", ""), ""),
            "ReasonForTheRequestedProcedure": _text(reasons[0]),
            "ReasonForRequestedProcedureCodeSequence": [item for one in reasons for item in _items(one)],
            "RequestingPhysician": _person(requester, known),
            "ReferringPhysicianName": _person(requester, known),
            "IssueDateOfImagingServiceRequest": day,
            "IssueTimeOfImagingServiceRequest": time,
            "RequestedProcedureComments": " ".join(one.get("text", "") for one in request.get("note") or ()),
        }
    )


def _person(reference: Resource, known: Mapping[Any, Resource]) -> str:
    names = (known.get(_reference(reference)) or {}).get("name") or []
    return person_name(names[0]) if names else str(reference.get("display", ""))


def _step(request: Resource, known: Mapping[Any, Resource]) -> dict[str, Any]:
    when = request.get("occurrenceDateTime") or (request.get("occurrencePeriod") or {}).get("start")
    day, time = moment(when)
    if when and not is_date(day):
        raise BadResource(f"ServiceRequest.occurrence[x] {when!r} is no date of a day")
    details = [one for concept in request.get("orderDetail") or () for one in concept.get("coding") or ()]
    modality = next((str(one.get("code", "")) for one in details if one.get("system") == _DCM), "")
    performers = [one for one in request.get("performer") or () if isinstance(one, Mapping)]
    device = next(
        (one for one in performers if "Device" in _reference(one) or one.get("type") == "Device"), {}
    )
    station = next(
        (one.get("value", "") for one in (known.get(_reference(device)) or {}).get("identifier") or ()), ""
    )
    return _said(
        {
            "Modality": modality,
            "ScheduledStationAETitle": station or (device.get("identifier") or {}).get("value", ""),
            "ScheduledProcedureStepStartDate": day,
            "ScheduledProcedureStepStartTime": time,
            "ScheduledProcedureStepDescription": _text(request.get("code") or {}),
            "ScheduledProtocolCodeSequence": list(_items(request.get("code") or {})),
        }
    )


def moment(value: Any) -> tuple[str, str]:
    """Return a FHIR dateTime as DA and TM; both empty where it is no full date."""
    match = _MOMENT.fullmatch(value) if isinstance(value, str) else None
    if not match:
        return "", ""
    year, month, day, hour, minute, second = match.groups()
    return year + month + day, f"{hour}{minute}{second or '00'}" if hour else ""


def _text(concept: Resource) -> str:
    displays = [one.get("display", "") for one in concept.get("coding") or ()]
    return str(concept.get("text") or next(iter(displays), ""))


def _items(concept: Resource) -> Iterator[dict[str, str]]:
    for one in concept.get("coding") or ():
        code = str(one.get("code", ""))
        if 0 < len(code) <= _LONGEST_CODE:
            scheme = SCHEMES.get(one.get("system", ""), "L")
            yield {
                "CodeValue": code,
                "CodingSchemeDesignator": scheme,
                "CodeMeaning": one.get("display") or code,
            }


def _said(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {keyword: value for keyword, value in attributes.items() if value}
