"""How resources are written to a target: pure functions from resources to requests.

With ids that the server gives, a resource is found by an identifier (conditional update). One without an
identifier of a known system gets one of ours, so that it is never there twice.
"""

import hashlib
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from index.imagingstudy.bundle import in_order, local_reference, references, with_references
from index.publication.targets.knowledge import Current, Learnt
from index.publication.targets.settings import TargetSettings

STUDY_UID = "urn:dicom:uid"
_HEXADECIMAL = re.compile(r"[0-9a-f]{32}")
# Of a token in a search (FHIR search.html#escaping).
_ESCAPED = re.compile(r"([\\|,$])")
# Several orders may share one of their numbers; all of them together tell them apart.
_BY_ALL = ("ServiceRequest", "DiagnosticOrder")
_URI = {"system": "urn:ietf:rfc:3986"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A resource that is to be written, and by which request. `sha256`: of what it says."""

    local: str
    url: str
    full_url: str
    body: dict[str, Any]
    sha256: str
    etag: str = ""

    def in_bundle(self) -> dict[str, Any]:
        """Return its entry of a transaction."""
        request = {"method": "PUT", "url": self.url} | ({"ifMatch": self.etag} if self.etag else {})
        return {"fullUrl": self.full_url, "resource": self.body, "request": request}


@dataclass(frozen=True, slots=True)
class Material:
    """What a study has here, those referred to first, and what the server has of it.

    `missing`: what is looked up, and the server does not have.
    """

    resources: Sequence[tuple[Current, dict[str, Any]]]
    learnt: Mapping[str, Learnt]
    missing: frozenset[str] = frozenset()


def ordered(resources: Iterable[Current]) -> list[tuple[Current, dict[str, Any]]]:
    """Return resources with what they say, each after those that it refers to."""
    by_name = {one.local: one for one in resources}
    decoded = in_order(orjson.loads(one.content) for one in resources)
    return [(by_name[local_reference(resource)], resource) for resource in decoded]


def entries(settings: TargetSettings, material: Material, *, for_bundle: bool) -> list[Entry]:
    """Return what is to be written of this: what the server does not have, or has otherwise."""
    replaced = _replaced(settings, material, for_bundle=for_bundle)
    found = []
    for current, resource in material.resources:
        if current.type in settings.found_types:
            continue
        known = material.learnt.get(current.local)
        sha256 = _digest(current, resource, material.missing)
        if known is None or known.sha256 != sha256:
            found.append(_entry(settings, current, with_references(resource, replaced), known, sha256))
    return found


def _replaced(settings: TargetSettings, material: Material, *, for_bundle: bool) -> dict[str, dict[str, Any]]:
    """Return the references that are others there."""
    found: dict[str, dict[str, Any]] = {}
    for current, resource in material.resources:
        known = material.learnt.get(current.local)
        if current.local in material.missing:
            found[current.local] = logical(resource)
        elif known is not None and known.server_id != current.name:
            found[current.local] = {"reference": f"{current.type}/{known.server_id}"}
        elif known is None and settings.write == "conditional" and for_bundle:
            found[current.local] = {"reference": own_urn(current.type, current.name)}
    return found


def _digest(current: Current, resource: dict[str, Any], missing: frozenset[str]) -> str:
    """Return the hash of what is sent, which does not change with the ids that the server gives."""
    logically = sorted(missing.intersection(references(resource)))
    if not logically:
        return current.sha256
    return hashlib.sha256("\n".join((current.sha256, *logically)).encode()).hexdigest()


def _entry(
    settings: TargetSettings, current: Current, body: dict[str, Any], known: Learnt | None, sha256: str
) -> Entry:
    if settings.write == "put" or known is not None:
        name = known.server_id if known else current.name
        url = f"{current.type}/{name}"
        body = {**with_own_identifier(settings, body), "id": name}
        return Entry(current.local, url, f"{settings.url}/{url}", body, sha256, known.etag if known else "")
    url = f"{current.type}?{condition(settings, body)}"
    body = with_own_identifier(settings, body)
    body = {name: value for name, value in body.items() if name != "id"}
    return Entry(current.local, url, own_urn(current.type, current.name), body, sha256)


def with_own_identifier(settings: TargetSettings, resource: dict[str, Any]) -> dict[str, Any]:
    """Return a resource with an identifier by which it can be found again, where it has none."""
    if settings.write == "put" or resource["resourceType"] == "ImagingStudy" or keys(resource):
        return resource
    own = {**_URI, "value": own_urn(resource["resourceType"], resource["id"])}
    return {**resource, "identifier": [*(resource.get("identifier") or ()), own]}


def condition(settings: TargetSettings, resource: dict[str, Any]) -> str:
    """Return the search by which a resource is found there."""
    if resource["resourceType"] == "ImagingStudy":
        return study_condition(settings, resource["id"])
    found = keys(resource) or [{**_URI, "value": own_urn(resource["resourceType"], resource["id"])}]
    wanted = found if resource["resourceType"] in _BY_ALL else found[:1]
    return "&".join(f"identifier={token(one)}" for one in wanted)


def study_condition(settings: TargetSettings, uid: str) -> str:
    """Return the same of an ImagingStudy, which has its UID as identifier since R4."""
    if settings.version == "dstu2":
        return f"uid={quote(f'urn:oid:{uid}', safe='')}"
    return f"identifier={token({'system': STUDY_UID, 'value': f'urn:oid:{uid}'})}"


def keys(resource: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the identifiers of a resource that have a system: others are not unique."""
    found = resource.get("identifier") or ()
    return [one for one in found if isinstance(one, dict) and one.get("system") and one.get("value")]


def token(identifier: Mapping[str, Any]) -> str:
    """Return an identifier as the value of a search."""
    parts = (_ESCAPED.sub(r"\\\1", str(identifier[name])) for name in ("system", "value"))
    return quote("|".join(parts), safe="")


def logical(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Reference by identifier alone (FHIR references.html#logical); without one, an empty one."""
    found = keys(resource) or resource.get("identifier") or ()
    return {"type": resource["resourceType"], "identifier": found[0]} if found else {}


def own_urn(kind: str, name: str) -> str:
    """Return an address for a resource of ours that is the same everywhere (RFC 9562)."""
    if _HEXADECIMAL.fullmatch(name):
        return uuid.UUID(name).urn
    return uuid.uuid5(uuid.NAMESPACE_URL, f"urn:imagingstudyd:{kind}/{name}").urn
