"""Notification Bundles: R5's subscription-notification, and for R4 the history Bundle of the backport.

R5 subscriptionstatus.html; hl7.org/fhir/uv/subscriptions-backport 1.1.0, Profiles
backport-subscription-notification-r4 and backport-subscription-status-r4.
"""

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import orjson

from index.database.subscription_tables import SubscriptionStatus
from index.publication.feed import CREATED, UPDATED
from index.publication.resources import Resources, StoredResource
from index.publication.subscriptions.definitions import BACKPORT
from index.publication.subscriptions.store import Event, Subscription, now
from index.publication.subscriptions.topics import IMAGING_STUDY

MOST_BYTES = 16 * 1024 * 1024
"""Of the resources in one Bundle: a study of 100,000 instances has as many."""

_BUNDLES = {"r4": "history", "r5": "subscription-notification"}
# How a change would have been made by a client (Bundle.entry.request), and its status.
_REQUESTS = {CREATED: ("PUT", "201"), UPDATED: ("PUT", "200")}
_READ = ("GET", "200")


class Kind(StrEnum):
    """SubscriptionStatus.type (http://hl7.org/fhir/subscription-notification-type)."""

    HANDSHAKE = "handshake"
    HEARTBEAT = "heartbeat"
    EVENT = "event-notification"
    STATUS = "query-status"
    EVENTS = "query-event"


def instant(milliseconds: int) -> str:
    """Return a time as an instant."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def status_resource(
    subscription: Subscription,
    kind: Kind,
    events: Sequence[Event] = (),
    content: str = "",
    *,
    status: SubscriptionStatus | None = None,
) -> dict[str, Any]:
    """Return the state of a subscription: R5's SubscriptionStatus, or the Parameters of the backport."""
    content = content or subscription.definition.content
    # What an empty notification is about is nobody's to read.
    topic = "" if kind is Kind.EVENT and content == "empty" else subscription.definition.topic_url
    last = max([subscription.events, *(event.number for event in events)])
    told = [
        (str(event.number), instant(event.at), "" if content == "empty" else _focus(subscription, event))
        for event in events
    ]
    is_failed = subscription.status == SubscriptionStatus.ERROR
    error = subscription.error or "it has failed" if is_failed and kind is Kind.STATUS else ""
    make = _parameters if subscription.fhir == "r4" else _subscription_status
    made = make(subscription, str(status or subscription.status), kind, str(last), told, topic, error)
    return {"resourceType": made.pop("resourceType"), "id": str(uuid.uuid4())} | made


def _focus(subscription: Subscription, event: Event) -> str:
    return f"{subscription.base}/{IMAGING_STUDY}/{event.name}"


_Told = Sequence[tuple[str, str, str]]


def _subscription_status(
    subscription: Subscription, status: str, kind: Kind, last: str, told: _Told, topic: str, error: str
) -> dict[str, Any]:
    # R5 2.1.28.0.1: an integer64 is a string in JSON.
    made: dict[str, Any] = {
        "resourceType": "SubscriptionStatus",
        "status": status,
        "type": str(kind),
        "eventsSinceSubscriptionStart": last,
    }
    if told:
        made["notificationEvent"] = [
            {"eventNumber": number, "timestamp": at} | ({"focus": {"reference": focus}} if focus else {})
            for number, at, focus in told
        ]
    made["subscription"] = {"reference": subscription.url}
    made |= {"topic": topic} if topic else {}
    return made | ({"error": [{"text": error}]} if error else {})


def _parameters(
    subscription: Subscription, status: str, kind: Kind, last: str, told: _Told, topic: str, error: str
) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": "subscription", "valueReference": {"reference": subscription.url}},
        {"name": "topic", "valueCanonical": topic},
        {"name": "status", "valueCode": status},
        {"name": "type", "valueCode": str(kind)},
        {"name": "events-since-subscription-start", "valueString": last},
    ]
    for number, at, focus in told:
        part: list[dict[str, Any]] = [
            {"name": "event-number", "valueString": number},
            {"name": "timestamp", "valueInstant": at},
        ]
        part += [{"name": "focus", "valueReference": {"reference": focus}}] if focus else []
        parameters.append({"name": "notification-event", "part": part})
    if error:
        parameters.append({"name": "error", "valueCodeableConcept": {"text": error}})
    if not topic:
        del parameters[1]
    meta = {"profile": [f"{BACKPORT}subscription-status-r4"]}
    return {"resourceType": "Parameters", "meta": meta, "parameter": parameters}


class Notifications:
    """Makes notification Bundles with resources as they are now. Its methods raise NotKept."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources

    def bundle(
        self,
        subscription: Subscription,
        kind: Kind,
        events: Sequence[Event] = (),
        content: str = "",
        *,
        status: SubscriptionStatus | None = None,
    ) -> tuple[bytes, int]:
        """Return a Bundle, and how many of the events it tells of: fewer where the resources are large.

        `content`: how much of the resources; empty: as the subscription has it.
        """
        content = content or subscription.definition.content
        entries: list[dict[str, Any]] = []
        if content == "full-resource":
            entries, count = self._entries(subscription, events)
            events = events[:count]
        first = status_resource(subscription, kind, events, content, status=status)
        made: dict[str, Any] = {
            "resourceType": "Bundle",
            "type": _BUNDLES[subscription.fhir],
            "timestamp": instant(now()),
            "entry": [_first(subscription, first), *entries],
        }
        if subscription.fhir == "r4":
            profile = {"profile": [f"{BACKPORT}subscription-notification-r4"]}
            made = {"resourceType": "Bundle", "meta": profile} | made
        return orjson.dumps(made), len(events)

    def _entries(
        self, subscription: Subscription, events: Sequence[Event]
    ) -> tuple[list[dict[str, Any]], int]:
        """Return an entry for each study of the events, and for how many events they are."""
        entries: dict[str, dict[str, Any]] = {}
        size = 0
        for count, event in enumerate(events):
            if event.name in entries:
                continue
            stored = self._resources.read(subscription.fhir, IMAGING_STUDY, event.name)
            content = stored.content if stored else b""
            size += len(content)
            if entries and size > MOST_BYTES:
                return list(entries.values()), count
            entries[event.name] = _entry(subscription, event, stored, content)
        return list(entries.values()), len(events)


def _first(subscription: Subscription, resource: dict[str, Any]) -> dict[str, Any]:
    return {
        "fullUrl": f"urn:uuid:{resource['id']}",
        "resource": resource,
        "request": {"method": "GET", "url": f"{subscription.url}/$status"},
        "response": {"status": "200"},
    }


def _entry(
    subscription: Subscription, event: Event, stored: StoredResource | None, content: bytes
) -> dict[str, Any]:
    """Return the entry of a study as it is now (R4 and R5 bundle.html, invariants bdl-3 and bdl-4)."""
    name = f"{IMAGING_STUDY}/{event.name}"
    entry: dict[str, Any] = {"fullUrl": f"{subscription.base}/{name}"}
    if not content or stored is None:
        return entry | {"request": {"method": "DELETE", "url": name}, "response": {"status": "204"}}
    method, status = _REQUESTS.get(event.kind, _READ)
    response = {"status": status, "etag": f'W/"{stored.version}"'}
    if stored.changed:
        response["lastModified"] = instant(stored.changed)
    made = {"resource": orjson.Fragment(content), "request": {"method": method, "url": name}}
    return entry | made | {"response": response}
