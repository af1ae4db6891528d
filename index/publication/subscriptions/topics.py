"""The topics that a subscription may be of, as tables; the SubscriptionTopic resource is made from them."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from index.publication.feed import CREATED, DELETED, UPDATED
from index.publication.searching.values import PREFIXES, modifiers_of
from index.publication.terms.parameters import Kind, Parameter, parameters_of

IMAGING_STUDY = "ImagingStudy"
_COMPLETE = "complete"
_STUDY_DEFINITION = "http://hl7.org/fhir/StructureDefinition/ImagingStudy"
# When the tables here were last changed.
_DATE = "2026-11-26"
_INTERACTIONS = {CREATED: "create", UPDATED: "update", DELETED: "delete"}
COMPARATORS = tuple(prefix for prefix in PREFIXES if prefix != "ap")
"""Of dates: "approximately" depends on when one asks."""
CHAINED = ("patient.identifier",)
"""Filters by what a reference leads to."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic. `name` is its id; `kinds`: the entries of the change feed that are its events."""

    name: str
    title: str
    description: str
    kinds: tuple[str, ...]


TOPICS = {
    topic.name: topic
    for topic in (
        Topic(
            "imagingstudy-change",
            "ImagingStudy has changed",
            "An ImagingStudy is created, changed or deleted. While instances arrive, it changes again and"
            " again.",
            (CREATED, UPDATED, DELETED),
        ),
        Topic(
            "imagingstudy-complete",
            "ImagingStudy is complete",
            "A study is said to be complete: by its MPPS, a storage commitment or its order, or it has been"
            " quiet for some time.",
            (_COMPLETE,),
        ),
    )
}
_PATH = "/SubscriptionTopic/"


def topic_url(topic: Topic, base: str) -> str:
    """Return the canonical URL of a topic; `base`: the address of any FHIR version of ours."""
    return f"{base.rpartition('/')[0]}/r5{_PATH}{topic.name}"


def find_topic(canonical: str) -> Topic | None:
    """Return the topic of a canonical URL, by whichever of our addresses; None: it is none of ours."""
    address, _, version = canonical.partition("|")
    begin, found, name = address.rpartition(_PATH)
    if not found or not begin.endswith("/fhir/r5") or version not in ("", _version()):
        return None
    return TOPICS.get(name)


def filters(fhir: str) -> dict[str, Parameter]:
    """Return what a subscription may filter by: the search parameters of ImagingStudy."""
    return parameters_of(fhir, IMAGING_STUDY)


def topic_resource(topic: Topic, base: str) -> dict[str, Any]:
    """Return a SubscriptionTopic (R5 subscriptiontopic.html)."""
    shape: dict[str, Any] = {
        "canFilterBy": list(_can_filter_by()),
        "notificationShape": [{"resource": _STUDY_DEFINITION}],
    }
    if topic.kinds == (_COMPLETE,):
        event = {"description": topic.description, "event": {"text": topic.title}}
        shape["eventTrigger"] = [event | {"resource": _STUDY_DEFINITION}]
    else:
        codes = [_INTERACTIONS[kind] for kind in topic.kinds]
        trigger = {"description": topic.description, "resource": _STUDY_DEFINITION}
        shape["resourceTrigger"] = [trigger | {"supportedInteraction": codes}]
    return {
        "resourceType": "SubscriptionTopic",
        "id": topic.name,
        "url": topic_url(topic, base),
        "version": _version(),
        "title": topic.title,
        "status": "active",
        "date": _DATE,
        "description": topic.description,
    } | shape


def _can_filter_by() -> Iterator[dict[str, Any]]:
    for name, parameter in filters("r5").items():
        found: dict[str, Any] = {"resource": _STUDY_DEFINITION, "filterParameter": name}
        if parameter.kind is Kind.DATE:
            found["comparator"] = list(COMPARATORS)
        yield found | {"modifier": list(modifiers_of(parameter))}
    for name in CHAINED:
        yield {"resource": _STUDY_DEFINITION, "filterParameter": name}


def _version() -> str:
    return "1"
