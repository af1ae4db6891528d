"""Bundles: entries whose resources are written as they are stored."""

from datetime import UTC, datetime
from typing import Any

import orjson

from index.web.fhir.forms import encoded


def instant(milliseconds: int) -> str:
    """Return a time as an instant."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def with_meta(content: bytes, version: int, changed: int) -> bytes:
    """Return the bytes of a stored resource with its version and time in `meta` (R4 2.26.2).

    They are not part of what is stored: it depends on the study alone.
    """
    meta = f'"versionId":"{version}"' + (f',"lastUpdated":"{instant(changed)}"' if changed else "")
    head, rest = _after_id(content)
    if rest.startswith(b',"meta":{'):
        return head + b',"meta":{' + meta.encode() + b"," + rest[len(b',"meta":{') :].rstrip()
    return head + b',"meta":{' + meta.encode() + b"}" + rest.rstrip()


def _after_id(content: bytes) -> tuple[bytes, bytes]:
    """Cut a resource behind its id: each begins with resourceType and id, and an id needs no escape."""
    marker = b'","id":"'
    end = content.index(b'"', content.index(marker) + len(marker)) + 1
    return content[:end], content[end:]


class Bundle:
    """A Bundle that is being made. `url`: what it answers; `base`: the address of its FHIR version."""

    def __init__(self, fhir: str, kind: str, url: str, base: str) -> None:
        self.fhir = fhir
        self.base = base
        self.links = [{"relation": "self", "url": url}]
        self.entries: list[dict[str, Any]] = []
        self._kind = kind

    def add_raw(self, entry: dict[str, Any]) -> None:
        """Add an entry as it is."""
        self.entries.append(entry)

    def add(self, name: str, resource: Any, mode: str) -> None:
        """Add a resource that a search has found. `name`: its type and id; empty: it has no address."""
        url = {"fullUrl": f"{self.base}/{name}"} if name else {}
        self.entries.append(url | {"resource": resource, "search": {"mode": mode}})

    def link(self, relation: str, url: str) -> None:
        """Add a link to another page."""
        self.links.append({"relation": relation, "url": url})

    def encoded(self, *, pretty: bool, total: int | None = None) -> bytes:
        """Return its bytes."""
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": self._kind}
        if total is not None:
            bundle["total"] = total
        bundle["link"] = self.links
        if self.entries:
            bundle["entry"] = self.entries
        content = encoded(bundle, pretty=False)
        return encoded(orjson.loads(content), pretty=True) if pretty else content
