"""The form that a request asks for: JSON, pretty or not, and how much of each resource."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from index.web.fhir.outcomes import Refused

Parameters = list[tuple[str, str]]

FHIR_VERSIONS = {"dstu2": "1.0.2", "r4": "4.0.1", "r5": "5.0.0"}
"""CapabilityStatement.fhirVersion, by the word in the address."""

# Media types and words for JSON: R4 and R5 3.1.0.1.11, DSTU2 2.1.0.6; the others are what clients send.
_JSON = frozenset(
    ("json", "application/json", "application/fhir+json", "application/json+fhir", "text/json")
) | {"*/*", "application/*"}
_YES_NO = {"true": True, "false": False}
SUMMARIES = ("true", "text", "data", "count", "false")
FORM_PARAMETERS = ("_format", "_pretty", "_summary", "_elements")

_REQUIRED = {
    ("dstu2", "ImagingStudy"): ("patient", "uid", "numberOfSeries", "numberOfInstances"),
    ("r4", "ImagingStudy"): ("status", "subject"),
    ("r5", "ImagingStudy"): ("status", "subject"),
    ("dstu2", "Procedure"): ("subject", "status", "code"),
    ("r4", "Procedure"): ("status", "subject"),
    ("r5", "Procedure"): ("status", "subject"),
    ("dstu2", "DiagnosticOrder"): ("subject",),
    ("r4", "ServiceRequest"): ("status", "intent", "subject"),
    ("r5", "ServiceRequest"): ("status", "intent", "subject"),
    ("r4", "Endpoint"): ("status", "connectionType", "payloadType", "address"),
    ("r5", "Endpoint"): ("status", "connectionType", "address"),
}
"""Elements of cardinality 1, which stand in every subset of a resource (R4 3.1.1.5.9)."""

_SUBSETTED = {
    "dstu2": {"system": "http://hl7.org/fhir/v3/ObservationValue", "code": "SUBSETTED"},
    "r4": {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"},
    "r5": {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"},
}


@dataclass(frozen=True, slots=True)
class Form:
    """How a resource is written. `summary`: true, text, data, count or false; `elements`: no others."""

    pretty: bool = False
    summary: str = "false"
    elements: tuple[str, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether each resource is written with all its elements."""
        return self.summary in ("false", "data", "count") and not self.elements

    @property
    def is_stored(self) -> bool:
        """Whether a resource is written as it is stored, byte for byte."""
        return self.is_whole and not self.pretty


def form_of(parameters: Parameters, headers: Mapping[str, str], fhir: str) -> Form:
    """Return what a request asks for. Raises Refused: 406 where that is not JSON, 400 for a bad value."""
    given = dict(parameters)
    asked = given.get("_format") or headers.get("accept") or "*/*"
    if not any(_is_json(each, fhir) for each in asked.split(",")):
        raise Refused(
            406, f"{asked[:200]}: resources are served as JSON only, as {FHIR_VERSIONS[fhir]} has it"
        )
    pretty = given.get("_pretty", "false")
    if pretty not in _YES_NO:
        raise Refused(400, f"_pretty={pretty[:100]}: allowed are true and false")
    summary = given.get("_summary", "false")
    if summary not in SUMMARIES:
        raise Refused(400, f"_summary={summary[:100]}: allowed are {', '.join(SUMMARIES)}")
    elements = tuple(_element(name) for name in given.get("_elements", "").split(",") if name.strip())
    if elements and summary not in ("false", "count"):
        raise Refused(400, "_elements and _summary exclude each other")
    return Form(_YES_NO[pretty], summary, elements)


def _element(name: str) -> str:
    """Return the name of the resource's element that contains this one (ImagingStudy.series.uid: series)."""
    first, _, rest = name.strip().partition(".")
    return rest.partition(".")[0] if first[:1].isupper() else first


def _is_json(asked: str, fhir: str) -> bool:
    """Tell whether an alternative of Accept or _format is JSON of this version (R4 3.1.0.1.12)."""
    # A plus sign in an address means a blank where it is not written as %2B.
    name, *options = (part.strip() for part in asked.strip().lower().replace(" json", "+json").split(";"))
    named = dict(option.replace(" ", "").partition("=")[::2] for option in options)
    wanted = named.get("fhirversion", "").strip('"')
    if re.fullmatch(r"0(\.0{0,3})?", named.get("q", "1")):
        return False
    return name.replace(" ", "+") in _JSON and FHIR_VERSIONS[fhir].startswith(wanted)


def subset(resource: dict[str, Any], form: Form, fhir: str) -> dict[str, Any]:
    """Return a resource with the elements that a form asks for, marked where any is missing."""
    if form.is_whole:
        return resource
    kind = resource["resourceType"]
    required = _REQUIRED.get((fhir, kind), ())
    if form.elements:
        kept = _only(resource, (*required, *form.elements))
    elif form.summary == "text":
        kept = _only(resource, (*required, "text"))
    else:
        kept = _summary(resource, fhir)
    if kept != resource:
        meta = dict(kept.get("meta", {}))
        meta["tag"] = [*meta.get("tag", []), _SUBSETTED[fhir]]
        kept = {"resourceType": kind, "id": resource["id"], "meta": meta} | kept | {"meta": meta}
    return kept


def _only(resource: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    kept = {"resourceType", "id", "meta", "implicitRules", *names}
    return {name: value for name, value in resource.items() if name.lstrip("_") in kept}


def _summary(resource: dict[str, Any], fhir: str) -> dict[str, Any]:
    """Return the elements that the definition marks as summary: in R4 and R5 no instance, in DSTU2 all."""
    kept = {name: value for name, value in resource.items() if name not in ("text", "contained")}
    if resource["resourceType"] == "ImagingStudy" and fhir != "dstu2" and "series" in resource:
        kept["series"] = [
            {name: value for name, value in series.items() if name != "instance"}
            for series in resource["series"]
        ]
    return kept


def encoded(resource: Any, *, pretty: bool) -> bytes:
    """Return the bytes of a resource or Bundle."""
    indent = orjson.OPT_INDENT_2 if pretty else 0
    return orjson.dumps(resource, option=orjson.OPT_APPEND_NEWLINE | indent)
