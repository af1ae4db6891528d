"""The profile MADO of IHE RAD (Manifest-based Access to DICOM Objects 0.1.0) on the resources of R4.

What it adds or changes stands here alone: it is laid over resources that are built already. Its sources are
the profiles MadoImagingStudy, MadoWadoEndpoint, MadoStudyInstanceUidIdentifier, MadoAccessionNumberIdentifier
and the extensions that these name, all at https://profiles.ihe.net/RAD/MADO.
"""

from collections.abc import Iterator
from typing import Any

from index.imagingstudy.codes import coding
from index.imagingstudy.context import Build
from index.imagingstudy.elements import study as facts
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
"""Beside an element that has to be there and is not known (FHIR R4, data-absent-reason)."""

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


def conform(build: Build, resources: list[Resource]) -> list[Resource]:
    """Return the resources of an R4 build, the ImagingStudy first, as the profile wants them."""
    study, *others = resources
    for found in resources:
        _type_accessions(found)
    located = _Endpoints(build, others)
    study["identifier"][0] = {"type": {"coding": [_STUDY_UID]}, **study["identifier"][0]}
    _request(build, study)
    _procedure(build, study)
    _series(build, study, located)
    regions = _regions(study)
    head = {"resourceType": study["resourceType"], "id": study["id"], "meta": {"profile": [STUDY_PROFILE]}}
    study = head | ({"extension": regions} if regions else {}) | study
    return _referred([study, *others, *located.made])


def _referred(resources: list[Resource]) -> list[Resource]:
    """Return the first resource and all that it refers to, by way of others too."""
    named = {f"{one['resourceType']}/{one['id']}": one for one in resources}
    names = [next(iter(named))]
    for name in names:  # it grows
        names += [one for one in dict.fromkeys(_references(named[name])) if one not in names]
    return [named[name] for name in named if name in names]


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


def _type_accessions(found: Resource) -> None:
    """Give every Accession Number both types and a system (MadoAccessionNumberIdentifier)."""
    asked = (one.get("identifier", {}) for one in found.get("basedOn", ()))
    for one in [*found.get("identifier", ()), *asked]:
        if _is_accession(one):
            one["type"]["coding"].append(_ACCESSION)
            if "system" not in one:
                one["_system"] = _UNKNOWN


def _is_accession(identifier: dict[str, Any]) -> bool:
    return any(one.get("code") == "ACSN" for one in identifier.get("type", {}).get("coding", ()))


def _request(build: Build, study: Resource) -> None:
    """Let the study be based on one request that has an Accession Number (basedOn, slice order 0..1)."""
    asked = study.get("basedOn", [])
    held = [one for one in asked if _is_accession(one.get("identifier", {}))][:1]
    if len(held) < len(asked):
        build.doubts.add(build.subject, "MADO holds one request, with Accession Number, others are left out")
    _set(study, "basedOn", held)


def _set(study: Resource, name: str, value: list[Any]) -> None:
    """Set an element in its place, or take it out where it is empty."""
    if value:
        study[name] = value
    else:
        study.pop(name, None)


def _procedure(build: Build, study: Resource) -> None:
    """Let the procedure be such that it can be shown: a text or a display (invariant mado-reqproc-1)."""
    concepts = study.get("procedureCode", [])
    if any("text" in one or "display" in one["coding"][0] for one in concepts):
        return
    text = facts.description(build)
    study["procedureCode"] = [*concepts, {"text": text} if text else {"_text": _UNKNOWN}]


def _regions(study: Resource) -> list[dict[str, Any]]:
    """Return the anatomical regions that the series' body sites lie in, or else the body sites."""
    made: list[dict[str, Any]] = []
    for series in study.get("series", ()):
        site = series.get("bodySite")
        if site is None:
            continue
        known = REGIONS.get(site["code"]) if site.get("system") == SNOMED else None
        for concept in known or [{"coding": [site]} if "code" in site else {"text": site["display"]}]:
            extension = {"url": ANATOMICAL_REGION, "valueCodeableConcept": concept}
            if extension not in made:
                made.append(extension)
    return made


def _series(build: Build, study: Resource, located: "_Endpoints") -> None:
    """Give each series its endpoint and its instances' extensions; one without instances is left out."""
    held = []
    written = [one for one in build.study.series if is_id(one.uid)]
    for series, entry in zip(written, study.get("series", ()), strict=True):
        if not entry.get("instance"):
            build.doubts.add(f"series {series.uid}", "has no instance, which MADO wants, left out")
            continue
        instances = {one.uid: one for one in series.instances}
        entry["instance"] = [_instance(build, instances[one["uid"]], one) for one in entry["instance"]]
        location = first(series.attributes, "RetrieveLocationUID")
        entry["endpoint"] = located.refer(entry.get("endpoint", []), location)
        held.append(entry)
    _set(study, "series", held)
    if "endpoint" in study:
        study["endpoint"] = located.referred or located.refer(study["endpoint"], "")


def _instance(build: Build, instance: Instance, entry: dict[str, Any]) -> dict[str, Any]:
    """Return an instance with the number of its frames and, of a key object selection, its title's code."""
    extensions = []
    frames = unsigned(instance.attributes.get("NumberOfFrames"))
    if frames:
        extensions.append({"url": NUMBER_OF_FRAMES, "valueInteger": frames})
    if instance.sop_class_uid == KEY_OBJECT_SELECTION:
        for title in items(instance.attributes, "ConceptNameCodeSequence")[:1]:
            coded = coding(title, build.rules, build.dialect)
            if coded.get("system") == _DCM and coded["code"] in TITLES:
                extensions.append({"url": DOCUMENT_TITLE, "valueCodeableConcept": {"coding": [coded]}})
            else:
                build.doubts.add(
                    f"instance {instance.uid}", "document title is not in PS3.16 CID 7010, left out"
                )
    return {"extension": extensions, **entry} if extensions else entry


class _Endpoints:
    """The endpoints that are built already, with the place that they retrieve from.

    MADO wants one of each series, with its Retrieve Location UID, even where nothing is known of its address.
    """

    def __init__(self, build: Build, others: list[Resource]) -> None:
        self._own = build.rules.retrieve_location_uid or ""
        self._plain = {f"Endpoint/{one['id']}": one for one in others if one["resourceType"] == "Endpoint"}
        self._made: dict[str, Resource] = {}

    @property
    def made(self) -> list[Resource]:
        """The endpoints that were referred to."""
        return list(self._made.values())

    @property
    def referred(self) -> list[dict[str, str]]:
        """References to them."""
        return [{"reference": f"Endpoint/{name}"} for name in self._made]

    def refer(self, plain: list[dict[str, str]], location: str) -> list[dict[str, str]]:
        """Return references to what these were with a place of retrieval, or to one without an address."""
        found = [self._plain[one["reference"]] for one in plain] or [_NOWHERE]
        made = [_endpoint(one, location or self._own) for one in found]
        self._made |= {one["id"]: one for one in made}
        return [{"reference": f"Endpoint/{one['id']}"} for one in made]


_NOWHERE: Resource = {
    "status": "active",
    "connectionType": CONNECTION,
    "address": _UNKNOWN_ADDRESS,
    "_address": _UNKNOWN,
}


def _endpoint(plain: Resource, location: str) -> Resource:
    place = {"valueString": location} if location else {"_valueString": _UNKNOWN}
    head = {
        "resourceType": "Endpoint",
        "id": hashed_id("MadoWadoEndpoint", plain.get("id"), location),
        "meta": {"profile": [ENDPOINT_PROFILE]},
        "extension": [{"url": RETRIEVE_LOCATION, **place}],
    }
    return plain | head | {"payloadType": [{"coding": [_NO_PAYLOAD], **PAYLOAD}]}
