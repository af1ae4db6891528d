"""Retention: deletes studies that are older, or more, than `[retention]` allows.

Where each of several nodes keeps its own objects, each applies its rules to those: of a study that is spread
over nodes it deletes what it keeps. Where they share one store, one node does it for all.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import structlog
from peewee import chunked

from index.database.claims import Work
from index.database.connection import Database
from index.database.tables import Study
from index.database.turns import Turns
from index.errors import NotFound
from index.maintenance.deletion import Deletion
from index.publication.feed import prune
from index.publication.listing import Listed
from index.publication.search import find, total_bytes
from index.query.study_filter import StudyFilter
from index.settings import PublishSettings, RetentionSettings
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

# How often a daemon looks for expired studies, in seconds.
INTERVAL_SECONDS = 3600.0
# Studies of which is asked at a time what is here of them.
STUDIES = 100
_DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True)
class Expired:
    """An expired study; `received`, in ms since 1970, is of its last instance, `bytes` of its objects."""

    uid: str
    received: int
    bytes: int
    instances: int
    reason: str


class Retention:
    """The rules of `[retention]` over one index."""

    def __init__(self, database: Database, deletion: Deletion, settings: RetentionSettings) -> None:
        self._database = database
        self._deletion = deletion
        self._settings = settings

    @property
    def is_active(self) -> bool:
        """Whether there is any rule."""
        return self._settings.is_active

    def expired(self, now: float | None = None) -> Iterator[Expired]:
        """Yield the studies that have expired, oldest first, without deleting any.

        A study of several senders is kept as long as the longest of their rules.
        """
        settings = self._settings
        if not settings.is_active:
            return
        now_ms = int((now or time.time()) * 1000)
        total = self._total() if settings.size is not None else 0
        shortest = min(self._rules(), default=None)
        for study, instances, size in self._kept_here(find(self._database, StudyFilter(sort="received"))):
            age = now_ms - study.last_received
            is_over = settings.size is not None and total > settings.size
            if not is_over and (shortest is None or age <= shortest * _DAY_MS):
                return  # the rest came later
            days = self._days(study.sources)
            reason = ""
            if days is not None and age > days * _DAY_MS:
                reason = f"received more than {days:g} days ago"
            elif is_over:
                reason = f"all objects are {total} bytes, more than retention.size = {settings.size}"
            if reason and instances:
                total -= size
                yield Expired(study.summary.uid, study.last_received, size, instances, reason)

    @property
    def scope(self) -> str:
        """Whose objects the rules are for: the number of this node, or empty for all."""
        return str(self._deletion.node) if self._deletion.is_divided() else ""

    def _total(self) -> int:
        return self._deletion.bytes_here() if self.scope else total_bytes(self._database)

    def _kept_here(self, studies: Iterable[Listed]) -> Iterator[tuple[Listed, int, int]]:
        """Yield studies with the number and bytes of the instances that are for us to delete."""
        if not self.scope:
            yield from ((study, study.summary.instances, study.bytes) for study in studies)
            return
        for some in chunked(studies, STUDIES):
            here = self._deletion.held([study.id for study in some])
            yield from ((study, *here.get(study.id, (0, 0))) for study in some)

    def apply(self) -> list[Expired]:
        """Delete the expired studies; return them. A study that grows meanwhile stays until the next time."""
        deleted = []
        delete = self._deletion.delete_here if self.scope else self._deletion.delete
        for study in list(self.expired()):
            if self._received(study.uid) != study.received:
                continue
            try:
                delete(study.uid)
            except NotFound:
                continue
            log.info(
                "expired",
                study_uid=study.uid,
                instances=study.instances,
                bytes=study.bytes,
                reason=study.reason,
            )
            deleted.append(study)
        return deleted

    def _received(self, uid: str) -> int | None:
        rows = self._database.rows(Study.select(Study.last_received).where(Study.uid == uid))
        return int(rows[0][0]) if rows else None

    def _rules(self) -> list[float]:
        """Return the days of all rules."""
        settings = self._settings
        every = [settings.days, *settings.calling_aets.values(), *settings.called_aets.values()]
        return [days for days in every if days is not None]

    def _days(self, senders: Sequence[tuple[str, str]]) -> float | None:
        """Return for how many days a study of these senders is kept; None: for ever."""
        settings = self._settings
        each = [
            settings.calling_aets.get(calling, settings.called_aets.get(called, settings.days))
            for calling, called in senders
        ] or [settings.days]
        known = [days for days in each if days is not None]
        return max(known) if len(known) == len(each) else None


class MaintenanceWorker:
    """Applies the rules, and prunes the change feed, once an hour in a running daemon."""

    def __init__(
        self,
        database: Database,
        retention: Retention,
        publish: PublishSettings,
        workers: Supervisor | None = None,
    ) -> None:
        self._database = database
        self._retention = retention
        self._keep_changes = publish.keep_changes
        self._retaining = Turns(database, Work.RETENTION, INTERVAL_SECONDS)
        self._pruning = Turns(database, Work.HOUSEKEEPING, INTERVAL_SECONDS)
        # Deleting terabytes takes long; the next start continues.
        self._worker = (workers or Supervisor()).add("retention", self._run, depends=True)

    def start(self) -> None:
        """Begin, if there is a rule."""
        if self._retention.is_active or self._keep_changes:
            self._worker.start()

    def stop(self) -> None:
        """End; a deletion that has begun is finished."""
        self._worker.stop()

    def _run(self) -> None:
        while True:
            try:
                self._work()
            except Exception as error:  # the fault may be gone in an hour
                log.exception("retention_failed")
                self._worker.failed(error)
                seconds = INTERVAL_SECONDS
            else:
                self._worker.done()
                seconds = self._retaining.pause
            if self._worker.wait(seconds):
                return

    def _work(self) -> None:
        """Do what is due, and is not done by another node."""
        if self._retention.is_active:
            with self._retaining.next(self._retention.scope) as turn:
                if turn:
                    self._retention.apply()
        if self._keep_changes:
            with self._pruning.next() as turn:
                if turn and (deleted := prune(self._database, self._keep_changes)):
                    log.info("changes_pruned", entries=deleted, keep=self._keep_changes)
