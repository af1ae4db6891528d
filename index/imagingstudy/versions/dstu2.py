"""ImagingStudy of FHIR DSTU2 (1.0.2)."""

from binascii import a2b_hex, b2a_base64
from typing import Any

from index.errors import NotExpressible
from index.imagingstudy.context import Build, resource, said
from index.imagingstudy.elements import series as parts
from index.imagingstudy.elements import study as facts
from index.imagingstudy.elements.accessions import accession_identifier, accessions
from index.imagingstudy.elements.anatomy import body_site, laterality
from index.imagingstudy.elements.orders import orders
from index.imagingstudy.elements.procedures import procedures
from index.imagingstudy.rules import Resource
from index.imagingstudy.values import LARGEST_INTEGER, is_id, is_oid
from index.records import Instance, Series

_NO_OID = "UID is no valid urn:oid, left out"
_SHA1_LENGTH = 40


def imaging_study(build: Build) -> Resource:
    """Return the ImagingStudy. Raises NotExpressible where DSTU2 cannot hold the study."""
    study, base = build.study, build.rules.base
    _check(build)
    instances = [instance for series in study.series for instance in series.instances]
    url = f"{base}/studies/{study.uid}" if base else ""
    interpreters = facts.interpreters(build, most=1)
    numbers = [accession_identifier(build, one) for one in accessions(build)]
    return resource(
        "ImagingStudy",
        study.uid,
        started=build.started,
        patient=build.patient,
        uid=f"urn:oid:{study.uid}",
        accession=numbers[0] if numbers else None,
        identifier=[found for found in (facts.study_id(build), *numbers[1:]) if found],
        order=orders(build),
        modalityList=parts.modalities(build),
        referrer=facts.referrer(build),
        availability=parts.availability(instances),
        url=url,
        numberOfSeries=len(study.series),
        numberOfInstances=len(instances),
        procedure=procedures(build),
        interpreter=interpreters[0] if interpreters else None,
        description=facts.description(build),
        series=[
            _series(build, series, url) for series in study.series if _has_oid(build, "series", series.uid)
        ],
    )


def _check(build: Build) -> None:
    if build.study.withdrawn:
        raise NotExpressible(f"{build.subject} is withdrawn, and DSTU2 has no status to say so")
    if not (is_oid(build.study.uid) and is_id(build.study.uid)):
        raise NotExpressible(
            f"{build.subject}: UID is no valid urn:oid of 1 to 64 characters, as DSTU2 wants"
        )
    if not any(series.instances for series in build.study.series):
        raise NotExpressible(f"{build.subject} has no instance yet, and DSTU2 has no status to say so")


def _has_oid(build: Build, kind: str, uid: str) -> bool:
    if is_oid(uid):
        return True
    build.doubts.add(f"{kind} {uid}", _NO_OID)
    return False


def _series(build: Build, series: Series, study_url: str) -> dict[str, Any]:
    attributes, subject = series.attributes, f"series {series.uid}"
    url = f"{study_url}/series/{series.uid}" if study_url else ""
    return said(
        {
            "number": parts.number(build, attributes, "SeriesNumber", subject),
            "modality": parts.modality(build, series),
            "uid": f"urn:oid:{series.uid}",
            "description": build.text(attributes, "SeriesDescription", subject),
            "numberOfInstances": len(series.instances),
            "availability": parts.availability(list(series.instances)),
            "url": url,
            "bodySite": body_site(build, series),
            "laterality": laterality(build, series),
            "started": build.moment(attributes, "SeriesDate", "SeriesTime", subject),
            "instance": _instances(build, series, url),
        }
    )


def _instances(build: Build, series: Series, series_url: str) -> list[dict[str, Any]]:
    title, subject = parts.titles(), f"series {series.uid}"
    classes: dict[str, dict[str, str]] = {}
    made = []
    for instance in series.instances:
        if not is_oid(instance.uid):
            build.doubts.add(f"instance {instance.uid}", _NO_OID)
            continue
        sop_class = classes.get(instance.sop_class_uid)
        if sop_class is None:
            sop_class = classes[instance.sop_class_uid] = _sop_class(instance.sop_class_uid)
        if not sop_class:
            build.doubts.add(f"instance {instance.uid}", "SOP Class UID is no valid urn:oid, left out")
            continue
        number = parts.number(build, instance.attributes, "InstanceNumber", subject)
        entry: dict[str, Any] = {} if number is None else {"number": number}
        entry["uid"] = f"urn:oid:{instance.uid}"
        entry |= sop_class
        named = title(instance.attributes)
        if named:
            entry["title"] = named
        if series_url:
            entry["content"] = [_content(instance, series_url, named)]
        made.append(entry)
    return made


def _sop_class(uid: str) -> dict[str, str]:
    if not is_oid(uid):
        return {}
    name = parts.class_name(uid)
    return {"sopClass": f"urn:oid:{uid}", "type": name} if name else {"sopClass": f"urn:oid:{uid}"}


def _content(instance: Instance, series_url: str, title: str) -> dict[str, Any]:
    made: dict[str, Any] = {
        "contentType": "application/dicom",
        "url": f"{series_url}/instances/{instance.uid}",
    }
    if 0 <= instance.size <= LARGEST_INTEGER:
        made["size"] = instance.size
    if len(instance.sha1) == _SHA1_LENGTH:
        made["hash"] = b2a_base64(a2b_hex(instance.sha1), newline=False).decode("ascii")
    if title:
        made["title"] = title
    return made
