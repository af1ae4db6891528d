"""Orders as DiagnosticOrder (DSTU2) or ServiceRequest (R4, R5), and the status of a study."""

from typing import Any

from index.imagingstudy.codes import distinct, text_concept
from index.imagingstudy.context import BuildContext, resource
from index.imagingstudy.elements.identifiers import identifier, issued, sequence_issuer
from index.imagingstudy.elements.people import patient, practitioners
from index.imagingstudy.elements.study import reasons_of
from index.imagingstudy.rules import Resource
from index.imagingstudy.terminology.systems import SNOMED
from index.imagingstudy.values import fhir_id, first, items
from index.records import Order, Study

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


def orders(context: BuildContext) -> list[dict[str, str]]:
    """Return references to the orders that the study was matched to."""
    builder = _diagnostic_order if context.version == "dstu2" else _service_request
    return [context.refer(builder(context, order)) for order in context.study.orders]


def status(context: BuildContext) -> str:
    """Return the status of R4 and R5, by withdrawal, instances, steps and orders, in this order."""
    return status_of(context.study)


def status_of(study: Study) -> str:
    """Return the same of a study."""
    if study.withdrawn:
        return "entered-in-error"
    if any(series.instances for series in study.series):
        return "available"
    if study.steps:
        return "cancelled" if all(step.state == "DISCONTINUED" for step in study.steps) else "registered"
    if study.orders:
        return "cancelled" if all(order.status in _ENDED for order in study.orders) else "registered"
    return "unknown"


def _diagnostic_order(context: BuildContext, order: Order) -> Resource:
    state = REQUEST_STATUS.get(order.status)
    return resource(
        "DiagnosticOrder",
        fhir_id(order.id),
        subject=_subject(context, order),
        orderer=_requester(context, order),
        identifier=identifiers(context, order),
        reason=reasons_of(context, order.attributes),
        status=state[0] if state else None,
        priority=PRIORITIES.get(first(order.attributes, "RequestedProcedurePriority")),
        item=[{"code": found} for found in _codes(context, order)],
    )


def _service_request(context: BuildContext, order: Order) -> Resource:
    modern = context.version == "r5"
    state = REQUEST_STATUS.get(order.status)
    codes = _codes(context, order)
    reasons = reasons_of(context, order.attributes)
    return resource(
        "ServiceRequest",
        fhir_id(order.id),
        identifier=identifiers(context, order),
        status=state[1] if state else "unknown",
        intent="order",
        category=[_IMAGING],
        priority=PRIORITIES.get(first(order.attributes, "RequestedProcedurePriority")),
        code=({"concept": codes[0]} if modern else codes[0]) if codes else None,
        subject=_subject(context, order),
        occurrenceDateTime=_scheduled(context, order),
        authoredOn=context.moment(
            order.attributes,
            "IssueDateOfImagingServiceRequest",
            "IssueTimeOfImagingServiceRequest",
            f"order of {context.subject}",
        ),
        requester=_requester(context, order),
        **({"reason": [{"concept": found} for found in reasons]} if modern else {"reasonCode": reasons}),
    )


def _subject(context: BuildContext, order: Order) -> dict[str, str]:
    """Return the patient of the order, which may be another one than the study's.

    An order is one resource for all its studies: it must not depend on which was published last.
    """
    if order.patient is None or order.patient.id == context.study.patient.id:
        return context.patient
    return context.refer(patient(context, order.patient))


def _scheduled(context: BuildContext, order: Order) -> str:
    """Return when the first of the order's steps is to start. Empty: not known."""
    steps = items(order.attributes, "ScheduledProcedureStepSequence")
    subject = f"order of {context.subject}"
    word = "ScheduledProcedureStepStart"
    moments = [context.moment(step, f"{word}Date", f"{word}Time", subject) for step in steps]
    return min(filter(None, moments), key=lambda moment: (moment[:10], moment), default="")


def _codes(context: BuildContext, order: Order) -> list[dict[str, Any]]:
    coded = distinct(context.concepts(items(order.attributes, "RequestedProcedureCodeSequence")))
    return coded or distinct([text_concept(first(order.attributes, "RequestedProcedureDescription"))])


def _requester(context: BuildContext, order: Order) -> dict[str, str] | None:
    for names, numbers in (
        ("RequestingPhysician", "RequestingPhysicianIdentificationSequence"),
        ("ReferringPhysicianName", "ReferringPhysicianIdentificationSequence"),
    ):
        found = practitioners(context, order.attributes, names, numbers, limit=1)
        if found:
            return found[0]
    return None


def identifiers(context: BuildContext, order: Order) -> list[dict[str, Any]]:
    """Return placer and filler number, accession number, requested procedure id."""
    rules, attributes, dialect = context.rules, order.attributes, context.dialect
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
