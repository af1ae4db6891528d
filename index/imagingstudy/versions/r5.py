"""ImagingStudy of FHIR R5 (5.0.0)."""

from typing import Any

from index.imagingstudy.context import Build, resource, said
from index.imagingstudy.elements import series as parts
from index.imagingstudy.elements import study as facts
from index.imagingstudy.elements.accessions import based_on
from index.imagingstudy.elements.anatomy import body_site, laterality
from index.imagingstudy.elements.orders import status
from index.imagingstudy.elements.procedures import procedures
from index.imagingstudy.elements.related import encounter, endpoints, location, specimens
from index.imagingstudy.rules import Resource
from index.imagingstudy.versions.r4 import check, counts, has_id, identifiers, instances, performers
from index.records import Series


def imaging_study(build: Build) -> Resource:
    """Return the ImagingStudy. Raises NotExpressible where R5 cannot hold the study."""
    check(build)
    reached = endpoints(build)
    return resource(
        "ImagingStudy",
        build.study.uid,
        identifier=identifiers(build),
        status=status(build),
        modality=[_coded(found) for found in parts.modalities(build)],
        subject=build.patient,
        encounter=encounter(build),
        started=build.started,
        basedOn=based_on(build),
        partOf=procedures(build),
        referrer=facts.referrer(build),
        endpoint=reached,
        **counts(build),
        procedure=[{"concept": found} for found in facts.procedure_codes(build)],
        location=location(build),
        reason=[{"concept": found} for found in facts.reasons(build)],
        description=facts.description(build),
        series=[_series(build, series, reached) for series in build.study.series if has_id(build, series)],
    )


def _coded(coding: dict[str, str]) -> dict[str, Any]:
    """Return a CodeableConcept of a Coding; one without a code is text alone. Empty of an empty one."""
    if "code" in coding:
        return {"coding": [coding]}
    return {"text": coding["display"]} if coding else {}


def _series(build: Build, series: Series, reached: list[dict[str, str]]) -> dict[str, Any]:
    attributes, subject = series.attributes, f"series {series.uid}"
    site = _coded(body_site(build, series))
    return said(
        {
            "uid": series.uid,
            "number": parts.number(build, attributes, "SeriesNumber", subject),
            "modality": _coded(parts.modality(build, series)),
            "description": build.text(attributes, "SeriesDescription", subject),
            "numberOfInstances": len(series.instances),
            "endpoint": reached,
            "bodySite": {"concept": site} if site else None,
            "laterality": _coded(laterality(build, series)),
            "specimen": specimens(build, series),
            "started": build.moment(attributes, "SeriesDate", "SeriesTime", subject),
            "performer": performers(build, attributes),
            "instance": instances(build, series),
        }
    )
