"""What an earlier process left unfinished is finished before the daemon is ready."""

import hashlib
import time
from collections.abc import Sequence

import structlog

from index.database.connection import Database
from index.database.instance_rows import StoredObject
from index.database.tables import Instance
from index.dicom.file import read_object
from index.dicom.part10 import NotPart10
from index.errors import IndexFault, NotKept
from index.reception.group_commit import GroupCommit, Outcome
from index.reception.indexer import Spool
from index.records import Origin
from index.storage.durable import open_file
from index.storage.object_store import FOLDER_SIZE, ObjectStore

log = structlog.get_logger(__name__)

ORIGIN = Origin(association="recovery")


def recover(database: Database, objects: ObjectStore, spool: Spool, commits: GroupCommit) -> tuple[int, int]:
    """Sweep `incoming/`, index what was filed and not committed; return how many files that were of each."""
    try:
        database.checkpoint()
    except NotKept as error:  # on a full disk the log goes on as it is
        log.warning("checkpoint_failed", reason=str(error))
    objects.settle()
    swept = objects.sweep()
    recover_spooled(objects, spool, commits)
    last = database.rows(Instance.select(Instance.path).order_by(Instance.id.desc()).limit(1))
    filed = list(objects.filed_since(last[0][0] if last else None))
    adopted = 0
    for path in _without_recent_row(database, filed):
        try:
            adopted += index_object(objects, commits, path) is not Outcome.DUPLICATE
        except (NotPart10, IndexFault, OSError):
            log.exception("object_not_recovered", path=path)
    return swept, adopted


def recover_spooled(objects: ObjectStore, spool: Spool, commits: GroupCommit) -> int:
    """Make whole what was acknowledged and not synced; return how many objects that were."""
    return spool.recover(
        lambda path, origin, received: index_object(objects, commits, path, origin, received)
    )


def _without_recent_row(database: Database, paths: Sequence[str]) -> list[str]:
    """Return those of `paths` that none of the latest rows holds.

    Rows are not looked up by path, for which there is no index: each instance would pay for it. A path that
    an older row holds comes along; to adopt it changes nothing.
    """
    if not paths:
        return []
    query = Instance.select(Instance.path).order_by(Instance.id.desc()).limit(2 * len(paths) + FOLDER_SIZE)
    recent = {path for (path,) in database.rows(query)}
    return [path for path in paths if path not in recent]


def index_object(
    objects: ObjectStore,
    commits: GroupCommit,
    path: str,
    origin: Origin = ORIGIN,
    received: int | None = None,
) -> Outcome:
    """Index an object where it stands; one that has its row already, and is in its place, stays.

    `received` is in milliseconds since 1970; now, where that is not known. One that stands outside
    `objects/` is filed first. It replaces no other instance, whatever `storage.duplicates` says, since it was
    never acknowledged after that one.
    Raises NotPart10, Unreadable, InvalidUID, NotKept, DatabaseFault or OSError; then the object stays.
    """
    file = objects.data / path
    with open_file(file) as content:
        header, meta = read_object(content)
        content.seek(0)
        sha1 = hashlib.file_digest(content, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
    if not path.startswith("objects/"):
        path = objects.reserve(file.stat().st_size)
        objects.rename(str(file), path)
        file = objects.data / path
    received = time.time_ns() // 1_000_000 if received is None else received
    filed = StoredObject(header, origin, meta.transfer_syntax, path, file.stat().st_size, sha1, received)
    return commits.submit(filed, adopted=True).outcome
