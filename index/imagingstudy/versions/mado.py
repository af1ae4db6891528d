"""The profile MADO of IHE RAD (Manifest-based Access to DICOM Objects 0.1.0) on the resources of R4.

It changes resources that are built already; no other module knows it. Its sources are the profiles
MadoImagingStudy, MadoWadoEndpoint, MadoStudyInstanceUidIdentifier and MadoAccessionNumberIdentifier, with
their extensions, all at https://profiles.ihe.net/RAD/MADO.
"""

from collections.abc import Iterator
from typing import Any

from index.imagingstudy.codes import coding
from index.imagingstudy.context import BuildContext
from index.imagingstudy.elements import study as study_elements
from index.imagingstudy.elements.related import CONNECTION, PAYLOAD
from index.imagingstudy.rules import Resource
from index.imagingstudy.terminology.mado_regions import REGIONS
from index.imagingstudy.terminology.systems import SNOMED
from index.imagingstudy.values import first, hashed_id, is_id, items, unsigned
from index.records import Instance

_BASE = "https://profiles.ihe.net/RAD/MADO/StructureDefinition/"
STUDY_PROFILE = f"{_BASE}MadoImagingStudy"
ENDPOINT_PROFILE = f"{_BASE}MadoWadoEndpoint"
ANATOMICAL_REGION = f"{_BASE}MadoAnatomicalRegionExtension"
RETRIEVE_LOCATION = f"{_BASE}MadoRetrieveLocationUIDExtension"
NUMBER_OF_FRAMES = f"{_BASE}MadoNumberOfFrames"
DOCUMENT_TITLE = f"{_BASE}MadoKeyObjectDocumentTitle"
DATA_ABSENT_REASON = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_STUDY_UID = {"system": _DCM, "code": "110180", "display": "Study Instance UID"}
_ACCESSION = {"system": _DCM, "code": "121022", "display": "Accession Number"}
_NO_PAYLOAD = {"system": "http://terminology.hl7.org/CodeSystem/endpoint-payload-type", "code": "none"}
_UNKNOWN_ADDRESS = "http://notspecified"
_UNKNOWN = {"extension": [{"url": DATA_ABSENT_REASON, "valueCode": "unknown"}]}
"""Beside a required element whose value is not known (FHIR R4, data-absent-reason)."""

KEY_OBJECT_SELECTION = "1.2.840.10008.5.1.4.1.1.88.59"
_TITLES = """
113000 113001 113002 113003 113004 113005 113006 113007 113008 113009 113010 113013 113018 113020
113021 113022 113030 113031 113032 113033 113034 113035 113036 113037 113038 113039 128180 128181
128182 128183 128184 128185 128186 128187 128188 128189 128190 128191 128192 128193 128194 128195
128196 128197 128198 128199 128200 128201 128202 128203 128204 128205 128206 128207 128208 128209
128210 128211 128212 128213 128214 128215 128216 128217 128218 128219 128220 128221 128222 128223
128710 128711 128713 128714 130370 130371 130372 130373
"""
TITLES = frozenset(_TITLES.split())
"""Codes of DCM in PS3.16 CID 7010, Key Object Selection Document Title, which the extension requires."""


def conform(context: BuildContext, resources: list[Resource]) -> list[Resource]:
    """Return the resources of an R4 build, the ImagingStudy first, as the profile wants them."""
    study, *others = resources
    for resource in resources:
        _type_accessions(resource)
    located = _Endpoints(context, others)
    study["identifier"][0] = {"type": {"coding": [_STUDY_UID]}, **study["identifier"][0]}
    _request(context, study)
    _procedure(context, study)
    _series(context, study, located)
    regions = _regions(study)
    head = {"resourceType": study["resourceType"], "id": study["id"], "meta": {"profile": [STUDY_PROFILE]}}
    study = head | ({"extension": regions} if regions else {}) | study
    return _referred([study, *others, *located.made])


def _referred(resources: list[Resource]) -> list[Resource]:
    """Return the first resource and all that it refers to, directly or through others."""
    by_name = {f"{resource['resourceType']}/{resource['id']}": resource for resource in resources}
    names = [next(iter(by_name))]
    for name in names:  # the list grows
        names += [other for other in dict.fromkeys(_references(by_name[name])) if other not in names]
    return [by_name[name] for name in by_name if name in names]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "reference":
                yield value
            elif name != "instance":  # there are many, and they refer to nothing
                yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def _type_accessions(resource: Resource) -> None:
    """Give every Accession Number both types and a system (MadoAccessionNumberIdentifier)."""
    of_requests = (request.get("identifier", {}) for request in resource.get("basedOn", ()))
    for identifier in [*resource.get("identifier", ()), *of_requests]:
        if _is_accession(identifier):
            identifier["type"]["coding"].append(_ACCESSION)
            if "system" not in identifier:
                identifier["_system"] = _UNKNOWN


def _is_accession(identifier: dict[str, Any]) -> bool:
    return any(coding.get("code") == "ACSN" for coding in identifier.get("type", {}).get("coding", ()))


def _request(context: BuildContext, study: Resource) -> None:
    """Leave the study one request with an Accession Number (basedOn, slice order 0..1)."""
    requests = study.get("basedOn", [])
    held = [request for request in requests if _is_accession(request.get("identifier", {}))][:1]
    if len(held) < len(requests):
        context.issues.add(
            context.subject, "MADO holds one request, with Accession Number, others are left out"
        )
    _set(study, "basedOn", held)


def _set(study: Resource, name: str, value: list[Any]) -> None:
    """Set an element where it is in the order of elements, or remove it where it is empty."""
    if value:
        study[name] = value
    else:
        study.pop(name, None)


def _procedure(context: BuildContext, study: Resource) -> None:
    """Give the procedure a text or a display (invariant mado-reqproc-1)."""
    concepts = study.get("procedureCode", [])
    if any("text" in concept or "display" in concept["coding"][0] for concept in concepts):
        return
    text = study_elements.description(context)
    study["procedureCode"] = [*concepts, {"text": text} if text else {"_text": _UNKNOWN}]


def _regions(study: Resource) -> list[dict[str, Any]]:
    """Return the anatomical regions of the series' body sites, or else the body sites."""
    extensions: list[dict[str, Any]] = []
    for series in study.get("series", ()):
        site = series.get("bodySite")
        if site is None:
            continue
        known = REGIONS.get(site["code"]) if site.get("system") == SNOMED else None
        for concept in known or [{"coding": [site]} if "code" in site else {"text": site["display"]}]:
            extension = {"url": ANATOMICAL_REGION, "valueCodeableConcept": concept}
            if extension not in extensions:
                extensions.append(extension)
    return extensions


def _series(context: BuildContext, study: Resource, located: "_Endpoints") -> None:
    """Give each series its endpoint and its instances' extensions; one without instances is left out."""
    held = []
    written = [series for series in context.study.series if is_id(series.uid)]
    for series, entry in zip(written, study.get("series", ()), strict=True):
        if not entry.get("instance"):
            context.issues.add(f"series {series.uid}", "has no instance, which MADO wants, left out")
            continue
        instances = {instance.uid: instance for instance in series.instances}
        entry["instance"] = [_instance(context, instances[each["uid"]], each) for each in entry["instance"]]
        location = first(series.attributes, "RetrieveLocationUID")
        entry["endpoint"] = located.refer(entry.get("endpoint", []), location)
        held.append(entry)
    _set(study, "series", held)
    if "endpoint" in study:
        study["endpoint"] = located.referred or located.refer(study["endpoint"], "")


def _instance(context: BuildContext, instance: Instance, entry: dict[str, Any]) -> dict[str, Any]:
    """Return an instance with the number of its frames and, of a key object selection, its title's code."""
    extensions = []
    frames = unsigned(instance.attributes.get("NumberOfFrames"))
    if frames:
        extensions.append({"url": NUMBER_OF_FRAMES, "valueInteger": frames})
    if instance.sop_class_uid == KEY_OBJECT_SELECTION:
        for title in items(instance.attributes, "ConceptNameCodeSequence")[:1]:
            coded = coding(title, context.rules, context.dialect)
            if coded.get("system") == _DCM and coded["code"] in TITLES:
                extensions.append({"url": DOCUMENT_TITLE, "valueCodeableConcept": {"coding": [coded]}})
            else:
                context.issues.add(
                    f"instance {instance.uid}", "document title is not in PS3.16 CID 7010, left out"
                )
    return {"extension": extensions, **entry} if extensions else entry


class _Endpoints:
    """The endpoints of an R4 build, with their Retrieve Location UIDs.

    MADO wants one for each series, even where its address is not known.
    """

    def __init__(self, context: BuildContext, others: list[Resource]) -> None:
        self._own = context.rules.retrieve_location_uid or ""
        endpoints = [resource for resource in others if resource["resourceType"] == "Endpoint"]
        self._plain = {f"Endpoint/{endpoint['id']}": endpoint for endpoint in endpoints}
        self._made: dict[str, Resource] = {}

    @property
    def made(self) -> list[Resource]:
        """The endpoints that are referred to."""
        return list(self._made.values())

    @property
    def referred(self) -> list[dict[str, str]]:
        """References to them."""
        return [{"reference": f"Endpoint/{name}"} for name in self._made]

    def refer(self, plain: list[dict[str, str]], location: str) -> list[dict[str, str]]:
        """Return references to these endpoints with a Retrieve Location UID, or to one without an address."""
        found = [self._plain[reference["reference"]] for reference in plain] or [_NO_ADDRESS]
        endpoints = [_endpoint(endpoint, location or self._own) for endpoint in found]
        self._made |= {endpoint["id"]: endpoint for endpoint in endpoints}
        return [{"reference": f"Endpoint/{endpoint['id']}"} for endpoint in endpoints]


_NO_ADDRESS: Resource = {
    "status": "active",
    "connectionType": CONNECTION,
    "address": _UNKNOWN_ADDRESS,
    "_address": _UNKNOWN,
}


def _endpoint(plain: Resource, location: str) -> Resource:
    value = {"valueString": location} if location else {"_valueString": _UNKNOWN}
    head = {
        "resourceType": "Endpoint",
        "id": hashed_id("MadoWadoEndpoint", plain.get("id"), location),
        "meta": {"profile": [ENDPOINT_PROFILE]},
        "extension": [{"url": RETRIEVE_LOCATION, **value}],
    }
    return plain | head | {"payloadType": [{"coding": [_NO_PAYLOAD], **PAYLOAD}]}
