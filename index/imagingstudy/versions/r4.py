"""ImagingStudy of FHIR R4 (4.0.1), and what R5 shares with it."""

from typing import Any

from index.errors import NotExpressible
from index.imagingstudy.context import BuildContext, non_empty, resource
from index.imagingstudy.elements import series as series_elements
from index.imagingstudy.elements import study as study_elements
from index.imagingstudy.elements.accessions import accession_identifier, accessions, based_on
from index.imagingstudy.elements.anatomy import body_site, laterality
from index.imagingstudy.elements.modality import modalities, modality
from index.imagingstudy.elements.orders import status
from index.imagingstudy.elements.people import practitioners
from index.imagingstudy.elements.procedures import procedures
from index.imagingstudy.elements.related import encounter, endpoints, location, specimens
from index.imagingstudy.rules import Resource
from index.imagingstudy.values import is_id, is_oid
from index.records import Attributes, Series

_NOT_AN_ID = "UID is no FHIR id, left out"
_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_PERFORMERS = (
    ("PerformingPhysicianName", "PerformingPhysicianIdentificationSequence", "PRF", "performer"),
    ("OperatorsName", "OperatorIdentificationSequence", "SPRF", "secondary performer"),
)
"""Names, their identification, and the function of ValueSet/series-performer-function."""


def imaging_study(context: BuildContext) -> Resource:
    """Return the ImagingStudy. Raises NotExpressible where R4 cannot hold the study."""
    check(context)
    reached = endpoints(context)
    performed = procedures(context, limit=1)
    return resource(
        "ImagingStudy",
        context.study.uid,
        identifier=identifiers(context),
        status=status(context),
        modality=modalities(context),
        subject=context.patient,
        encounter=encounter(context),
        started=context.started,
        basedOn=based_on(context),
        referrer=study_elements.referrer(context),
        interpreter=study_elements.interpreters(context),
        endpoint=reached,
        **counts(context),
        procedureReference=performed[0] if performed else None,
        procedureCode=study_elements.procedure_codes(context),
        location=location(context),
        reasonCode=study_elements.reasons(context),
        description=study_elements.description(context),
        series=all_series(context, reached),
    )


def check(context: BuildContext) -> None:
    """Raise NotExpressible for a study that has no status or no id in R4 and R5."""
    if context.study.withdrawn and context.rules.withdrawn == "gone":
        raise NotExpressible(f"{context.subject} is withdrawn, and by configuration such studies are gone")
    if not is_id(context.study.uid):
        raise NotExpressible(f"{context.subject}: its UID is no FHIR id of 1 to 64 characters")


def counts(context: BuildContext) -> dict[str, int]:
    """Return numberOfSeries and numberOfInstances."""
    series = context.study.series
    return {
        "numberOfSeries": len(series),
        "numberOfInstances": sum(len(each.instances) for each in series),
    }


def identifiers(context: BuildContext) -> list[dict[str, Any]]:
    """Return StudyInstanceUID, every Accession Number, and StudyID."""
    uid = context.study.uid
    if not is_oid(uid):
        context.issues.add(context.subject, "UID is no valid urn:oid, written as it stands")
    study_uid = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
    numbers = [accession_identifier(context, accession) for accession in accessions(context)]
    study_id = study_elements.study_id(context)
    return [study_uid, *numbers, *([study_id] if study_id else [])]


def all_series(context: BuildContext, reached: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return the series whose UID R4 can hold, with these endpoints."""
    entries = []
    for series in context.study.series:
        if is_id(series.uid):
            entries.append(_series(context, series, reached))
        else:
            context.issues.add(f"series {series.uid}", _NOT_AN_ID)
    return entries


def _series(context: BuildContext, series: Series, reached: list[dict[str, str]]) -> dict[str, Any]:
    return non_empty(
        {
            "uid": series.uid,
            "number": series_elements.number(context, series),
            "modality": modality(context, series),
            "description": series_elements.description(context, series),
            "numberOfInstances": len(series.instances),
            "endpoint": reached,
            "bodySite": body_site(context, series),
            "laterality": laterality(context, series),
            "specimen": specimens(context, series),
            "started": series_elements.started(context, series),
            "performer": performers(context, series.attributes),
            "instance": _instances(context, series),
        }
    )


def performers(context: BuildContext, attributes: Attributes) -> list[dict[str, Any]]:
    """Return the performing physicians and the operators."""
    entries = []
    for names, numbers, code, display in _PERFORMERS:
        function = {"coding": [{"system": _PARTICIPATION, "code": code, "display": display}]}
        entries += [
            {"function": function, "actor": actor}
            for actor in practitioners(context, attributes, names, numbers)
        ]
    return entries


def _instances(context: BuildContext, series: Series) -> list[dict[str, Any]]:
    entries = []
    for instance, sop_class, number, title in series_elements.instances(
        context, series, _sop_class, is_id, _NOT_AN_ID
    ):
        entry: dict[str, Any] = {"uid": instance.uid, "sopClass": sop_class}
        if number is not None:
            entry["number"] = number
        if title:
            entry["title"] = title
        entries.append(entry)
    return entries


def _sop_class(uid: str) -> dict[str, str]:
    if not is_oid(uid):
        return {}
    coding = {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{uid}"}
    name = series_elements.class_name(uid)
    return coding | {"display": name} if name else coding
