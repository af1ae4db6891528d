"""Resources of which the server is the master: found there by identifier, never written."""

from collections.abc import Iterator
from typing import Any

from index.publication.targets.entries import keys, token
from index.publication.targets.http.answers import NO_FHIR, Action, Result, judge
from index.publication.targets.http.client import TargetClient

_LINKS_ON = ("replaced-by", "replace")  # R4 and R5; DSTU2


class NotFoundThere(Exception):
    """The server has no such resource, or several. `result`: what is to be done."""

    def __init__(self, result: Result, *, is_absent: bool = False) -> None:
        super().__init__(result.reason)
        self.result = result
        self.is_absent = is_absent


def find(client: TargetClient, resource: dict[str, Any]) -> str:
    """Return the server's id of a resource. Raises NotFoundThere, NoAnswer."""
    kind = resource["resourceType"]
    identifiers = keys(resource)
    if not identifiers:
        why = f"the {kind} has no identifier with a system, by which the server could be asked for it"
        raise NotFoundThere(Result(Action.HOLD, why), is_absent=True)
    for identifier in identifiers:
        found = search(client, kind, f"identifier={token(identifier)}")
        # A server that does not know the parameter answers with all that it has.
        fitting = [one for one in found if _has(one, identifier)]
        current = [one for one in fitting if not _replacement(one)] or fitting
        if len(current) > 1:
            why = f"the server has {len(current)} resources {kind} with one identifier"
            raise NotFoundThere(Result(Action.HOLD, why))
        if current:
            return _replacement(current[0]) or str(current[0]["id"])
    raise NotFoundThere(Result(Action.HOLD, f"the server does not have the {kind} yet"), is_absent=True)


def search(client: TargetClient, kind: str, query: str) -> list[dict[str, Any]]:
    """Return the resources that a search finds, of its first page. Raises NotFoundThere, NoAnswer."""
    answer = client.request("GET", f"{kind}?{query}")
    result = judge(answer)
    if result.action is Action.DONE and (answer.resource or {}).get("resourceType") != "Bundle":
        result = Result(Action.SUSPECT, NO_FHIR)
    if result.action is not Action.DONE:
        raise NotFoundThere(result)
    return [one for one in _resources(answer.resource or {}) if one.get("resourceType") == kind]


def _resources(bundle: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in bundle.get("entry") or ():
        resource = entry.get("resource") if isinstance(entry, dict) else None
        if isinstance(resource, dict) and isinstance(resource.get("id"), str):
            yield resource


def _has(resource: dict[str, Any], identifier: dict[str, Any]) -> bool:
    wanted = identifier["system"], identifier["value"]
    return any((one["system"], one["value"]) == wanted for one in keys(resource))


def _replacement(resource: dict[str, Any]) -> str:
    """Return the id of the patient that this one was merged into (FHIR patient.html#merge)."""
    for link in resource.get("link") or ():
        if isinstance(link, dict) and link.get("type") in _LINKS_ON:
            reference = str((link.get("other") or {}).get("reference", ""))
            kind, _, name = reference.rpartition("/")
            if kind.rpartition("/")[2] == "Patient" and name:
                return name
    return ""
