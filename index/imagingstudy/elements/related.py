"""Other resources that R4 and R5 refer to: Endpoint, Encounter, Location, Specimen."""

from typing import Any

from index.imagingstudy.context import BuildContext, resource
from index.imagingstudy.elements.anatomy import bodies
from index.imagingstudy.elements.identifiers import issued, sequence_issuer
from index.imagingstudy.values import first, hashed_id, items
from index.records import Series

CONNECTION = {
    "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
    "code": "dicom-wado-rs",
    "display": "DICOM WADO-RS",
}
PAYLOAD = {"text": "DICOM WADO-RS"}
_MIME = "application/dicom"


def encounter(context: BuildContext) -> dict[str, Any]:
    """Return a logical Reference to the visit: AdmissionID (0038,0010) of instances, else of an order.

    Empty: there is none, or instances have several.
    """
    if any(found.keyword == "AdmissionID" for found in context.study.disagreements):
        return {}
    sources = (context.study.attributes, *(order.attributes for order in context.study.orders))
    for source in sources:
        value = first(source, "AdmissionID")
        if value:
            issuer = sequence_issuer(source, "IssuerOfAdmissionIDSequence")
            visit = issued(value, issuer, context.rules.admission_system, context.rules)
            return {"type": "Encounter", "identifier": visit}
    return {}


def endpoints(context: BuildContext) -> list[dict[str, str]]:
    """Return a Reference to the WADO-RS Endpoint. Empty: no DICOMweb base is configured.

    Its name and managing organization are the institution, where all series name the same.
    """
    base = context.rules.base
    if not base:
        return []
    names = {first(series.attributes, "InstitutionName") for series in context.study.series} - {""}
    name = names.pop() if len(names) == 1 else ""
    organization = resource("Organization", hashed_id("Organization", name), name=name) if name else None
    if context.version == "r5":
        kind: dict[str, Any] = {
            "connectionType": [{"coding": [CONNECTION]}],
            "payload": [{"type": [PAYLOAD], "mimeType": [_MIME]}],
        }
    else:
        kind = {"connectionType": CONNECTION, "payloadType": [PAYLOAD], "payloadMimeType": [_MIME]}
    endpoint = resource(
        "Endpoint",
        hashed_id("Endpoint", base, *([name] if name else [])),
        status="active",
        name=name,
        managingOrganization=context.refer(organization, name) if organization else None,
        **kind,
        address=base,
    )
    return [context.refer(endpoint)]


def location(context: BuildContext) -> dict[str, str]:
    """Return a Reference to the Location: InstitutionalDepartmentName, else a step's PerformedLocation."""
    series = (first(found.attributes, "InstitutionalDepartmentName") for found in context.study.series)
    steps = (first(step.attributes, "PerformedLocation") for step in context.study.steps)
    name = next((found for found in (*series, *steps) if found), "")
    return context.refer(resource("Location", hashed_id("Location", name), name=name), name) if name else {}


def specimens(context: BuildContext, series: Series) -> list[dict[str, str]]:
    """Return references to the specimens of SpecimenDescriptionSequence that have an identifier."""
    made = []
    for item in (found for body in bodies(series) for found in items(body, "SpecimenDescriptionSequence")):
        value = first(item, "SpecimenIdentifier")
        if value:
            issuer = sequence_issuer(item, "IssuerOfTheSpecimenIdentifierSequence")
            named = issued(value, issuer, None, context.rules)
            kinds = context.concepts(items(item, "SpecimenTypeCodeSequence"))
            kind = kinds[0] if kinds else None
            identity = hashed_id("Specimen", context.study.patient.id, named, kind)
            made.append(
                context.refer(
                    resource("Specimen", identity, identifier=[named], type=kind, subject=context.patient)
                )
            )
    return [found for i, found in enumerate(made) if found not in made[:i]]
