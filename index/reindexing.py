"""The index made anew from the objects: the one command that must not have it open."""

from collections.abc import Sequence
from pathlib import Path

from index.database.settings import IndexSettings
from index.facade import Index
from index.forwarding.settings import RouteSettings
from index.imagingstudy.settings import FhirSettings
from index.maintenance.rebuild import Progress, Rebuild, Rebuilt
from index.settings import StorageSettings
from index.storage.lock import DirectoryLock, UseLock
from index.storage.opening import open_store


def reindex(
    data: Path,
    storage: StorageSettings,
    index: IndexSettings,
    fhir: FhirSettings,
    progress: Progress = lambda _: None,
    routes: Sequence[RouteSettings] = (),
) -> Rebuilt:
    """Make the index anew from the objects, and publish what that changes.

    `progress` is called with how many more objects are done. `routes`: for what is acknowledged and not yet
    indexed. Raises Locked where the index is in use,
    DatabaseFault where it is of a newer version or cannot be used, OSError; then the old index is as it was.
    """
    url = index.url.get_secret_value() if index.url else None
    serving = DirectoryLock(data)
    try:
        using = UseLock(data, alone=True)
        try:
            rebuilt = Rebuild(url, open_store(data, storage), storage, progress, routes).run()
        finally:
            using.release()
    finally:
        serving.release()
    with Index(data, storage, index, fhir, routes=routes) as renewed:
        renewed.take_up_conflicts()
        renewed.publish()
    return rebuilt
