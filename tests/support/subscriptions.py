"""A site that may notify one endpoint, which is a scripted server; and Subscriptions of both versions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from index import Index, Right
from index.publication.subscriptions.definitions import BACKPORT
from support.daemon import eventually
from support.fhir_rest import BASE, client
from support.fhir_server import FhirServer, Request, Response
from support.filling import STORAGE, keep
from support.targets import FHIR

TOPIC = f"{BASE}/r5/SubscriptionTopic/imagingstudy-change"
COMPLETE = f"{BASE}/r5/SubscriptionTopic/imagingstudy-complete"
SECRET = "Bearer s3cret"  # noqa: S105  made up


class Hooked:
    """A served index with its FHIR face, and an endpoint that takes what comes."""

    def __init__(self, data: Path, server: FhirServer, *rights: Right) -> None:
        self.server = server
        self.script: Callable[[Request], Response | None] = lambda _: None
        server.script = lambda request: self.script(request) or Response(200)
        self.data = data
        self.open(*rights)

    def open(self, *rights: Right) -> None:
        self.index = Index(self.data, STORAGE, fhir=FHIR)
        self.index.subscriptions.allow([self.server.url.replace("/fhir", "/hooks")])
        self.index.serve()
        self.client = client(self.index, *(rights or (Right.READ, Right.WRITE)))

    def endpoint(self, fhir: str) -> str:
        """Return the address that notifications of a version are to be sent to."""
        return self.server.url.replace("/fhir", f"/hooks/{fhir}")

    def arrived(self, dataset: Dataset) -> None:
        """Keep an instance, and end its association."""
        keep(self.index, dataset)
        self.index.association_ended("test")

    def forget(self) -> None:
        """Begin anew: without subscriptions, requests and scripts."""
        for one in self.index.subscriptions.store.all():
            self.index.subscriptions.delete(one.fhir, one.name)
        self.script = lambda _: None
        self.index.subscriptions.allow([self.server.url.replace("/fhir", "/hooks")])
        self.server.requests.clear()

    def subscribe(self, fhir: str, resource: dict[str, Any], name: str = "") -> dict[str, Any]:
        """Make a subscription and wait for its handshake; return it as it is then."""
        path = f"/fhir/{fhir}/Subscription"
        if name:
            answer = self.client.put(f"{path}/{name}", json=resource | {"id": name})
        else:
            answer = self.client.post(path, json=resource)
        assert answer.status_code in (200, 201), answer.text
        made = answer.json()
        assert made["status"] == "requested"
        assert eventually(lambda: self.read(fhir, made["id"])["status"] != "requested")
        return self.read(fhir, made["id"])

    def read(self, fhir: str, name: str, rest: str = "") -> dict[str, Any]:
        answer = self.client.get(f"/fhir/{fhir}/Subscription/{name}{rest}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def told(self, fhir: str, kind: str = "event-notification") -> list[dict[str, Any]]:
        """Return the Bundles of one kind that have come."""
        mine = f"/hooks/{fhir}"
        bundles = [request.json for request in self.server.requests[:] if request.path == mine]
        return [one for one in bundles if state(fhir, one)["type"] == kind]

    def numbers(self, fhir: str) -> list[int]:
        return [number for one in self.told(fhir) for number in state(fhir, one)["numbers"]]

    def close(self) -> None:
        self.index.close()


def state(fhir: str, bundle: dict[str, Any]) -> dict[str, Any]:
    """Return what the first entry says, by the same names for both versions."""
    first = bundle["entry"][0]["resource"]
    if fhir == "r5":
        events = first.get("notificationEvent", [])
        numbers = [int(one["eventNumber"]) for one in events]
        focus = [one["focus"]["reference"] for one in events if "focus" in one]
        count = first["eventsSinceSubscriptionStart"]
    else:
        values = [(one["name"], one) for one in first["parameter"]]
        flat = {
            name: next(iter(v for k, v in one.items() if k.startswith("value")), None) for name, one in values
        }
        parts = [{p["name"]: p for p in one["part"]} for name, one in values if name == "notification-event"]
        numbers = [int(one["event-number"]["valueString"]) for one in parts]
        focus = [one["focus"]["valueReference"]["reference"] for one in parts if "focus" in one]
        first, count = flat, flat["events-since-subscription-start"]
    return {"type": first["type"], "status": first["status"], "topic": first.get("topic")} | {
        "numbers": numbers,
        "focus": focus,
        "count": int(count),
    }


def r5(endpoint: str, content: str = "id-only", filters: tuple[Any, ...] = (), **more: Any) -> dict[str, Any]:
    channel = "http://terminology.hl7.org/CodeSystem/subscription-channel-type"
    made = {
        "resourceType": "Subscription",
        "status": "requested",
        "topic": TOPIC,
        "reason": "a worklist",
        "channelType": {"system": channel, "code": "rest-hook"},
        "endpoint": endpoint,
        "contentType": "application/fhir+json",
        "content": content,
        **more,
    }
    if filters:
        names = ("filterParameter", "value")
        made["filterBy"] = [
            one if isinstance(one, dict) else dict(zip(names, one, strict=True)) for one in filters
        ]
    return made


def r4(
    endpoint: str, content: str = "id-only", filters: tuple[str, ...] = (), **channel: Any
) -> dict[str, Any]:
    topic = channel.pop("topic", TOPIC)
    made: dict[str, Any] = {
        "resourceType": "Subscription",
        "meta": {"profile": [f"{BACKPORT}subscription"]},
        "status": "requested",
        "reason": "a worklist",
        "criteria": topic,
        "channel": {
            "type": "rest-hook",
            "endpoint": endpoint,
            "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": f"{BACKPORT}payload-content", "valueCode": content}]},
            **channel,
        },
    }
    if filters:
        url = f"{BACKPORT}filter-criteria"
        made["_criteria"] = {"extension": [{"url": url, "valueString": one} for one in filters]}
    return made
