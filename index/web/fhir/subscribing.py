"""Subscription and SubscriptionTopic: create, update, read, search, delete, $status and $events.

R5 subscription.html and subscriptiontopic.html; for R4 hl7.org/fhir/uv/subscriptions-backport 1.1.0.
To make one takes the rights read and write: it changes something here, and is told what its owner could read.
To change or delete one of another owner takes operate.
"""

from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from index.facade import Index
from index.imagingstudy.values import is_id
from index.publication.subscriptions.definitions import CONTENTS, BadSubscription
from index.publication.subscriptions.notifications import Kind, status_resource
from index.publication.subscriptions.service import NotAllowed
from index.publication.subscriptions.store import Subscription, TooMany, VersionConflict, new_name
from index.publication.subscriptions.topics import TOPICS, Topic, topic_resource, topic_url
from index.web.fhir.bundles import Bundle
from index.web.fhir.forms import Form, Parameters, encoded, form_of
from index.web.fhir.orders import of_type, resource_of
from index.web.fhir.outcomes import MEDIA_TYPES, Refused
from index.web.fhir.reading import self_url
from index.web.fhir.search_request import is_strict
from index.web.rights import Refuse, Right, caller_of, needs

Base = Callable[[Request], str]

SEARCHED = {
    "_id": "token",
    "status": "token",
    "type": "token",
    "url": "uri",
    "topic": "uri",
    "criteria": "string",
}
"""Search parameters of Subscription, by their types."""
TOPICS_SEARCHED = {
    "_id": "token",
    "url": "uri",
    "derived-or-self": "uri",
    "resource": "uri",
    "status": "token",
}
OPERATIONS = ("status", "events")
VERSIONS = ("r4", "r5")
MOST_EVENTS = 1000
"""Events in the answer to one $events."""
_NUMBERS = {"eventsSinceNumber": 0, "eventsUntilNumber": 2**62}


class Subscribing:
    """The subscriptions of one FHIR version; `base` returns its address, as a caller reaches it."""

    def __init__(self, index: Index, fhir: str, base: Base) -> None:
        self._subscriptions = index.subscriptions
        self._store = index.subscriptions.store
        self._fhir = fhir
        self._base = base

    def routes(self, refuse: Refuse) -> list[BaseRoute]:
        """Return the routes; `refuse` makes the answer to who may not."""
        read = needs(Right.READ, refuse)

        def write(endpoint: Any) -> Any:
            return read(needs(Right.WRITE, refuse)(endpoint))

        one, both = "/Subscription/{id}", ["GET", "POST"]
        topics = [
            Route("/SubscriptionTopic/{id}", read(self.topic)),
            Route("/SubscriptionTopic", read(self.search_topics)),
        ]
        return [
            *(topics if self._fhir == "r5" else []),
            Route("/Subscription/$status", read(self.status), methods=both),
            Route(f"{one}/$status", read(self.status), methods=both),
            Route(f"{one}/$events", read(self.events), methods=both),
            Route(one, write(self.update), methods=["PUT"]),
            Route(one, write(self.delete), methods=["DELETE"]),
            Route(one, read(self.read)),
            Route("/Subscription", write(self.create), methods=["POST"]),
            Route("/Subscription", read(self.search)),
        ]

    async def create(self, request: Request) -> Response:
        """Make a subscription (POST /Subscription)."""
        resource = of_type(await resource_of(request), "Subscription")
        return await self._put(request, new_name(), resource)

    async def update(self, request: Request) -> Response:
        """Change a subscription, or make one with its sender's id (PUT /Subscription/ID)."""
        name = request.path_params["id"]
        resource = of_type(await resource_of(request), "Subscription")
        if resource.get("id") != name or not is_id(name):
            raise Refused(400, "Subscription.id: it must be the id in the address, of 1 to 64 A-Za-z0-9-.")
        return await self._put(request, name, resource)

    async def _put(self, request: Request, name: str, resource: dict[str, Any]) -> Response:
        version = _version(request.headers.get("if-match"))
        owner, base = caller_of(request).name, self._base(request)

        def put() -> tuple[Subscription, bool]:
            self._check_owner(request, name)
            return self._subscriptions.put(self._fhir, name, resource, base, owner, version)

        try:
            made, is_new = await run_sync(put)
        except NotAllowed as error:
            raise Refused(403, str(error), "forbidden") from error
        except BadSubscription as error:
            raise Refused(422, f"Subscription.{error}", "processing") from error
        except TooMany as error:
            raise Refused(422, str(error), "too-costly") from error
        except VersionConflict as error:
            raise Refused(412, str(error), "conflict") from error
        headers = {"Location": f"{base}/Subscription/{name}/_history/{made.version}"}
        return self._answer(made, Form(), status=201 if is_new else 200, headers=headers)

    async def delete(self, request: Request) -> Response:
        """Delete a subscription."""
        name = request.path_params["id"]

        def delete() -> bool:
            self._check_owner(request, name)
            return self._subscriptions.delete(self._fhir, name)

        if not await run_sync(delete):
            raise Refused(404, f"Subscription/{name[:100]} is not known")
        return Response(status_code=204)

    def _check_owner(self, request: Request, name: str) -> None:
        known, caller = self._store.find(self._fhir, name), caller_of(request)
        if known and known.owner != caller.name and Right.OPERATE not in caller.rights:
            raise Refused(403, f"Subscription/{name}: belongs to another caller")

    def read(self, request: Request) -> Response:
        """Return a subscription, without the values of its headers."""
        form = form_of(request.query_params.multi_items(), request.headers, self._fhir)
        return self._answer(self._found(request), form)

    def _found(self, request: Request) -> Subscription:
        name = request.path_params["id"]
        found = self._store.find(self._fhir, name)
        if found is None:
            raise Refused(404, f"Subscription/{name[:100]} is not known")
        return found

    def _answer(
        self, one: Subscription, form: Form, status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        changed = {
            "ETag": f'W/"{one.version}"',
            "Last-Modified": formatdate(one.changed // 1000, usegmt=True),
        }
        content = encoded(one.resource(), pretty=form.pretty)
        return Response(content, status, (headers or {}) | changed, MEDIA_TYPES[self._fhir])

    def search(self, request: Request) -> Response:
        """Return the subscriptions that fit; there are few."""

        def values(one: Subscription) -> dict[str, str]:
            asked = one.definition
            same = {"topic": asked.topic_url} if self._fhir == "r5" else {"criteria": asked.topic_url}
            own = {"_id": one.name, "status": str(one.status), "type": "rest-hook", "url": asked.endpoint}
            return own | same

        found = [(f"Subscription/{one.name}", one.resource(), values(one)) for one in self._all()]
        return self._searched(request, found)

    def _all(self) -> list[Subscription]:
        return [one for one in self._store.served() if one.fhir == self._fhir]

    def topic(self, request: Request) -> Response:
        """Return a topic."""
        name = request.path_params["id"]
        form = form_of(request.query_params.multi_items(), request.headers, self._fhir)
        if name not in TOPICS:
            raise Refused(404, f"SubscriptionTopic/{name[:100]} is not known; there are {', '.join(TOPICS)}")
        content = encoded(topic_resource(TOPICS[name], self._base(request)), pretty=form.pretty)
        return Response(content, media_type=MEDIA_TYPES[self._fhir])

    def search_topics(self, request: Request) -> Response:
        """Return the topics that fit."""
        base = self._base(request)

        def values(one: Topic) -> dict[str, str]:
            url = topic_url(one, base)
            same = {"url": url, "derived-or-self": url}
            return {"_id": one.name, "resource": "ImagingStudy", "status": "active"} | same

        found = [
            (f"SubscriptionTopic/{one.name}", topic_resource(one, base), values(one))
            for one in TOPICS.values()
        ]
        return self._searched(request, found)

    def _searched(
        self, request: Request, found: Sequence[tuple[str, dict[str, Any], dict[str, str]]]
    ) -> Response:
        """Return a searchset of those whose values are among what is asked for."""
        given = request.query_params.multi_items()
        form = form_of(given, request.headers, self._fhir)
        known = found[0][2].keys() if found else SEARCHED.keys()
        asked = [(name, value.split(",")) for name, value in given if name in known]
        unknown = [name for name, _ in given if name not in known and not name.startswith("_")]
        if unknown and is_strict(request.headers.getlist("prefer")):
            raise Refused(400, f"{unknown[0][:100]}: there is no such search parameter", "not-supported")
        bundle = Bundle(self._fhir, "searchset", self_url(request, self._base(request)), self._base(request))
        for name, resource, values in found:
            if all(values[key].removeprefix(_STUDY) in map(_plain, wanted) for key, wanted in asked):
                bundle.add(name, resource, "match")
        content = bundle.encoded(pretty=form.pretty, total=len(bundle.entries))
        return Response(content, media_type=MEDIA_TYPES[self._fhir])

    async def status(self, request: Request) -> Response:
        """Return the state of one subscription, or of those that are asked for ($status)."""
        given = await _parameters(request)

        def made() -> list[dict[str, Any]]:
            if "id" in request.path_params:
                found = [self._found(request)]
            else:
                found = [one for one in self._all() if _fits(given, id=one.name, status=str(one.status))]
            return [status_resource(one, Kind.STATUS) for one in found]

        base = self._base(request)
        bundle = Bundle(self._fhir, "searchset", self_url(request, base), base)
        for resource in await run_sync(made):
            search = {"mode": "match"}
            bundle.add_raw({"fullUrl": f"urn:uuid:{resource['id']}", "resource": resource, "search": search})
        content = bundle.encoded(pretty=False, total=len(bundle.entries))
        return Response(content, media_type=MEDIA_TYPES[self._fhir])

    async def events(self, request: Request) -> Response:
        """Return events once more, those that the change feed still knows ($events)."""
        given = await _parameters(request)
        first, last = (_number(given, name, default) for name, default in _NUMBERS.items())
        content = dict(given).get("content", "")
        if content and content not in CONTENTS:
            raise Refused(400, f"content={content[:100]}: allowed are {', '.join(CONTENTS)}")

        def made() -> bytes:
            one = self._found(request)
            events = self._store.events(one, first, min(last, one.events), MOST_EVENTS)
            return self._subscriptions.notifications.bundle(one, Kind.EVENTS, events, content)[0]

        return Response(await run_sync(made), media_type=MEDIA_TYPES[self._fhir])


_STUDY = "http://hl7.org/fhir/StructureDefinition/"


def _plain(value: str) -> str:
    """Return a value to compare: of a token its code, of a type its name."""
    return value.rpartition("|")[2].removeprefix(_STUDY)


def _fits(given: Parameters, **values: str) -> bool:
    """Tell whether each value is among those that are asked for, if any are."""
    asked = {
        name: [one for key, value in given if key == name for one in value.split(",")] for name in values
    }
    return all(not asked[name] or value in asked[name] for name, value in values.items())


async def _parameters(request: Request) -> Parameters:
    """Return the parameters of an operation: of its address, or of Parameters. Raises Refused."""
    given: Parameters = list(request.query_params.multi_items())
    if request.method != "POST" or request.headers.get("content-length") == "0":
        return given
    for one in of_type(await resource_of(request), "Parameters").get("parameter", ()):
        values = [str(value) for name, value in one.items() if name.startswith("value")]
        given.append((str(one.get("name")), values[0] if values else ""))
    return given


def _number(given: Parameters, name: str, default: int) -> int:
    text = dict(given).get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < len(str(2**62))):
        raise Refused(400, f"{name}={text[:100]}: allowed is the number of an event")
    return int(text)


def _version(if_match: str | None) -> int | None:
    """Return the version that If-Match asks for (R4 3.1.0.8)."""
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit() and len(text) < len(str(2**31))):
        raise Refused(400, f'If-Match {if_match[:100]}: allowed is W/"VERSION"')
    return int(text)
