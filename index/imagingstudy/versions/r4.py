"""ImagingStudy of FHIR R4 (4.0.1), and what R5 shares with it."""

from typing import Any

from index.errors import NotExpressible
from index.imagingstudy.context import Build, resource, said
from index.imagingstudy.elements import series as parts
from index.imagingstudy.elements import study as facts
from index.imagingstudy.elements.accessions import accession_identifier, accessions, based_on
from index.imagingstudy.elements.anatomy import body_site, laterality
from index.imagingstudy.elements.orders import status
from index.imagingstudy.elements.people import practitioners
from index.imagingstudy.elements.procedures import procedures
from index.imagingstudy.elements.related import encounter, endpoints, location, specimens
from index.imagingstudy.rules import Resource
from index.imagingstudy.values import is_id, is_oid
from index.records import Attributes, Series

_PARTICIPATION = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_PERFORMERS = (
    ("PerformingPhysicianName", "PerformingPhysicianIdentificationSequence", "PRF", "performer"),
    ("OperatorsName", "OperatorIdentificationSequence", "SPRF", "secondary performer"),
)
"""Names, their identification, and the function of ValueSet/series-performer-function."""


def imaging_study(build: Build) -> Resource:
    """Return the ImagingStudy. Raises NotExpressible where R4 cannot hold the study."""
    check(build)
    reached = endpoints(build)
    performed = procedures(build, most=1)
    return resource(
        "ImagingStudy",
        build.study.uid,
        identifier=identifiers(build),
        status=status(build),
        modality=parts.modalities(build),
        subject=build.patient,
        encounter=encounter(build),
        started=build.started,
        basedOn=based_on(build),
        referrer=facts.referrer(build),
        interpreter=facts.interpreters(build),
        endpoint=reached,
        **counts(build),
        procedureReference=performed[0] if performed else None,
        procedureCode=facts.procedure_codes(build),
        location=location(build),
        reasonCode=facts.reasons(build),
        description=facts.description(build),
        series=[_series(build, series, reached) for series in build.study.series if has_id(build, series)],
    )


def check(build: Build) -> None:
    """Raise NotExpressible for a study that has no status or no id in R4 and R5."""
    if build.study.withdrawn and build.rules.withdrawn == "gone":
        raise NotExpressible(f"{build.subject} is withdrawn, and by configuration such studies are gone")
    if not is_id(build.study.uid):
        raise NotExpressible(f"{build.subject}: its UID is no FHIR id of 1 to 64 characters")


def counts(build: Build) -> dict[str, int]:
    """NumberOfSeries and numberOfInstances, counted from the index."""
    series = build.study.series
    return {
        "numberOfSeries": len(series),
        "numberOfInstances": sum(len(found.instances) for found in series),
    }


def identifiers(build: Build) -> list[dict[str, Any]]:
    """StudyInstanceUID, every Accession Number, and StudyID."""
    uid = build.study.uid
    if not is_oid(uid):
        build.doubts.add(build.subject, "UID is no valid urn:oid, written as it stands")
    first = {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
    numbers = [accession_identifier(build, one) for one in accessions(build)]
    return [first, *numbers, *(found for found in (facts.study_id(build),) if found)]


def has_id(build: Build, series: Series) -> bool:
    """Whether the series has a UID that R4 and R5 can hold; if not, it is a doubt."""
    if is_id(series.uid):
        return True
    build.doubts.add(f"series {series.uid}", "UID is no FHIR id, left out")
    return False


def performers(build: Build, attributes: Attributes) -> list[dict[str, Any]]:
    """series.performer: the performing physicians and the operators."""
    made = []
    for names, numbers, code, display in _PERFORMERS:
        function = {"coding": [{"system": _PARTICIPATION, "code": code, "display": display}]}
        made += [
            {"function": function, "actor": actor}
            for actor in practitioners(build, attributes, names, numbers)
        ]
    return made


def instances(build: Build, series: Series) -> list[dict[str, Any]]:
    """series.instance, which is the same in R4 and R5."""
    title = parts.titles()
    subject = f"series {series.uid}"
    classes: dict[str, dict[str, str]] = {}
    made = []
    for instance in series.instances:
        if not is_id(instance.uid):
            build.doubts.add(f"instance {instance.uid}", "UID is no FHIR id, left out")
            continue
        sop_class = classes.get(instance.sop_class_uid)
        if sop_class is None:
            sop_class = classes[instance.sop_class_uid] = _sop_class(instance.sop_class_uid)
        if not sop_class:
            build.doubts.add(f"instance {instance.uid}", "SOP Class UID is no valid urn:oid, left out")
            continue
        entry: dict[str, Any] = {"uid": instance.uid, "sopClass": sop_class}
        number = parts.number(build, instance.attributes, "InstanceNumber", subject)
        if number is not None:
            entry["number"] = number
        named = title(instance.attributes)
        if named:
            entry["title"] = named
        made.append(entry)
    return made


def _sop_class(uid: str) -> dict[str, str]:
    if not is_oid(uid):
        return {}
    made = {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{uid}"}
    name = parts.class_name(uid)
    return made | {"display": name} if name else made


def _series(build: Build, series: Series, reached: list[dict[str, str]]) -> dict[str, Any]:
    attributes, subject = series.attributes, f"series {series.uid}"
    return said(
        {
            "uid": series.uid,
            "number": parts.number(build, attributes, "SeriesNumber", subject),
            "modality": parts.modality(build, series),
            "description": build.text(attributes, "SeriesDescription", subject),
            "numberOfInstances": len(series.instances),
            "endpoint": reached,
            "bodySite": body_site(build, series),
            "laterality": laterality(build, series),
            "specimen": specimens(build, series),
            "started": build.moment(attributes, "SeriesDate", "SeriesTime", subject),
            "performer": performers(build, attributes),
            "instance": instances(build, series),
        }
    )
