"""One harmless round trip to a target: what `publish test` and `check --targets` say in words."""

import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from index.publication.targets.entries import study_condition
from index.publication.targets.http.answers import Action
from index.publication.targets.http.capability import Capability, read_capability
from index.publication.targets.http.client import NoAnswer, TargetClient
from index.publication.targets.look_up import NotFoundThere, search
from index.publication.targets.settings import TargetSettings
from index.publication.targets.webhook import send

# A UID that no study has (PS3.5 Annex B.2: 2.25. and a UUID, here the one of all zeros).
_NO_STUDY = "2.25.0"


@dataclass(frozen=True, slots=True)
class Finding:
    """A sentence about a target, and whether it is a fault."""

    text: str
    is_fault: bool = False


def probe_target(settings: TargetSettings) -> list[Finding]:
    """Ask a target what it can do, and for a study that nobody has. A webhook gets a message of no study."""
    client = TargetClient(settings)
    try:
        return list(_findings(client, settings))
    except NoAnswer as error:
        return [Finding(str(error), is_fault=True)]
    finally:
        client.close()


def same_servers(targets: Sequence[TargetSettings]) -> Iterator[Finding]:
    """Yield which targets may be the same server by another name: same address, port and path.

    Each would make resources at the same time as the other, and undo what the other has learnt.
    """
    known: dict[tuple[object, ...], str] = {}
    for one in targets:
        scheme, host, port, path = one.server
        with suppress(OSError):
            found = {str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
            for address in sorted(found):
                other = known.setdefault((scheme, address, port, path), one.name)
                if other != one.name:
                    yield Finding(
                        f"{one.name} may be the server of {other} too: {address} has the name {host}"
                    )
                    break


def _findings(client: TargetClient, settings: TargetSettings) -> Iterator[Finding]:
    if settings.method == "webhook":
        result = send(client, settings, str(uuid.uuid4()), "test", {})
        is_taken = result.action is Action.DONE
        yield Finding("takes a signed message" if is_taken else result.reason, is_fault=not is_taken)
        return
    capability = read_capability(client)
    yield from _said(capability, settings)
    kinds = {"ImagingStudy": study_condition(settings, _NO_STUDY)}
    kinds |= dict.fromkeys(sorted(settings.found_types), "identifier=urn%3Aoid%3A2.25.0%7C0")
    for kind, query in kinds.items():
        try:
            search(client, kind, query)
        except NotFoundThere as error:
            yield Finding(f"{kind} cannot be searched: {error}", is_fault=True)
        else:
            yield Finding(f"{kind} can be searched: we are allowed to read")


def _said(capability: Capability, settings: TargetSettings) -> Iterator[Finding]:
    """Yield what the server says of itself."""
    if not capability.release:
        yield Finding(f"says nothing of itself: its metadata is answered {capability.status}")
        return
    software = f" ({capability.software})" if capability.software else ""
    if wrong := capability.other_version(settings.version):
        yield Finding(wrong, is_fault=True)
        return
    yield Finding(f"speaks FHIR {capability.release}{software}")
    if settings.method == "transaction":
        known = {True: "takes transactions", None: "does not say whether it takes transactions"}
        yield Finding(
            known.get(capability.transactions)
            or "takes no transactions: resources are sent one by one, as with method = resources"
        )
    for kind in ("ImagingStudy", "Patient"):
        does = (capability.types or {}).get(kind)
        if kind in settings.found_types:
            continue
        if does is None:
            yield Finding(f"does not say that it has {kind}")
        elif does and "update" not in does:
            yield Finding(f"does not say that {kind} can be written (update)", is_fault=True)
