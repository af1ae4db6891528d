"""The work that a shared store needs: objects uploaded, the store asked whether it is back, orphans removed.

An orphan is a key without a row: what was uploaded and then not acknowledged, since the database was away or
the daemon was killed. A day later nothing is on its way to a row any more.
"""

import datetime as dt
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import structlog

from index.database.connection import Database
from index.database.mark_changed import now
from index.database.node import silent_numbers
from index.database.tables import Instance, RemovedObject, StoreRow, UnindexedObject
from index.errors import IndexFault
from index.storage.object_keys import day_of, is_year, node_of
from index.storage.object_store import ObjectStore
from index.storage.remote.store import RemoteStore
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

# How often it is looked what is to be done, in seconds.
LOOK_SECONDS = 1.0
# Uploads at a time, and how many are begun at once.
UPLOADS = 4
AT_ONCE = 64
# How often orphans are looked for; from this age on a key without a row is one. In seconds.
SWEEP_SECONDS = DAY_SECONDS = 86_400.0
# Rows that are read, and keys that are removed, at once.
PAGE = 1000
# A database that is back may get rows of before: keys are looked at again after so long. In seconds.
CONFIRM_SECONDS = 3600.0
# So many orphans may be what crashes have left. More, and more than a tenth of all, are another index's.
FEW = 100
SHARE = 10
# Rows of a day may have been added a little before or after those of its neighbours.
_MARGIN_MS = 2 * 86_400_000


class StoreKeeping:
    """The thread that does it, in a running daemon with a shared store."""

    def __init__(self, database: Database, objects: ObjectStore, workers: Supervisor) -> None:
        self._database = database
        self._objects = objects
        self._worker = workers.add("object store", self._run, depends=True)
        self._fault = ""
        self._not_uploaded: set[str] = set()
        self._orphans: Orphans | None = None

    def start(self) -> None:
        """Begin, where there is a shared store."""
        if isinstance(self._objects, RemoteStore):
            self._worker.start()

    def stop(self) -> None:
        """End; what is not uploaded stays here until the next start."""
        self._worker.stop()

    def _run(self) -> None:
        objects = self._objects
        assert isinstance(objects, RemoteStore)  # noqa: S101  see `start`
        while not self._worker.wait(LOOK_SECONDS):
            try:
                if objects.away:
                    objects.ask(lambda: objects.remote.state("identity"))
                self._upload(objects)
                self._sweep(objects)
            except (IndexFault, OSError) as error:  # the store, or the database, may be back at the next look
                if str(error) != self._fault:
                    log.warning("store_keeping_failed", reason=str(error))
                self._fault = str(error)
                self._worker.failed(error)
            else:
                self._fault = ""
                self._worker.done()

    def _upload(self, objects: RemoteStore) -> None:
        """Upload what waits. Raises OSError where the store fails; one that cannot be read stops no other."""
        failed = []
        with ThreadPoolExecutor(UPLOADS, thread_name_prefix="uploading") as uploads:
            while (paths := objects.pending.take(AT_ONCE)) and not self._worker.stopping.is_set():
                self._worker.beat()
                for path, done in [(path, uploads.submit(objects.upload, path)) for path in paths]:
                    try:
                        done.result()
                    except OSError as error:
                        if objects.away:
                            raise
                        if path not in self._not_uploaded:
                            log.exception("not_uploaded", path=path)
                            self._not_uploaded.add(path)
                        failed.append((path, error))
                    objects.pending.done(path)
        objects.pending.add(path for path, _ in failed)
        if failed:
            raise failed[0][1]

    def _sweep(self, objects: RemoteStore) -> None:
        if self._orphans is None and self._is_time():
            self._orphans = find_orphans(self._database, objects)
        if self._orphans and time.monotonic() - self._orphans.found > CONFIRM_SECONDS:
            orphans, self._orphans = self._orphans, None
            remove_orphans(self._database, objects, orphans)

    def _is_time(self) -> bool:
        """Whether orphans are to be looked for, by this node; no other does so now."""
        due = StoreRow.looked < now() - int(SWEEP_SECONDS * 1000)
        if not self._database.rows(StoreRow.select(StoreRow.id).where(due)):
            return False
        with self._database.writing():
            return bool(self._database.execute(StoreRow.update(looked=now()).where(due)))


@dataclass(frozen=True, slots=True)
class Orphans:
    """Keys without a row, of so many keys of the days until `last`; when they were `found`, monotonic."""

    keys: frozenset[str]
    total: int
    last: int
    found: float


def find_orphans(database: Database, objects: RemoteStore) -> Orphans | None:
    """Return the keys without a row of the days since the last time that are over for a day; None: not now.

    Where these are many, another index may use the store. Raises OSError, IndexFault.
    """
    ((swept, identity),) = database.rows(StoreRow.select(StoreRow.swept, StoreRow.identity))
    if objects.identity() != identity:
        log.error("store_not_swept", url=objects.url, why="its object `identity` is not that of this index")
        return None
    objects.remote.tidy(DAY_SECONDS)
    last = dt.datetime.fromtimestamp(now() / 1000 - DAY_SECONDS, dt.UTC).date() - dt.timedelta(days=1)
    objects.remove_folders(last)
    keys = _keys(objects, swept, _number(last))
    orphans = _without_row(database, keys)
    if len(orphans) > max(FEW, len(keys) // SHARE):
        log.error("store_not_swept", keys=len(keys), without_row=len(orphans), why="too many: see `verify`")
        return None
    return Orphans(frozenset(orphans), len(keys), _number(last), time.monotonic())


def remove_orphans(database: Database, objects: RemoteStore, orphans: Orphans) -> int:
    """Remove those that have no row still; return how many. Raises OSError, IndexFault."""
    left = sorted(_without_row(database, set(orphans.keys)))
    for at in range(0, len(left), PAGE):
        objects.remove_all(left[at : at + PAGE])
    with database.writing():
        database.execute(StoreRow.update(swept=orphans.last))
    log.info("store_swept", until=orphans.last, keys=orphans.total, orphans=len(left))
    return len(left)


def _number(day: dt.date) -> int:
    return int(f"{day:%Y%m%d}")


def _keys(objects: RemoteStore, after: int, last: int) -> set[str]:
    """Return the keys of the days after one, up to another. Raises OSError."""
    return {
        path
        for folder in _days(objects)
        if (day := day_of(f"{folder}/")) and after < _number(day) <= last
        for path, _, _ in objects.remote.listed(f"{folder}/")
    }


def _days(objects: RemoteStore) -> Iterator[str]:
    """Yield the folders of all days: `objects/2026/1126`."""
    for year in objects.remote.folders("objects/"):
        if is_year(year):
            yield from objects.remote.folders(f"{year}/")


def _without_row(database: Database, keys: set[str]) -> set[str]:
    """Return the keys that no row has. Rows are read from the newest on: there is no index by path.

    A node that is not served may have a journal that tells of its keys.
    """
    silent = silent_numbers(database)
    keys = {key for key in keys if node_of(key) not in silent}
    if not keys:
        return set()
    first = min(day for key in keys if (day := day_of(key)))
    oldest = int(dt.datetime.combine(first, dt.time(), dt.UTC).timestamp() * 1000) - _MARGIN_MS
    left = set(keys)
    for table in (RemovedObject, UnindexedObject):  # these are not forgotten
        left -= {path for (path,) in database.rows(table.select(table.path))}
    query = Instance.select(Instance.id, Instance.path, Instance.received).order_by(Instance.id.desc())
    before: int | None = None
    while left and (
        rows := database.rows((query.where(Instance.id < before) if before else query).limit(PAGE))
    ):
        left -= {path for _, path, _ in rows}
        before = rows[-1][0]
        if all(received < oldest for _, _, received in rows):
            break
    return left
