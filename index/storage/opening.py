"""The object store that the settings name."""

from pathlib import Path
from typing import Any

from index.settings import StorageSettings
from index.storage.object_store import ObjectStore


def open_store(data: Path, storage: StorageSettings, **options: Any) -> ObjectStore:
    """Return the store of a data directory; `options` are those of ObjectStore. Raises OSError."""
    if storage.url is None:
        return ObjectStore(data, **options)
    from index.storage.bucket_store import BucketStore

    return BucketStore(data, storage.url, storage.endpoint, storage.region, **options)
