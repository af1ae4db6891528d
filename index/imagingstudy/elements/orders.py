"""Orders as DiagnosticOrder (DSTU2) or ServiceRequest (R4, R5), and the status of a study."""

from typing import Any

from index.imagingstudy.codes import distinct, text_concept
from index.imagingstudy.context import Build, resource
from index.imagingstudy.elements.identifiers import identifier, issued, sequence_issuer
from index.imagingstudy.elements.people import patient, practitioners
from index.imagingstudy.elements.study import reasons_of
from index.imagingstudy.rules import Resource
from index.imagingstudy.terminology.systems import SNOMED
from index.imagingstudy.values import fhir_id, first, items
from index.records import Order

REQUEST_STATUS = {
    "SCHEDULED": ("requested", "active"),
    "STARTED": ("in-progress", "active"),
    "COMPLETED": ("completed", "completed"),
    "CANCELLED": ("cancelled", "revoked"),
    "DISCONTINUED": ("cancelled", "revoked"),
}
"""By Order.status: DiagnosticOrder.status of DSTU2, ServiceRequest.status of R4 and R5."""

PRIORITIES = {"STAT": "stat", "HIGH": "urgent", "ROUTINE": "routine", "MEDIUM": "routine", "LOW": "routine"}
"""By RequestedProcedurePriority (0040,1003)."""

_IMAGING = {"coding": [{"system": SNOMED, "code": "363679005", "display": "Imaging"}]}
"""ServiceRequest.category, of the value set servicerequest-category."""

_ENDED = ("CANCELLED", "DISCONTINUED")


def orders(build: Build) -> list[dict[str, str]]:
    """Return references to the orders that the study was matched to."""
    make = _diagnostic_order if build.version == "dstu2" else _service_request
    return [build.refer(make(build, order)) for order in build.study.orders]


def status(build: Build) -> str:
    """ImagingStudy.status of R4 and R5, from withdrawal, instances, steps and orders, in this order."""
    study = build.study
    if study.withdrawn:
        return "entered-in-error"
    if any(series.instances for series in study.series):
        return "available"
    if study.steps:
        return "cancelled" if all(step.state == "DISCONTINUED" for step in study.steps) else "registered"
    if study.orders:
        return "cancelled" if all(order.status in _ENDED for order in study.orders) else "registered"
    return "unknown"


def _diagnostic_order(build: Build, order: Order) -> Resource:
    state = REQUEST_STATUS.get(order.status)
    return resource(
        "DiagnosticOrder",
        fhir_id(order.id),
        subject=_subject(build, order),
        orderer=_requester(build, order),
        identifier=identifiers(build, order),
        reason=reasons_of(build, order.attributes),
        status=state[0] if state else None,
        priority=PRIORITIES.get(first(order.attributes, "RequestedProcedurePriority")),
        item=[{"code": found} for found in _codes(build, order)],
    )


def _service_request(build: Build, order: Order) -> Resource:
    modern = build.version == "r5"
    state = REQUEST_STATUS.get(order.status)
    codes = _codes(build, order)
    reasons = reasons_of(build, order.attributes)
    return resource(
        "ServiceRequest",
        fhir_id(order.id),
        identifier=identifiers(build, order),
        status=state[1] if state else "unknown",
        intent="order",
        category=[_IMAGING],
        priority=PRIORITIES.get(first(order.attributes, "RequestedProcedurePriority")),
        code=({"concept": codes[0]} if modern else codes[0]) if codes else None,
        subject=_subject(build, order),
        occurrenceDateTime=_scheduled(build, order),
        authoredOn=build.moment(
            order.attributes,
            "IssueDateOfImagingServiceRequest",
            "IssueTimeOfImagingServiceRequest",
            f"order of {build.subject}",
        ),
        requester=_requester(build, order),
        **({"reason": [{"concept": found} for found in reasons]} if modern else {"reasonCode": reasons}),
    )


def _subject(build: Build, order: Order) -> dict[str, str]:
    """Return the patient whom the order is for, who may be another one than the study's.

    An order is one resource for all its studies: what it says must not depend on which was published last.
    """
    if order.patient is None or order.patient.id == build.study.patient.id:
        return build.patient
    return build.refer(patient(build, order.patient))


def _scheduled(build: Build, order: Order) -> str:
    """Return when the first of the order's steps is to start. Empty: none says so."""
    steps = items(order.attributes, "ScheduledProcedureStepSequence")
    subject = f"order of {build.subject}"
    word = "ScheduledProcedureStepStart"
    moments = [build.moment(step, f"{word}Date", f"{word}Time", subject) for step in steps]
    return min(filter(None, moments), key=lambda one: (one[:10], one), default="")


def _codes(build: Build, order: Order) -> list[dict[str, Any]]:
    coded = distinct(build.concepts(items(order.attributes, "RequestedProcedureCodeSequence")))
    return coded or distinct([text_concept(first(order.attributes, "RequestedProcedureDescription"))])


def _requester(build: Build, order: Order) -> dict[str, str] | None:
    for names, numbers in (
        ("RequestingPhysician", "RequestingPhysicianIdentificationSequence"),
        ("ReferringPhysicianName", "ReferringPhysicianIdentificationSequence"),
    ):
        found = practitioners(build, order.attributes, names, numbers, most=1)
        if found:
            return found[0]
    return None


def identifiers(build: Build, order: Order) -> list[dict[str, Any]]:
    """Return placer and filler number, accession number, requested procedure id."""
    rules, attributes, dialect = build.rules, order.attributes, build.dialect
    table = (
        (
            "PlacerOrderNumberImagingServiceRequest",
            "OrderPlacerIdentifierSequence",
            "PLAC",
            rules.placer_system,
        ),
        (
            "FillerOrderNumberImagingServiceRequest",
            "OrderFillerIdentifierSequence",
            "FILL",
            rules.filler_system,
        ),
        ("AccessionNumber", "IssuerOfAccessionNumberSequence", "ACSN", rules.accession_system),
    )
    made = []
    for keyword, issuer, kind, system in table:
        value = first(attributes, keyword)
        if value:
            types = dialect.identifier_type if kind == "ACSN" else dialect.order_type
            concept = {"coding": [{"system": types, "code": kind}]}
            made.append(issued(value, sequence_issuer(attributes, issuer), system, rules, kind=concept))
    requested = first(attributes, "RequestedProcedureID")
    if requested:
        made.append(identifier(requested, rules.requested_procedure_system))
    return made
