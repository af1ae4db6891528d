"""Resources as files: `fhir/<version>/<resourceType>/<id>.json`, replaced atomically."""

from pathlib import Path
from typing import Any

import orjson

from index.storage.durable import make_folder, replace, sync_folder, temporary_of


class Directory:
    """The folder `fhir/` of a data directory."""

    def __init__(self, data: Path, *, sync: bool = True) -> None:
        self.root = data / "fhir"
        self._sync = sync

    def path(self, version: str, kind: str, name: str) -> Path:
        """Return where a resource stands."""
        return self.root / version / kind / f"{name}.json"

    def write(self, version: str, kind: str, name: str, content: bytes) -> None:
        """Write a resource, durably and whole."""
        path = self.path(version, kind, name)
        make_folder(path.parent, sync=self._sync)
        replace(path, content, sync=self._sync)

    def remove(self, version: str, kind: str, name: str) -> None:
        """Remove a resource, where it is there."""
        path = self.path(version, kind, name)
        there = [one for one in (path, temporary_of(path)) if one.exists()]
        for one in there:
            one.unlink(missing_ok=True)
        if there and self._sync:
            sync_folder(path.parent)


def encode(resource: dict[str, Any]) -> bytes:
    """Return the bytes of a resource: what stands in its file, and what `show` prints."""
    return orjson.dumps(resource, option=orjson.OPT_APPEND_NEWLINE)
