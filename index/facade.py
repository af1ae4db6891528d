"""The index as scp sees it: objects, database and publication, put together."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import structlog

from index.commitment.integrity import Integrity
from index.commitment.storage_commitment import Commitments
from index.completion.completions import Completions
from index.database.attribute_tables import note_current
from index.database.connection import Database
from index.database.node import Ownership
from index.database.opening import open_database, sqlite_path
from index.database.settings import IndexSettings
from index.errors import DatabaseFault
from index.forwarding.outbox import Outbox
from index.forwarding.settings import RouteSettings
from index.hooks import Observer, State
from index.imagingstudy.settings import FhirSettings
from index.maintenance.deletion import Deleted, Deletion
from index.maintenance.retention import Expired, MaintenanceWorker, Retention
from index.maintenance.store_keeping import StoreKeeping
from index.orders.service import Orders
from index.orders.settings import WorklistSettings
from index.procedures.steps import Procedures
from index.procedures.without_mpps import StepsWithoutMpps
from index.publication.directory import Directory
from index.publication.following import DirectoryFollower
from index.publication.periodic import PeriodicPublication
from index.publication.publisher import Publisher
from index.publication.resources import Resources
from index.publication.study import StudyPublication
from index.publication.subscriptions.service import Subscriptions
from index.publication.targets.service import Targets
from index.publication.targets.settings import PublishSettings
from index.query.queries import Queries
from index.query.retrieval import Retrieval
from index.reading import Reading
from index.reception.acceptance import ConflictAcceptance
from index.reception.instance import InstanceReceiver
from index.reception.reception import Reception
from index.records import Origin
from index.settings import RetentionSettings, StorageSettings
from index.state import StateReader
from index.storage.durable import keep_from_others, make_folder
from index.storage.lock import DirectoryLock, UseLock, is_served
from index.storage.opening import open_store
from index.storage.reserve import Reserve, reserve_of
from index.supervisor import Supervisor
from index.worklist.service import Worklist

if TYPE_CHECKING:
    from index.maintenance.backup import BackedUp
    from index.maintenance.verify import Finding, VerifyContext
    from index.reception.import_files import Report

log = structlog.get_logger(__name__)

# How long a reader of this process waits until what was acknowledged is indexed, in seconds.
CATCH_UP_SECONDS = 10.0


class Index(Reading):
    """Everything that is remembered below one data directory. Safe to use from many threads.

    Raises OSError where the data directory cannot be used, DatabaseFault where the database cannot.
    """

    _lock: DirectoryLock | None = None

    def __init__(
        self,
        data: Path,
        storage: StorageSettings | None = None,
        index: IndexSettings | None = None,
        fhir: FhirSettings | None = None,
        publish: PublishSettings | None = None,
        worklist: WorklistSettings | None = None,
        *,
        object_size: int = 1 << 62,
        on_fatal: Callable[[DatabaseFault], None] = lambda _: None,
        observer: Observer | None = None,
        retention: RetentionSettings | None = None,
        routes: Sequence[RouteSettings] = (),
        joins: bool = False,
    ) -> None:
        """Open it. `joins`: `serve` may add an empty data directory to a PostgreSQL index of others."""
        storage, index = storage or StorageSettings(), index or IndexSettings()
        worklist = worklist or WorklistSettings()
        url = index.url.get_secret_value() if index.url else None
        sync = storage.durability == "power-loss"
        make_folder(data, sync=sync)
        self.data = data
        self._fhir = fhir or FhirSettings()
        self._index_file = sqlite_path(url, data)
        self._objects = open_store(
            data,
            storage,
            sync=sync,
            watermark=storage.watermark,
            size_limit=object_size,
            reserve=Reserve(reserve_of(self._index_file, data)),
        )
        self._use = UseLock(data)
        self._database = self._open(url, sync=sync, on_fatal=on_fatal)
        self._ownership = Ownership(self._database, self._index_file, self._objects)
        try:
            self._ownership.check(joins=joins)
        except BaseException:
            self._database.close()
            self._use.release()
            raise
        # A daemon of an older version may still add rows.
        if not self._database.is_read_only and not is_served(data):
            note_current(self._database)
        self.workers = Supervisor()
        self._directory = Directory(data, sync=sync)
        self.resources = Resources(self._database, self._directory)
        self.orders = Orders(self._database, worklist, self.workers)
        self.worklist = Worklist(self._database, worklist)
        self._on_fatal = on_fatal
        pace = publish or PublishSettings()
        self.completions = Completions(self._database, self._objects, pace, observer, self.workers)
        self._publication = StudyPublication(
            self._database,
            pace,
            DirectoryFollower(self._database, self._directory, is_kept=pace.directory),
            self._fhir.versions,
            self._fhir.rules(),
            self._match,
            self.completions,
        )
        self._publisher = Publisher(self._database, self._publication, pace, observer, self.workers)
        self.targets = Targets(self._database, self.resources, pace.targets, observer, self.workers)
        self.subscriptions = Subscriptions(self._database, self.resources, self.workers)
        self._publisher.on_published, self._publisher.on_look = self._published, self._look
        self._steps_without_mpps = StepsWithoutMpps(self._database, self.orders.store, worklist.without_mpps)
        self.procedures = Procedures(self._database, self.orders.store, self._publisher.schedule_now)
        self._integrity = Integrity(self._database, self._objects)
        caught_up = partial(self.catch_up, CATCH_UP_SECONDS)
        self.commitments = Commitments(self._database, self._integrity, caught_up, self.completions.committed)
        self.queries = Queries(self._database, caught_up)
        self.retrieval = Retrieval(
            self._database, self._objects, caught_up, lambda: self._reception.last_received
        )
        self.outbox = Outbox(self._database, self._objects, routes)
        self._deletion = Deletion(
            self._database,
            self._objects,
            keep_tombstone=self._fhir.withdrawn == "entered-in-error",
            observer=observer,
        )
        self.conflicts = ConflictAcceptance(self._database, self._objects, self.outbox, self._deletion.finish)
        self._retention = Retention(self._database, self._deletion, retention or RetentionSettings())
        self._maintenance = MaintenanceWorker(self._database, self._retention, pace, self.workers)
        self._store_keeping = StoreKeeping(self._database, self._objects, self.workers)
        self._reception = Reception(
            self._database,
            self._objects,
            self.outbox,
            storage,
            observer or Observer(),
            self.workers,
            self._publisher.indexed,
            self._publisher.association_ended,
            self._deletion.finish,
        )
        self._state = StateReader(self._database, self._objects, self._reception, self._publisher)
        self._reception.make_whole()

    def serve(self) -> None:
        """Become the one daemon of this data directory and its index: recover, publish, and take orders in.

        Raises Locked, and CannotListen where the port for HL7 is taken.
        """
        lock = DirectoryLock(self.data)
        try:
            self._ownership.take(self._on_fatal, self.workers)
        except BaseException:
            lock.release()
            raise
        self._lock = lock
        # An earlier version left them to the umask.
        keep_from_others(self.data)
        self._reception.start()
        self._objects.room.keeps_reserve = True
        self._objects.room.reserve.hold()
        self._publisher.start()
        self.completions.start()
        self._maintenance.start()
        self._store_keeping.start()
        self.targets.start()
        self.subscriptions.start()
        self.orders.serve(self._on_fatal, self._objects.node)

    def makes_progress(self, seconds: float) -> bool:
        """Tell whether instances can still be acknowledged: whether a group is written within that time."""
        return self._reception.makes_progress(seconds)

    def catch_up(self, seconds: float | None = None) -> bool:
        """Return when all is indexed that was acknowledged before; False where that takes longer."""
        return self._reception.catch_up(seconds)

    def close(self) -> None:
        """Publish what has changed where this is the daemon, and close the database. Once is enough."""
        if self._lock:
            self._maintenance.stop()
            self._store_keeping.stop()
            self.completions.stop()
            self.orders.stop()
            self._reception.stop()
            self._publisher.stop()
            self.targets.stop()
            self.subscriptions.stop()
            self._lock.release()
            self._lock = None
        self._objects.close()
        self._ownership.release()
        self._database.close()
        self._use.release()

    def _open(self, url: str | None, *, sync: bool, on_fatal: Callable[[DatabaseFault], None]) -> Database:
        try:
            return open_database(url, self.data, sync=sync, on_fatal=on_fatal)
        except DatabaseFault:
            with self._objects.room.reserve.used() as is_more:
                if is_more:
                    return open_database(url, self.data, sync=sync, on_fatal=on_fatal)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def receive(
        self,
        origin: Origin,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        *,
        limit: int | None = None,
    ) -> InstanceReceiver:
        """Begin to receive an instance, UIDs as in its command set. Raises NotKept, InvalidUID.

        Of its data set no more than `limit` bytes are taken; None: as many as of everybody.
        """
        return self._reception.receive(origin, (sop_class_uid, sop_instance_uid), transfer_syntax, limit)

    def association_ended(self, association: str) -> None:
        """Publish at once what came over this association."""
        self._reception.association_ended(association)

    def import_files(
        self,
        paths: Iterable[Path],
        progress: Callable[[], None] = lambda: None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> "Report":
        """Import files and folders until `stopped`; a running daemon publishes them, or `publish`.

        Where no daemon runs, what has come so far is published now and then.
        """
        publication = PeriodicPublication(self.publish)
        return self._reception.import_files(paths, progress, stopped, publication.go_on)

    def delete(self, uid: str) -> Deleted:
        """Delete it; a running daemon publishes that, or `publish`. Raises NotFound, NotKept."""
        return self._deletion.delete(uid)

    def retain(self, *, dry_run: bool = False) -> list[Expired]:
        """Delete the studies that `[retention]` lets go, oldest first; return them. Raises NotKept."""
        return list(self._retention.expired()) if dry_run else self._retention.apply()

    def backup(
        self, target: Path, *, link: bool = False, progress: Callable[[int], None] = lambda _: None
    ) -> "BackedUp":
        """Back up index and objects into a folder, or renew what is there, while all goes on.

        Raises DatabaseFault where the index is PostgreSQL's, or the store is shared, with the commands to be
        used; Locked, NotKept, OSError.
        """
        from index.maintenance.backup import Backup, with_postgresql_tools

        if self._objects.is_shared:
            from index.maintenance.store_backup import with_store_tools

            raise with_store_tools(self.data, self._database, target, self._objects.url)
        if self._index_file is None:
            raise with_postgresql_tools(self.data, self._database, target)
        backup = Backup(self.data, self._database, target, link=link, progress=progress)
        return backup.run()

    def verify(
        self, *, repair: bool = False, rate: float | None = None, grace: float | None = None
    ) -> "Iterator[Finding]":
        """Yield what is wrong with objects, rows and resources, mended where asked for and possible.

        `rate` bounds the reading, in bytes a second; files younger than `grace` seconds are not looked at.
        """
        from index.maintenance.verify import GRACE_SECONDS, verify

        work = self._work(rate, GRACE_SECONDS if grace is None else grace, repair=repair)
        return verify(work, self._deletion, self._integrity, self.publish)

    def take_up_conflicts(self) -> None:
        """Make rows for what is kept aside in `conflicts/` and has none: after the index was lost."""
        from index.maintenance.verify import check_conflicts

        for _ in check_conflicts(self._work(None, 0, repair=True)):
            pass

    def _work(self, rate: float | None, grace: float, *, repair: bool) -> "VerifyContext":
        from index.maintenance.verify import Pace, VerifyContext

        return VerifyContext(
            self._database,
            self._objects,
            self._directory,
            self._publication,
            self._fhir.versions,
            self._reception.index_object,
            repair,
            Pace(rate),
            grace,
            is_served(self.data),
        )

    def publish(self, until: float = math.inf) -> int:
        """Publish what has changed, now, where no daemon runs; return how many studies that were.

        No publication begins after `until`, on the monotonic clock. Raises Locked, NotKept, OSError.
        """
        lock = DirectoryLock(self.data)
        try:
            return self._publisher.publish_all(until)
        finally:
            lock.release()

    def state(self) -> State:
        """Return how it stands now, also while the database is away. Raises DatabaseFault, OSError."""
        return self._state.read()

    def _published(self, study: int, acknowledged: float | None, is_complete: bool) -> None:  # noqa: FBT001  a callback's
        """A study (its row) has been published."""
        self.targets.study_published(study, acknowledged, is_complete)
        self.subscriptions.study_published()

    def _look(self) -> None:
        """Another process may have changed something: whoever works off a queue looks at it."""
        self.targets.look()
        for queue in (self.outbox, self.completions.notifications):
            queue.on_look()

    def _match(self, study: int, uid: str) -> None:
        """Match a study to its orders before it is published; their steps may end by that."""
        self.orders.match(study, uid)
        self.procedures.link_later_orders(uid)
        self._steps_without_mpps.end_steps(study, uid)
