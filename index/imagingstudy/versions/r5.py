"""ImagingStudy of FHIR R5 (5.0.0)."""

from typing import Any

from index.imagingstudy.context import BuildContext, resource
from index.imagingstudy.elements import study as study_elements
from index.imagingstudy.elements.accessions import based_on
from index.imagingstudy.elements.modality import modalities
from index.imagingstudy.elements.orders import status
from index.imagingstudy.elements.procedures import procedures
from index.imagingstudy.elements.related import encounter, endpoints, location
from index.imagingstudy.rules import Resource
from index.imagingstudy.versions.r4 import all_series, check, counts, identifiers


def imaging_study(context: BuildContext) -> Resource:
    """Return the ImagingStudy. Raises NotExpressible where R5 cannot hold the study."""
    check(context)
    reached = endpoints(context)
    return resource(
        "ImagingStudy",
        context.study.uid,
        identifier=identifiers(context),
        status=status(context),
        modality=[_concept(coding) for coding in modalities(context)],
        subject=context.patient,
        encounter=encounter(context),
        started=context.started,
        basedOn=based_on(context),
        partOf=procedures(context),
        referrer=study_elements.referrer(context),
        endpoint=reached,
        **counts(context),
        procedure=[{"concept": concept} for concept in study_elements.procedure_codes(context)],
        location=location(context),
        reason=[{"concept": concept} for concept in study_elements.reasons(context)],
        description=study_elements.description(context),
        series=[_with_concepts(series) for series in all_series(context, reached)],
    )


def _with_concepts(series: dict[str, Any]) -> dict[str, Any]:
    """Return a series of R4 with CodeableConcepts where R4 has Codings."""
    for name in ("modality", "bodySite", "laterality"):
        if name in series:
            series[name] = _concept(series[name])
    if "bodySite" in series:
        series["bodySite"] = {"concept": series["bodySite"]}
    return series


def _concept(coding: dict[str, str]) -> dict[str, Any]:
    """Return a CodeableConcept of a Coding; of one without a code, its display as text."""
    return {"coding": [coding]} if "code" in coding else {"text": coding["display"]}
