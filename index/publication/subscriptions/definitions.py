"""What a Subscription asks for: read from its R5 resource, or from R4 with the extensions of the backport.

R5 subscription.html; hl7.org/fhir/uv/subscriptions-backport 1.1.0, Profile backport-subscription.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from index.errors import IndexFault
from index.publication.searching.values import BadSearch, Criterion, criterion
from index.publication.subscriptions.endpoints import check_endpoint
from index.publication.subscriptions.topics import CHAINED, IMAGING_STUDY, Topic, filters, find_topic

MOST_FILTERS, LONGEST_FILTER = 20, 1000
MOST_HEADERS, LONGEST_HEADER = 10, 4096
LONGEST_TIMEOUT = 60
"""Seconds that an endpoint may take for one notification."""
SHORTEST_HEARTBEAT, LONGEST_HEARTBEAT = 10, 7 * 86400
"""Seconds between two heartbeats: fewer would be a load on both."""
MOST_EVENTS = 100
"""Events of one notification, whatever is asked for."""
DEFAULT_TIMEOUT = 20

CONTENTS = ("empty", "id-only", "full-resource")
BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-"
PROFILE = f"{BACKPORT}subscription"
MASK = "***"
"""Stands for the value of a header where a Subscription is read: it may be a secret."""

_MEDIA_TYPE = re.compile(r"application/(fhir\+)?json")
_RELEASES = {"r4": "4.0", "r5": "5.0"}
_CHANNELS = "http://terminology.hl7.org/CodeSystem/subscription-channel-type"
_STUDIES = ("", IMAGING_STUDY, f"http://hl7.org/fhir/StructureDefinition/{IMAGING_STUDY}")
# RFC 9110 Section 5.1 and 5.5; of a value what is visible.
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}):[ \t]*([\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?)")
# Ours, or those of the connection (RFC 9110 Sections 7.2, 7.6.1, 8).
_OUR_HEADERS = frozenset(
    (
        *("host", "connection", "content-length", "content-type", "content-encoding", "transfer-encoding"),
        *("te", "trailer", "upgrade", "keep-alive", "expect", "accept-encoding", "user-agent"),
        *("forwarded", "via", "proxy-authorization", "proxy-connection"),
    )
)
# Elements that are kept as they are: what they must be, in JSON.
_KEPT: dict[str, dict[str, type]] = {
    "r4": {"contact": list, "reason": str, "extension": list},
    "r5": {
        "identifier": list,
        "name": str,
        "contact": list,
        "managingEntity": dict,
        "reason": str,
    },
}


class BadSubscription(IndexFault):
    """A Subscription that cannot be served: the message names the element, the value and what is allowed."""


@dataclass(frozen=True, slots=True)
class Definition:
    """What a subscription asks for. `end` in ms since 1970; `topic_url` as it was given.

    `resource`: the elements that are kept, without id and status, with its headers.
    """

    topic: Topic
    topic_url: str
    filters: tuple[Criterion, ...]
    endpoint: str
    headers: tuple[tuple[str, str], ...]
    heartbeat: int | None
    timeout: int
    content: str
    media_type: str
    max_count: int
    end: int | None
    resource: dict[str, Any]


def read_definition(fhir: str, resource: Mapping[str, Any], base: str = "") -> Definition:
    """Return what a Subscription asks for. Raises BadSubscription."""
    if "modifierExtension" in resource or "implicitRules" in resource:
        raise BadSubscription("modifierExtension and implicitRules: change what is meant, and are not known")
    return (_read_r4 if fhir == "r4" else _read_r5)(resource, base)


def masked(fhir: str, resource: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource without the values of its headers."""
    made = dict(resource)
    if fhir == "r4" and "header" in made["channel"]:
        names = [line.partition(":")[0] for line in made["channel"]["header"]]
        made["channel"] = made["channel"] | {"header": [f"{name}: {MASK}" for name in names]}
    elif fhir == "r5" and "parameter" in made:
        made["parameter"] = [one | {"value": MASK} for one in made["parameter"]]
    return made


def unmasked(fhir: str, resource: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return a resource with the values of headers that its sender has seen masked only."""
    known = dict(read_definition(fhir, before).headers)
    made = dict(resource)
    if fhir == "r4" and isinstance(channel := made.get("channel"), dict) and _list(channel, "header"):
        lines = [(line, *str(line).partition(":")[::2]) for line in channel["header"]]
        header = [
            f"{name}: {known[name]}" if value.strip() == MASK and name in known else line
            for line, name, value in lines
        ]
        made["channel"] = channel | {"header": header}
    elif fhir == "r5" and _list(made, "parameter"):
        made["parameter"] = [
            one | {"value": known[one["name"]]}
            if isinstance(one, dict) and one.get("value") == MASK and one.get("name") in known
            else one
            for one in made["parameter"]
        ]
    return made


def _read_r5(given: Mapping[str, Any], base: str) -> Definition:
    channel = given.get("channelType")
    code = channel.get("code") if isinstance(channel, dict) else None
    system = channel.get("system", _CHANNELS) if isinstance(channel, dict) else None
    if (code, system) != ("rest-hook", _CHANNELS):
        raise BadSubscription(f"channelType {_shown(code)}: allowed is rest-hook of {_CHANNELS}")
    headers = [f"{_text(one, 'name')}: {_text(one, 'value')}" for one in _list(given, "parameter")]
    asked = [_filter_of(one) for one in _list(given, "filterBy")]
    kept = _kept("r5", given) | {"channelType": {"system": _CHANNELS, "code": "rest-hook"}}
    names = ("topic", "endpoint", "heartbeatPeriod", "timeout", "contentType", "content", "maxCount", "end")
    kept |= {name: given[name] for name in names if name in given}
    if headers:
        kept["parameter"] = [{"name": one["name"], "value": one["value"]} for one in given["parameter"]]
    if asked:
        allowed = ("resourceType", "filterParameter", "comparator", "modifier", "value")
        kept["filterBy"] = [{name: one[name] for name in allowed if name in one} for one in given["filterBy"]]
    return _made("r5", {**given, "header": headers}, asked, kept, base)


def _filter_of(one: Any) -> tuple[str, str]:
    """Return name and value of a search from R5's filterBy."""
    if _text(one, "resourceType", "") not in _STUDIES:
        raise BadSubscription(f"filterBy.resourceType {_shown(one['resourceType'])}: allowed is ImagingStudy")
    name, modifier, comparator = (
        _text(one, "filterParameter"),
        _text(one, "modifier", ""),
        _text(one, "comparator", ""),
    )
    if modifier and comparator:
        raise BadSubscription("filterBy: may have a modifier or a comparator, not both")
    return (f"{name}:{modifier}" if modifier else name), f"{comparator}{_text(one, 'value')}"


def _read_r4(given: Mapping[str, Any], base: str) -> Definition:
    channel = given.get("channel")
    if not isinstance(channel, dict) or channel.get("type") != "rest-hook" or "_type" in channel:
        raise BadSubscription("channel.type: allowed is rest-hook")
    if not isinstance(given.get("reason"), str):
        raise BadSubscription("reason: is missing (R4 Subscription.reason, 1..1)")
    extensions = _extensions(channel)
    payload = _extensions(channel.get("_payload"))
    filters_ = _values(given.get("_criteria"), "filter-criteria", "valueString")
    flat: dict[str, Any] = {
        "topic": given.get("criteria"),
        "endpoint": channel.get("endpoint"),
        "header": channel.get("header", []),
        "contentType": channel.get("payload"),
        "content": payload.get("payload-content", {}).get("valueCode"),
        "heartbeatPeriod": extensions.get("heartbeat-period", {}).get("valueUnsignedInt"),
        "timeout": extensions.get("timeout", {}).get("valueUnsignedInt"),
        "maxCount": extensions.get("max-count", {}).get("valuePositiveInt"),
        "end": given.get("end"),
    }
    if flat["contentType"] is None or flat["content"] is None:
        raise BadSubscription("channel.payload: is missing, or its extension backport-payload-content")
    asked = [pair for text in filters_ for pair in _criteria(text)]
    kept = _kept("r4", given) | {"criteria": flat["topic"]}
    if filters_:
        kept["_criteria"] = _extended({"filter-criteria": ("valueString", text)} for text in filters_)
    kept["channel"] = _channel(flat)
    if flat["end"] is not None:
        kept["end"] = flat["end"]
    meta = given.get("meta")
    if isinstance(meta, dict) and PROFILE in _list(meta, "profile"):
        kept["meta"] = {"profile": [PROFILE]}
    return _made("r4", {key: one for key, one in flat.items() if one is not None}, asked, kept, base)


def _channel(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return Subscription.channel of R4 with what is known."""
    numbers = (
        ("heartbeat-period", "valueUnsignedInt", flat["heartbeatPeriod"]),
        ("timeout", "valueUnsignedInt", flat["timeout"]),
        ("max-count", "valuePositiveInt", flat["maxCount"]),
    )
    channel = _extended({name: (kind, value)} for name, kind, value in numbers if value is not None)
    channel |= {"type": "rest-hook", "endpoint": flat["endpoint"], "payload": flat["contentType"]}
    channel["_payload"] = _extended([{"payload-content": ("valueCode", flat["content"])}])
    return channel | ({"header": flat["header"]} if flat["header"] else {})


def _extended(values: Any) -> dict[str, Any]:
    """Return an object with these extensions of the backport; without any an empty one."""
    made = [
        {"url": f"{BACKPORT}{name}", kind: value} for one in values for name, (kind, value) in one.items()
    ]
    return {"extension": made} if made else {}


def _extensions(node: Any) -> dict[str, dict[str, Any]]:
    """Return the backport's extensions of a node by the ends of their names."""
    found = _list(node, "extension") if isinstance(node, dict) else []
    return {
        str(one.get("url", "")).removeprefix(BACKPORT): one
        for one in found
        if isinstance(one, dict) and str(one.get("url", "")).startswith(BACKPORT)
    }


def _values(node: Any, name: str, kind: str) -> list[str]:
    found = _list(node, "extension") if isinstance(node, dict) else []
    mine = [one for one in found if isinstance(one, dict) and one.get("url") == f"{BACKPORT}{name}"]
    return [_text(one, kind) for one in mine]


def _criteria(text: str) -> list[tuple[str, str]]:
    """Return names and values of a filter: name=value, ImagingStudy.name=value, ImagingStudy?name=value."""
    _, _, query = text.rpartition("?")
    kind, mark, _ = text.partition("?")
    if mark and kind not in _STUDIES:
        raise BadSubscription(f"filter {_shown(text)}: allowed are filters of ImagingStudy")
    pairs = [part.partition("=") for part in query.split("&")]
    if not all(equals for _, equals, _ in pairs):
        raise BadSubscription(f"filter {_shown(text)}: allowed is NAME=VALUE")
    return [(name.removeprefix(f"{IMAGING_STUDY}."), value) for name, _, value in pairs]


def _made(
    fhir: str, given: Mapping[str, Any], asked: Sequence[tuple[str, str]], kept: dict[str, Any], base: str
) -> Definition:
    """Return the definition, from what both versions call by R5's names."""
    url = _text(given, "topic")
    topic = find_topic(url)
    if topic is None:
        raise BadSubscription(f"topic {_shown(url)}: is none of this server's, see SubscriptionTopic of R5")
    content = _text(given, "content", "empty")
    if content not in CONTENTS:
        raise BadSubscription(f"content {_shown(content)}: allowed are {', '.join(CONTENTS)}")
    endpoint = _text(given, "endpoint")
    try:
        check_endpoint(endpoint)
    except ValueError as error:
        raise BadSubscription(f"endpoint {_shown(endpoint)}: {error}") from error
    heartbeat = _number(given, "heartbeatPeriod", 0, LONGEST_HEARTBEAT)
    if heartbeat and heartbeat < SHORTEST_HEARTBEAT:
        raise BadSubscription(f"heartbeatPeriod {heartbeat}: allowed are 0 and {SHORTEST_HEARTBEAT} or more")
    return Definition(
        topic,
        url,
        _filters(fhir, asked, base),
        endpoint,
        _headers(given),
        heartbeat or None,
        _number(given, "timeout", 1, LONGEST_TIMEOUT) or DEFAULT_TIMEOUT,
        content,
        _media_type(fhir, _text(given, "contentType", "application/fhir+json")),
        min(_number(given, "maxCount", 1, 2**31 - 1) or MOST_EVENTS, MOST_EVENTS),
        _instant(given),
        kept,
    )


def _filters(fhir: str, asked: Sequence[tuple[str, str]], base: str) -> tuple[Criterion, ...]:
    if len(asked) > MOST_FILTERS:
        raise BadSubscription(f"filters: {len(asked)} are too many, allowed are {MOST_FILTERS}")
    found = []
    for name, value in asked:
        word = name.partition(":")[0]
        if len(value) > LONGEST_FILTER or (word not in filters(fhir) and word not in CHAINED):
            allowed = ", ".join((*filters(fhir), *CHAINED))
            raise BadSubscription(f"filter {_shown(name)}: allowed are {allowed}")
        try:
            found.append(
                criterion(fhir, IMAGING_STUDY, name, value.replace(f"{base}/", "") if base else value)
            )
        except BadSearch as error:
            raise BadSubscription(f"filter {error}") from error
    return tuple(found)


def _headers(given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    lines = _list(given, "header")
    if len(lines) > MOST_HEADERS or sum(len(str(line)) for line in lines) > LONGEST_HEADER:
        raise BadSubscription(f"header: allowed are {MOST_HEADERS}, of {LONGEST_HEADER} characters in all")
    made = []
    for line in lines:
        found = _HEADER.fullmatch(line) if isinstance(line, str) else None
        if found is None or found[1].lower() in _OUR_HEADERS:
            # Its value may be a secret.
            name = _shown(str(line).partition(":")[0])
            raise BadSubscription(f"header {name}: allowed is NAME: VALUE, of a header that we do not set")
        made.append((found[1], found[2]))
    return tuple(made)


def _media_type(fhir: str, text: str) -> str:
    name, *options = (part.strip() for part in text.split(";"))
    versions = [one.partition("=")[2] for one in options if one.lower().startswith("fhirversion=")]
    if not _MEDIA_TYPE.fullmatch(name) or any(version != _RELEASES[fhir] for version in versions):
        raise BadSubscription(
            f"contentType {_shown(text)}: allowed is application/fhir+json, in FHIR {_RELEASES[fhir]}"
        )
    return text if text.isascii() and text.isprintable() else name


def _instant(given: Mapping[str, Any]) -> int | None:
    text = _text(given, "end", "")
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadSubscription(f"end {_shown(text)}: allowed is an instant") from error
    if moment.tzinfo is None or "T" not in text:
        raise BadSubscription(f"end {_shown(text)}: allowed is an instant, with its time zone")
    return int(moment.timestamp() * 1000)


def _number(given: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = given.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise BadSubscription(f"{name} {_shown(value)}: allowed is a number from {least} to {most}")
    return value


def _kept(fhir: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the elements that are kept as they are."""
    found = {}
    for name, kind in _KEPT[fhir].items():
        value = given.get(name)
        is_list = isinstance(value, list) and all(isinstance(one, dict) and one for one in value)
        if isinstance(value, kind) and value and (kind is not list or is_list):
            found[name] = value
        elif name in given:
            raise BadSubscription(f"{name}: is no {kind.__name__} that FHIR allows")
    return found


def _list(node: Mapping[str, Any], name: str) -> list[Any]:
    value = node.get(name, [])
    if not isinstance(value, list):
        raise BadSubscription(f"{name}: is no list")
    return value


def _text(node: Any, name: str, default: str | None = None) -> str:
    value = node.get(name, default) if isinstance(node, dict) else None
    if not isinstance(value, str) or (not value and default is None):
        raise BadSubscription(f"{name}: is missing, or no text")
    return value


def _shown(value: object) -> str:
    return repr(str(value)[:200])
