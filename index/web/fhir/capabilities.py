"""CapabilityStatement, in DSTU2 Conformance: what works, made from the tables that it works by."""

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from index.publication.subscriptions.definitions import BACKPORT, PROFILE
from index.publication.subscriptions.topics import TOPICS, topic_url
from index.publication.terms.parameters import parameters_of, types_of
from index.web.fhir.forms import FHIR_VERSIONS
from index.web.fhir.outcomes import MEDIA_TYPES
from index.web.fhir.search_request import COMMON, includes, reverse_includes
from index.web.fhir.subscribing import OPERATIONS, SEARCHED, TOPICS_SEARCHED, VERSIONS

INTERACTIONS = ("read", "vread", "history-instance", "search-type")
"""What every type of resource can do (http://hl7.org/fhir/restful-interaction)."""

_OPERATION = {
    "r4": "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-{}",
    "r5": "http://hl7.org/fhir/OperationDefinition/Subscription-{}",
}
# When the tables here were last changed.
_DATE = "2026-11-26"
_NAME = "imagingstudyd"


def capabilities(fhir: str, base: str, *, subscriptions: bool = False) -> dict[str, Any]:
    """Return the statement of one version, which is served at `base`.

    `subscriptions`: whether they may be made and changed.
    """
    dstu2 = fhir == "dstu2"
    resources = [_resource(fhir, each) for each in types_of(fhir)]
    if fhir in VERSIONS:
        resources += _subscribing(fhir, base, may_change=subscriptions)
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
        "rest": [{"mode": "server", "resource": resources}],
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


def _subscribing(fhir: str, base: str, *, may_change: bool) -> Iterator[dict[str, Any]]:
    """Yield what can be done with subscriptions, and in R5 with their topics."""
    changes = ("create", "update") if may_change else ()
    names = [name for name in SEARCHED if name != ("criteria" if fhir == "r5" else "topic")]
    found: dict[str, Any] = {
        "type": "Subscription",
        "interaction": [{"code": code} for code in ("read", "search-type", "delete", *changes)],
        "versioning": "versioned",
        "readHistory": False,
        "updateCreate": may_change,
        "searchParam": [{"name": name, "type": SEARCHED[name]} for name in names],
        "operation": [{"name": name, "definition": _OPERATION[fhir].format(name)} for name in OPERATIONS],
    }
    if fhir == "r4":
        canonical = f"{BACKPORT.removesuffix('backport-')}capabilitystatement-subscriptiontopic-canonical"
        urls = [topic_url(topic, base) for topic in TOPICS.values()]
        found["extension"] = [{"url": canonical, "valueCanonical": url} for url in urls]
        found["supportedProfile"] = [PROFILE]
    yield found
    if fhir == "r5":
        yield {
            "type": "SubscriptionTopic",
            "interaction": [{"code": code} for code in ("read", "search-type")],
            "searchParam": [{"name": name, "type": kind} for name, kind in TOPICS_SEARCHED.items()],
        }


def _version() -> str:
    try:
        return version(_NAME)
    except PackageNotFoundError:
        return "unknown"
