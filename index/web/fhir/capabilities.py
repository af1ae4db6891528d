"""CapabilityStatement, in DSTU2 Conformance: what works, made from the tables that it works by."""

from importlib.metadata import PackageNotFoundError, version
from typing import Any

from index.publication.terms.parameters import parameters_of, types_of
from index.web.fhir.forms import FHIR_VERSIONS
from index.web.fhir.outcomes import MEDIA_TYPES
from index.web.fhir.search_request import COMMON, includes, reverse_includes

INTERACTIONS = ("read", "vread", "history-instance", "search-type")
"""What every type of resource can do (http://hl7.org/fhir/restful-interaction)."""

# When the tables here were last changed.
_DATE = "2026-11-26"
_NAME = "imagingstudyd"


def capabilities(fhir: str, base: str) -> dict[str, Any]:
    """Return the statement of one version, which is served at `base`."""
    dstu2 = fhir == "dstu2"
    head = {
        "resourceType": "Conformance" if dstu2 else "CapabilityStatement",
        "url": f"{base}/metadata",
        "name": _NAME,
        "title": f"imagingstudyd, FHIR {FHIR_VERSIONS[fhir]}",
        "status": "active",
        "date": _DATE,
        "kind": "instance",
        "software": {"name": _NAME, "version": _version()},
        "implementation": {"description": "The imaging studies of this server", "url": base},
        "fhirVersion": FHIR_VERSIONS[fhir],
        "format": [MEDIA_TYPES[fhir], "json"],
        "rest": [{"mode": "server", "resource": [_resource(fhir, each) for each in types_of(fhir)]}],
    }
    if dstu2:
        del head["title"]
        head["acceptUnknown"] = "no"
    return head


def _resource(fhir: str, type: str) -> dict[str, Any]:  # noqa: A002  FHIR's word
    found = parameters_of(fhir, type)
    named = [*COMMON.items(), *((each.name, each.kind) for each in found.values())]
    included = includes(fhir, type), reverse_includes(fhir, type)
    lists = {"searchInclude": included[0], "searchRevInclude": included[1]}
    return {
        "type": type,
        "interaction": [{"code": code} for code in INTERACTIONS],
        "versioning": "versioned",
        "readHistory": False,
        **{name: values for name, values in lists.items() if values},
        "searchParam": [{"name": name, "type": str(kind)} for name, kind in named],
    }


def _version() -> str:
    try:
        return version(_NAME)
    except PackageNotFoundError:
        return "unknown"
