"""Whatever is sent as a Subscription: it is taken, or refused in words."""

import copy
import json
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.publication.subscriptions.definitions import (
    BadSubscription,
    masked,
    read_definition,
    unmasked,
)
from support.subscriptions import SECRET, r4, r5

pytestmark = pytest.mark.sqlite  # nothing here depends on the engine
ENDPOINT = "https://ehr.example/hooks/one"
WHOLE = {
    "r5": r5(
        ENDPOINT,
        filters=(("modality", "CT"), {"filterParameter": "started", "comparator": "ge", "value": "2026"}),
        parameter=[{"name": "Authorization", "value": SECRET}],
        heartbeatPeriod=60,
        timeout=10,
        maxCount=5,
        end="2099-01-01T00:00:00Z",
        identifier=[{"value": "1"}],
    ),
    "r4": r4(
        ENDPOINT,
        filters=("modality=CT", "ImagingStudy?status=available"),
        header=[f"Authorization: {SECRET}"],
    ),
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] + [place for key, child in children for place in places(child, (*path, key))]


def changed(fhir: str, number: int, value: Any) -> dict[str, Any]:
    """Return a whole Subscription with another value at one of its places."""
    made = copy.deepcopy(WHOLE[fhir])
    found = places(made)[1:]
    *way, last = found[number % len(found)]
    node: Any = made
    for key in way:
        node = node[key]
    node[last] = value
    return made


def refusal(fhir: str, resource: dict[str, Any]) -> str:
    """Return why a resource is refused; empty: it is not."""
    try:
        read_definition(fhir, resource, "https://pacs.example/fhir/r4")
        unmasked(fhir, resource, WHOLE[fhir])
    except BadSubscription as error:
        return str(error)
    return ""


def check(fhir: str, number: int, value: Any) -> None:
    try:
        resource = orjson.loads(json.dumps(changed(fhir, number, value)))
    except ValueError:  # it is refused before: no JSON of ours
        return
    if why := refusal(fhir, resource):
        assert SECRET not in why
        return
    found = read_definition(fhir, resource)
    # What is kept means the same when it is read again.
    kept = orjson.loads(orjson.dumps(found.resource))
    again = read_definition(fhir, kept)
    assert (found.endpoint, found.headers, found.content) == (again.endpoint, again.headers, again.content)
    assert SECRET not in orjson.dumps(masked(fhir, kept)).decode()


@pytest.mark.parametrize("fhir", ["r4", "r5"])
def test_each_place_may_hold_anything(fhir: str) -> None:
    for number in range(len(places(WHOLE[fhir]))):
        for value in (None, True, 0, -1, 2**70, 1.5, "", "x", "\0\ud800", [], [None], [{}], {}, {"a": []}):
            check(fhir, number, value)


@settings(max_examples=200)
@given(st.sampled_from(["r4", "r5"]), st.integers(0, 200), VALUES)
def test_anything(fhir: str, number: int, value: Any) -> None:
    check(fhir, number, value)


@pytest.mark.long
@settings(max_examples=100_000)
@given(st.sampled_from(["r4", "r5"]), st.integers(0, 200), VALUES)
def test_anything_for_long(fhir: str, number: int, value: Any) -> None:
    check(fhir, number, value)
