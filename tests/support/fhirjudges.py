"""Checks of FHIR resources: the models of other projects, and strict checks of what those models accept."""

import importlib
import json
import re
from collections.abc import Iterator
from typing import Any

from fhir.resources import get_fhir_model_class as r5_model
from fhir.resources.R4B import get_fhir_model_class as r4_model

OID = re.compile(r"urn:oid:(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
ID = re.compile(r"[A-Za-z0-9.-]{1,64}")
CODE = re.compile(r"\S+( \S+)*")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
ZONE = r"(Z|[+-](0[0-9]|1[0-3]):[0-5][0-9]|[+-]14:00)"
DATE_TIME = re.compile(rf"{DATE.pattern}(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?{ZONE})?")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
LONGEST = 1024 * 1024

NUMBERS = {"number", "numberOfSeries", "numberOfInstances", "size"}
MOMENTS = {"started", "start", "end", "performedDateTime", "occurrenceDateTime", "authoredOn"}
IDENTITIES = {"r4": {"uid"}, "r5": {"uid"}, "dstu2": set()}
OIDS = {"r4": set(), "r5": set(), "dstu2": {"uid", "sopClass"}}

ORDER = {"dstu2": "DiagnosticOrder", "r4": "ServiceRequest", "r5": "ServiceRequest"}
TARGETS = {
    "patient": "Patient",
    "subject": "Patient",
    "referrer": "Practitioner",
    "interpreter": "Practitioner",
    "orderer": "Practitioner",
    "requester": "Practitioner",
    "actor": "Practitioner",
    "procedureReference": "Procedure",
    "partOf": "Procedure",
    "endpoint": "Endpoint",
    "managingOrganization": "Organization",
    "location": "Location",
    "specimen": "Specimen",
    "order": "DiagnosticOrder",
    "request": "DiagnosticOrder",
    "basedOn": "ServiceRequest",
}
"""Where each reference may point, of what the definitions allow; `procedure` is checked by version."""


def judge(resources: list[dict[str, Any]], version: str) -> None:
    """Fail unless every resource is valid in the version and refers only to the others."""
    named = {f"{found['resourceType']}/{found['id']}" for found in resources}
    assert len(named) == len(resources)
    assert "ImagingStudy" == resources[0]["resourceType"]
    referred = {f"{resources[0]['resourceType']}/{resources[0]['id']}"}
    for found in resources:
        model(found, version)
        assert ID.fullmatch(found["id"])
        for name, value in members(found, ""):
            primitive(name, value, version)
            if name == "reference" and isinstance(value, str):
                referred.add(value)
        targets(found, version)
    assert named == referred


def model(found: dict[str, Any], version: str) -> None:
    if version == "dstu2":
        module = importlib.import_module(f"fhirclient.models.{found['resourceType'].lower()}")
        made = getattr(module, found["resourceType"])(found, strict=True)
        assert found == made.as_json()
        return
    known = (r4_model if version == "r4" else r5_model)(found["resourceType"])
    found = without_absent_values(found)
    made = known.model_validate(found)
    back = json.loads(made.model_dump_json())
    assert sorted(back) == sorted(found)


def without_absent_values(node: Any) -> Any:
    """Remove extensions whose value is absent (_valueString), which these models do not know."""
    if isinstance(node, dict):
        kept = {key: without_absent_values(value) for key, value in node.items()}
        return {key: value for key, value in kept.items() if value != []}
    if isinstance(node, list):
        return [
            without_absent_values(one)
            for one in node
            if not (isinstance(one, dict) and any(key.startswith("_value") for key in one))
        ]
    return node


def members(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every named value below a node; entries of a list have the name of the list."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield key, value
            yield from members(value, key)
    elif isinstance(node, list):
        for value in node:
            yield name, value
            yield from members(value, name)


def primitive(name: str, value: Any, version: str) -> None:
    assert value not in (None, "", [], {}), name
    if name in NUMBERS:
        assert isinstance(value, int)
        assert 0 <= value <= 2147483647
    if not isinstance(value, str):
        return
    assert not UNPRINTABLE.search(value), name
    assert value == value.strip(), name
    assert len(value.encode()) <= LONGEST, name
    rules = [
        (name in MOMENTS, DATE_TIME),
        (name == "birthDate", DATE),
        (name in ("code", "status", "valueCode", "contentType"), CODE),
        (name in OIDS[version], OID),
        (name in IDENTITIES[version], ID),
        (name == "system", re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")),
    ]
    for applies, pattern in rules:
        assert not applies or pattern.fullmatch(value), (name, value)


def targets(found: dict[str, Any], version: str) -> None:
    for name, value in members(found, ""):
        if isinstance(value, dict) and "reference" in value:
            assert isinstance(value["reference"], str)
            expected = TARGETS.get(name)
            if name == "procedure":
                expected = "Procedure" if version == "dstu2" else None
            assert expected == value["reference"].split("/")[0], name


def paths(study: dict[str, Any]) -> set[str]:
    """Return the paths of the elements of an ImagingStudy, as in its definition."""
    nested = {"series", "series.instance", "series.performer"}
    found: set[str] = set()

    def walk(node: dict[str, Any], prefix: str) -> None:
        for key, value in node.items():
            path = prefix + key
            if path in nested:
                for entry in value:
                    walk(entry, f"{path}.")
            elif path != "resourceType":
                found.add(path)

    walk(study, "")
    return found
