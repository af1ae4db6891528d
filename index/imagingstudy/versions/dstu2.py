"""ImagingStudy of FHIR DSTU2 (1.0.2)."""

from binascii import a2b_hex, b2a_base64
from typing import Any

from index.errors import NotExpressible
from index.imagingstudy.context import BuildContext, non_empty, resource
from index.imagingstudy.elements import series as series_elements
from index.imagingstudy.elements import study as study_elements
from index.imagingstudy.elements.accessions import accession_identifier, accessions
from index.imagingstudy.elements.anatomy import body_site, laterality
from index.imagingstudy.elements.modality import modalities, modality
from index.imagingstudy.elements.orders import orders
from index.imagingstudy.elements.procedures import procedures
from index.imagingstudy.rules import Resource
from index.imagingstudy.values import LARGEST_INTEGER, is_id, is_oid
from index.records import Instance, Series

_NOT_AN_OID = "UID is no valid urn:oid, left out"
_SHA1_LENGTH = 40


def imaging_study(context: BuildContext) -> Resource:
    """Return the ImagingStudy. Raises NotExpressible where DSTU2 cannot hold the study."""
    study, base = context.study, context.rules.base
    _check(context)
    instances = [instance for series in study.series for instance in series.instances]
    url = f"{base}/studies/{study.uid}" if base else ""
    interpreters = study_elements.interpreters(context, limit=1)
    numbers = [accession_identifier(context, accession) for accession in accessions(context)]
    return resource(
        "ImagingStudy",
        study.uid,
        started=context.started,
        patient=context.patient,
        uid=f"urn:oid:{study.uid}",
        accession=numbers[0] if numbers else None,
        identifier=[found for found in (study_elements.study_id(context), *numbers[1:]) if found],
        order=orders(context),
        modalityList=modalities(context),
        referrer=study_elements.referrer(context),
        availability=series_elements.availability(instances),
        url=url,
        numberOfSeries=len(study.series),
        numberOfInstances=len(instances),
        procedure=procedures(context),
        interpreter=interpreters[0] if interpreters else None,
        description=study_elements.description(context),
        series=[_series(context, series, url) for series in study.series if _has_oid(context, series)],
    )


def _check(context: BuildContext) -> None:
    if context.study.withdrawn:
        raise NotExpressible(f"{context.subject} is withdrawn, and DSTU2 has no status to say so")
    if not (is_oid(context.study.uid) and is_id(context.study.uid)):
        raise NotExpressible(
            f"{context.subject}: UID is no valid urn:oid of 1 to 64 characters, as DSTU2 wants"
        )
    if not any(series.instances for series in context.study.series):
        raise NotExpressible(f"{context.subject} has no instance yet, and DSTU2 has no status to say so")


def _has_oid(context: BuildContext, series: Series) -> bool:
    if is_oid(series.uid):
        return True
    context.issues.add(f"series {series.uid}", _NOT_AN_OID)
    return False


def _series(context: BuildContext, series: Series, study_url: str) -> dict[str, Any]:
    url = f"{study_url}/series/{series.uid}" if study_url else ""
    return non_empty(
        {
            "number": series_elements.number(context, series),
            "modality": modality(context, series),
            "uid": f"urn:oid:{series.uid}",
            "description": series_elements.description(context, series),
            "numberOfInstances": len(series.instances),
            "availability": series_elements.availability(list(series.instances)),
            "url": url,
            "bodySite": body_site(context, series),
            "laterality": laterality(context, series),
            "started": series_elements.started(context, series),
            "instance": _instances(context, series, url),
        }
    )


def _instances(context: BuildContext, series: Series, series_url: str) -> list[dict[str, Any]]:
    entries = []
    for instance, sop_class, number, title in series_elements.instances(
        context, series, _sop_class, is_oid, _NOT_AN_OID
    ):
        entry: dict[str, Any] = {} if number is None else {"number": number}
        entry["uid"] = f"urn:oid:{instance.uid}"
        entry |= sop_class
        if title:
            entry["title"] = title
        if series_url:
            entry["content"] = [_content(instance, series_url, title)]
        entries.append(entry)
    return entries


def _sop_class(uid: str) -> dict[str, str]:
    if not is_oid(uid):
        return {}
    name = series_elements.class_name(uid)
    return {"sopClass": f"urn:oid:{uid}", "type": name} if name else {"sopClass": f"urn:oid:{uid}"}


def _content(instance: Instance, series_url: str, title: str) -> dict[str, Any]:
    attachment: dict[str, Any] = {
        "contentType": "application/dicom",
        "url": f"{series_url}/instances/{instance.uid}",
    }
    if 0 <= instance.size <= LARGEST_INTEGER:
        attachment["size"] = instance.size
    if len(instance.sha1) == _SHA1_LENGTH:
        attachment["hash"] = b2a_base64(a2b_hex(instance.sha1), newline=False).decode("ascii")
    if title:
        attachment["title"] = title
    return attachment
