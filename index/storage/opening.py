"""The object store that the settings name."""

from pathlib import Path
from typing import Any

from index.settings import StorageSettings
from index.storage.object_store import ObjectStore
from index.storage.remote.folder import SharedFolder
from index.storage.remote.interface import Remote
from index.storage.remote.store import RemoteStore


def open_store(data: Path, storage: StorageSettings, **options: Any) -> ObjectStore:
    """Return the store of a data directory; `options` are those of ObjectStore. Raises OSError."""
    if storage.url is None:
        return ObjectStore(data, **options)
    return RemoteStore(
        data, storage.url, open_remote(storage), by_journal=storage.acknowledge == "journal", **options
    )


def open_remote(storage: StorageSettings) -> Remote:
    """Return the store of `storage.url`. Raises OSError."""
    kind, _, place = (storage.url or "").partition("://")
    if kind == "file":
        return SharedFolder(Path(place), sync=storage.durability == "power-loss")
    from index.storage.remote.s3 import Bucket, connect

    name, _, prefix = place.partition("/")
    return Bucket(connect(name, prefix.strip("/"), endpoint=storage.endpoint, region=storage.region))


def store_fault(storage: StorageSettings) -> str | None:
    """Return why the store of `storage.url` cannot be used, or None."""
    try:
        open_remote(storage).folders("objects/")
    except OSError as error:
        return f"{storage.url}: {error.strerror or error}"
    return None
