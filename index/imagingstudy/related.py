"""What R4 and R5 refer to besides people, orders and procedures: Endpoint, Location, Specimen."""

from typing import Any

from index.imagingstudy.anatomy import bodies
from index.imagingstudy.context import Build, resource
from index.imagingstudy.identifiers import issued, sequence_issuer
from index.imagingstudy.values import first, hashed_id, items
from index.records import Series

_CONNECTION = {
    "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type",
    "code": "dicom-wado-rs",
    "display": "DICOM WADO-RS",
}
_PAYLOAD = {"text": "DICOM WADO-RS"}
_MIME = "application/dicom"


def endpoints(build: Build) -> list[dict[str, str]]:
    """Return a Reference to the WADO-RS Endpoint. Empty: no DICOMweb base is configured."""
    base = build.rules.base
    if not base:
        return []
    if build.version == "r5":
        kind: dict[str, Any] = {
            "connectionType": [{"coding": [_CONNECTION]}],
            "payload": [{"type": [_PAYLOAD], "mimeType": [_MIME]}],
        }
    else:
        kind = {"connectionType": _CONNECTION, "payloadType": [_PAYLOAD], "payloadMimeType": [_MIME]}
    return [
        build.refer(resource("Endpoint", hashed_id("Endpoint", base), status="active", **kind, address=base))
    ]


def location(build: Build) -> dict[str, str]:
    """Return a Reference to the place: InstitutionalDepartmentName, else a step's PerformedLocation."""
    series = (first(found.attributes, "InstitutionalDepartmentName") for found in build.study.series)
    steps = (first(step.attributes, "PerformedLocation") for step in build.study.steps)
    names = [first(build.study.attributes, "InstitutionalDepartmentName"), *series, *steps]
    name = next((found for found in names if found), "")
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
