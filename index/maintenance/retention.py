"""Retention: deletes studies that are older, or more, than `[retention]` allows."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import structlog
from peewee import fn

from index.database.connection import Database
from index.database.tables import Instance, Series, Source, Study
from index.errors import NotFound
from index.maintenance.deletion import Deletion
from index.settings import RetentionSettings
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

# How often a daemon looks for expired studies, in seconds.
INTERVAL_SECONDS = 3600.0
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
        senders = self._senders()
        studies = self._studies()
        total = sum(size for _, _, _, size, _ in studies)
        for study, uid, received, size, instances in studies:
            days = self._days(senders.get(study, ()))
            reason = ""
            if days is not None and now_ms - received > days * _DAY_MS:
                reason = f"received more than {days:g} days ago"
            elif settings.size is not None and total > settings.size:
                reason = f"all objects are {total} bytes, more than retention.size = {settings.size}"
            if reason:
                total -= size
                yield Expired(uid, received, size, instances, reason)

    def apply(self) -> list[Expired]:
        """Delete the expired studies; return them. A study that grows meanwhile stays until the next time."""
        deleted = []
        for study in list(self.expired()):
            if self._received(study.uid) != study.received:
                continue
            try:
                self._deletion.delete(study.uid)
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

    def _studies(self) -> list[tuple[int, str, int, int, int]]:
        size = fn.SUM(Instance.size)
        query = (
            Study.select(Study.id, Study.uid, Study.last_received, size, Study.instance_count)
            .join(Series)
            .join(Instance)
            .group_by(Study.id, Study.uid, Study.last_received, Study.instance_count)
            .order_by(Study.last_received, Study.id)
        )
        return [
            (study, uid, received, int(total), count)
            for study, uid, received, total, count in self._database.rows(query)
        ]

    def _received(self, uid: str) -> int | None:
        rows = self._database.rows(Study.select(Study.last_received).where(Study.uid == uid))
        return int(rows[0][0]) if rows else None

    def _senders(self) -> Mapping[int, list[tuple[str, str]]]:
        """Return calling and called AE titles of each study, if a rule needs them."""
        senders: dict[int, list[tuple[str, str]]] = defaultdict(list)
        if self._settings.calling_aets or self._settings.called_aets:
            query = (
                Instance.select(Series.study, Source.calling_aet, Source.called_aet)
                .join(Series)
                .join_from(Instance, Source)
                .distinct()
            )
            for study, calling, called in self._database.rows(query):
                senders[study].append((calling, called))
        return senders

    def _days(self, senders: list[tuple[str, str]] | tuple[()]) -> float | None:
        """Return for how many days a study of these senders is kept; None: for ever."""
        settings = self._settings
        each = [
            settings.calling_aets.get(calling, settings.called_aets.get(called, settings.days))
            for calling, called in senders
        ] or [settings.days]
        known = [days for days in each if days is not None]
        return max(known) if len(known) == len(each) else None


class RetentionWorker:
    """Applies the rules once an hour in a running daemon."""

    def __init__(self, retention: Retention, workers: Supervisor | None = None) -> None:
        self._retention = retention
        # Deleting terabytes takes long; the next start continues.
        self._worker = (workers or Supervisor()).add("retention", self._run, depends=True)

    def start(self) -> None:
        """Begin, if there is a rule."""
        if self._retention.is_active:
            self._worker.start()

    def stop(self) -> None:
        """End; a deletion that has begun is finished."""
        self._worker.stop()

    def _run(self) -> None:
        while True:
            try:
                self._retention.apply()
            except Exception as error:  # the fault may be gone in an hour
                log.exception("retention_failed")
                self._worker.failed(error)
            else:
                self._worker.done()
            if self._worker.wait(INTERVAL_SECONDS):
                return
