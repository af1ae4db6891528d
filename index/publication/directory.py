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
        """Return the path of a resource's file."""
        return self.root / version / kind / f"{name}.json"

    def write(self, version: str, kind: str, name: str, content: bytes) -> None:
        """Write a resource, durably and atomically."""
        path = self.path(version, kind, name)
        make_folder(path.parent, sync=self._sync)
        replace(path, content, sync=self._sync)

    def remove(self, version: str, kind: str, name: str) -> None:
        """Remove a resource's file, if there is one."""
        path = self.path(version, kind, name)
        existing = [file for file in (path, temporary_of(path)) if file.exists()]
        for file in existing:
            file.unlink(missing_ok=True)
        if existing and self._sync:
            sync_folder(path.parent)


def encode(resource: dict[str, Any]) -> bytes:
    """Return the bytes of a resource, as its file has them and `show` prints them."""
    return orjson.dumps(resource, option=orjson.OPT_APPEND_NEWLINE)
