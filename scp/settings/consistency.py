"""Values that are valid each by itself, but not together: given twice, or naming what does not exist."""

import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from scp.settings.sections import Configuration

# The keys, and numbers of array entries, that lead to a value: ("peers", 0, "aet").
KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Inconsistency:
    """A value of the configuration, and what is wrong with it."""

    key_path: KeyPath
    value: Any
    why: str


def find_inconsistencies(configuration: Configuration) -> Iterator[Inconsistency]:
    """Yield what is wrong with a configuration as a whole."""
    yield from _peers(configuration)
    yield from _upstream(configuration)
    yield from _routes(configuration)
    yield from _senders(configuration)
    yield from _http(configuration)
    yield from _targets(configuration)
    yield from _texts(configuration)


def _peers(configuration: Configuration) -> Iterator[Inconsistency]:
    titles = [peer.aet.strip() for peer in configuration.peers]
    for number, first in _repeated(titles):
        why = f"is peers[{first}].aet too; one entry may have several networks"
        yield Inconsistency(("peers", number, "aet"), titles[number], why)
    tls = configuration.dicom.tls
    for number, peer in enumerate(configuration.peers):
        if peer.tls and (tls is None or tls.ca is None):
            yield Inconsistency(
                ("peers", number, "tls"), True, "needs [dicom.tls] with certificate, key and ca"
            )
        if peer.notify and (peer.host is None or peer.port is None):
            yield Inconsistency(("peers", number, "notify"), True, "needs host and port")


def _upstream(configuration: Configuration) -> Iterator[Inconsistency]:
    if (upstream := configuration.worklist.upstream) is None:
        return
    key_path = ("worklist", "upstream", "peer")
    peer = configuration.find_peer(upstream.peer)
    if peer is None:
        yield Inconsistency(key_path, upstream.peer, "no entry of [[peers]] has this aet")
    elif peer.host is None or peer.port is None:
        yield Inconsistency(key_path, upstream.peer, "its entry of [[peers]] needs host and port")


def _routes(configuration: Configuration) -> Iterator[Inconsistency]:
    for number, route in enumerate(configuration.routes):
        for aet in route.to:
            peer = configuration.find_peer(aet)
            if peer is None:
                yield Inconsistency(("routes", number, "to"), aet, "no entry of [[peers]] has this aet")
            elif peer.host is None or peer.port is None:
                yield Inconsistency(
                    ("routes", number, "to"), aet, "its entry of [[peers]] needs host and port"
                )


def _http(configuration: Configuration) -> Iterator[Inconsistency]:
    if configuration.http.is_open():
        why = (
            "reaches beyond this machine: set http.tokens, [http.proxy], or [http.tls] client_certificates"
            ' = "required"; or http.trust_network = true: whoever reaches it may read patients'
        )
        yield Inconsistency(("http", "host"), configuration.http.host, why)


def _senders(configuration: Configuration) -> Iterator[Inconsistency]:
    known = [(sender.application, sender.facility) for sender in configuration.worklist.hl7_senders]
    for number, first in _repeated(known):
        why = f"application and facility are those of hl7_senders[{first}], which is taken"
        yield Inconsistency(("worklist", "hl7_senders", number, "application"), known[number][0], why)


def _targets(configuration: Configuration) -> Iterator[Inconsistency]:
    targets = configuration.publish.targets
    for number, first in _repeated([one.name for one in targets]):
        why = f"is publish.targets[{first}].name too"
        yield Inconsistency(("publish", "targets", number, "name"), targets[number].name, why)
    for number, first in _repeated([one.server for one in targets]):
        why = f"is the server of publish.targets[{first}] too: each would undo what the other learnt of it"
        yield Inconsistency(("publish", "targets", number, "url"), targets[number].url, why)
    for number, one in enumerate(targets):
        if one.version not in configuration.fhir.versions:
            why = f"is not among fhir.versions: {', '.join(configuration.fhir.versions)}"
            yield Inconsistency(("publish", "targets", number, "version"), one.version, why)


def _texts(configuration: Configuration) -> Iterator[Inconsistency]:
    """Yield texts with control characters: they come from mistakes in TOML's escapes."""
    for key_path, value in leaves(configuration.model_dump(mode="json")):
        if isinstance(value, str) and any(unicodedata.category(one) == "Cc" for one in value):
            yield Inconsistency(key_path, value, "has a control character")


def _repeated(values: Iterable[object]) -> Iterator[tuple[int, int]]:
    """Yield the index of each repeated value, with the index of the first equal one."""
    first: dict[object, int] = {}
    for number, value in enumerate(values):
        if first.setdefault(value, number) != number:
            yield number, first[value]


def leaves(node: Any, key_path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield each value of a dumped configuration with its key path."""
    children: Iterable[tuple[str | int, Any]]
    if isinstance(node, dict) and node:
        children = node.items()
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        children = enumerate(node)
    else:
        yield key_path, node
        return
    for key, child in children:
        yield from leaves(child, (*key_path, key))
