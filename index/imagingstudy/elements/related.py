"""What R4 and R5 refer to besides people, orders and procedures: Endpoint, Location, Specimen."""

from typing import Any

from index.imagingstudy.context import Build, resource
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


def encounter(build: Build) -> dict[str, Any]:
    """Return a logical Reference to the visit: AdmissionID (0038,0010) of instances, else of the order.

    Empty: nobody names it, or instances name several.
    """
    if any(one.keyword == "AdmissionID" for one in build.study.disagreements):
        return {}
    sources = (build.study.attributes, *(order.attributes for order in build.study.orders))
    for source in sources:
        value = first(source, "AdmissionID")
        if value:
            issuer = sequence_issuer(source, "IssuerOfAdmissionIDSequence")
            visit = issued(value, issuer, build.rules.admission_system, build.rules)
            return {"type": "Encounter", "identifier": visit}
    return {}


def endpoints(build: Build) -> list[dict[str, str]]:
    """Return a Reference to the WADO-RS Endpoint. Empty: no DICOMweb base is configured.

    Its name and managing organization are the institution, where the series name one only.
    """
    base = build.rules.base
    if not base:
        return []
    named = {first(series.attributes, "InstitutionName") for series in build.study.series} - {""}
    name = named.pop() if len(named) == 1 else ""
    keeper = resource("Organization", hashed_id("Organization", name), name=name) if name else None
    if build.version == "r5":
        kind: dict[str, Any] = {
            "connectionType": [{"coding": [CONNECTION]}],
            "payload": [{"type": [PAYLOAD], "mimeType": [_MIME]}],
        }
    else:
        kind = {"connectionType": CONNECTION, "payloadType": [PAYLOAD], "payloadMimeType": [_MIME]}
    made = resource(
        "Endpoint",
        hashed_id("Endpoint", base, *([name] if name else [])),
        status="active",
        name=name,
        managingOrganization=build.refer(keeper, name) if keeper else None,
        **kind,
        address=base,
    )
    return [build.refer(made)]


def location(build: Build) -> dict[str, str]:
    """Return a Reference to the place: InstitutionalDepartmentName, else a step's PerformedLocation."""
    series = (first(found.attributes, "InstitutionalDepartmentName") for found in build.study.series)
    steps = (first(step.attributes, "PerformedLocation") for step in build.study.steps)
    name = next((found for found in (*series, *steps) if found), "")
    return build.refer(resource("Location", hashed_id("Location", name), name=name), name) if name else {}


def specimens(build: Build, series: Series) -> list[dict[str, str]]:
    """Return references to the specimens of SpecimenDescriptionSequence that have an identifier."""
    made = []
    for item in (one for body in bodies(series) for one in items(body, "SpecimenDescriptionSequence")):
        value = first(item, "SpecimenIdentifier")
        if value:
            issuer = sequence_issuer(item, "IssuerOfTheSpecimenIdentifierSequence")
            named = issued(value, issuer, None, build.rules)
            kinds = build.concepts(items(item, "SpecimenTypeCodeSequence"))
            kind = kinds[0] if kinds else None
            identity = hashed_id("Specimen", build.study.patient.id, named, kind)
            made.append(
                build.refer(
                    resource("Specimen", identity, identifier=[named], type=kind, subject=build.patient)
                )
            )
    return [found for i, found in enumerate(made) if found not in made[:i]]
