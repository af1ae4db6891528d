"""A study's resources as one transaction Bundle (FHIR http.html#transaction): pure functions."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from index.imagingstudy.rules import Resource


def transaction_bundle(resources: Iterable[Resource], base: str = "") -> Resource:
    """Return a transaction Bundle that writes these resources under their ids, those referred to first.

    `base`: the server's address, for `fullUrl`; without one a relative reference is to the server's own.
    """
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                **({"fullUrl": f"{base.rstrip('/')}/{local}"} if base else {}),
                "resource": resource,
                "request": {"method": "PUT", "url": local},
            }
            for resource in in_order(resources)
            for local in (local_reference(resource),)
        ],
    }


def local_reference(resource: Resource) -> str:
    """Return how other resources refer to this one: `Patient/1`."""
    return f"{resource['resourceType']}/{resource['id']}"


def in_order(resources: Iterable[Resource]) -> list[Resource]:
    """Return the resources, each after those that it refers to: servers may look whether these are there."""
    waiting = {local_reference(one): one for one in resources}
    ordered: list[Resource] = []

    def place(name: str) -> None:
        # Taken out first: a circle of references ends here.
        resource = waiting.pop(name)
        for reference in references(resource):
            if reference in waiting:
                place(reference)
        ordered.append(resource)

    while waiting:
        place(next(reversed(waiting)))
    return ordered


def references(node: Any) -> Iterator[str]:
    """Yield every `Reference.reference` in a resource."""
    for reference in reference_elements(node):
        yield reference["reference"]


def reference_elements(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every Reference in a resource that has a `reference`."""
    children: Iterable[Any] = ()
    if isinstance(node, dict):
        if isinstance(node.get("reference"), str):
            yield node
        children = node.values()
    elif isinstance(node, Sequence) and not isinstance(node, str | bytes):
        children = node
    for child in children:
        if isinstance(child, dict | list):
            yield from reference_elements(child)


def with_references(node: Any, replaced: Mapping[str, Resource]) -> Any:
    """Return a copy of a resource in which some References, by their `reference`, are others.

    The display stays; what is replaced by an empty one keeps its display alone.
    """
    if isinstance(node, list):
        return [with_references(one, replaced) for one in node]
    if not isinstance(node, dict):
        return node
    if (new := replaced.get(node.get("reference", ""))) is not None:
        kept = {name: value for name, value in node.items() if name != "reference"}
        return {**new, **kept}
    return {name: with_references(value, replaced) for name, value in node.items()}
