"""What a server says that it can do: CapabilityStatement, or DSTU2's Conformance (http.html#capabilities)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from index.publication.targets.http.client import Answer, TargetClient
from index.publication.targets.settings import RELEASES

_KINDS = ("CapabilityStatement", "Conformance")


@dataclass(frozen=True, slots=True)
class Capability:
    """What is known; an empty text or None: it does not say.

    `types`: the kinds of resource that it has, each with its interactions.
    """

    status: int = 0
    release: str = ""
    software: str = ""
    transactions: bool | None = None
    types: Mapping[str, frozenset[str]] | None = None

    def other_version(self, wanted: str) -> str:
        """Return a sentence where it is a server of another FHIR version."""
        found = RELEASES.get(".".join(self.release.split(".")[:2]))
        if not self.release or found == wanted:
            return ""
        return f"the server speaks FHIR {self.release}, not {wanted}: check url and version"


def read_capability(client: TargetClient) -> Capability:
    """Return what a server says of itself; nothing where it does not tell us. Raises NoAnswer."""
    return capability_of(client.request("GET", "metadata"))


def capability_of(answer: Answer) -> Capability:
    """Return what an answer to a request for metadata says."""
    found = answer.resource
    if found is None or found["resourceType"] not in _KINDS:
        return Capability(answer.status)
    software = found.get("software")
    named = software if isinstance(software, dict) else {}
    servers = [
        one for one in found.get("rest") or () if isinstance(one, dict) and one.get("mode") == "server"
    ]
    return Capability(
        answer.status,
        str(found.get("fhirVersion") or ""),
        " ".join(str(named[key]) for key in ("name", "version") if named.get(key)),
        _transactions(servers),
        {
            str(one.get("type")): frozenset(_codes(one))
            for rest in servers
            for one in rest.get("resource") or ()
            if isinstance(one, dict)
        },
    )


def _transactions(servers: list[dict[str, Any]]) -> bool | None:
    codes = {code for rest in servers for code in _codes(rest)}
    # DSTU2 says it by a mode of its own.
    modes = {str(rest["transactionMode"]) for rest in servers if rest.get("transactionMode")}
    if modes:
        return bool(modes & {"transaction", "both"})
    return "transaction" in codes if codes else None


def _codes(node: dict[str, Any]) -> list[str]:
    return [str(one.get("code")) for one in node.get("interaction") or () if isinstance(one, dict)]
