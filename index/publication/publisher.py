"""The publisher: one thread that publishes studies that changed.

A study that grows is written again after `interval` seconds, or `backoff` times what its last rewrite took
if that is longer: the cost for each instance stays flat however large the study is. Where many grow at once,
all that wait are counted together, up to a limit. `flush` makes a study due now.
"""

import math
import threading
import time
from collections.abc import Iterable

import structlog

from index.database.connection import Database
from index.database.tables import Study
from index.hooks import Observer
from index.publication.study import StudyPublication
from index.settings import PublishSettings
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

# Studies of which is kept what their last rewrite took.
GROWING = 1000
# How soon a change by another process (import, delete) is seen, in seconds; one query of a partial index.
LOOK_INTERVAL = 0.5
# After a failed publication (full disk), in seconds.
RETRY_INTERVAL = 5.0
# The longest pause for the sake of other studies, in seconds: a patient that is merged may change hundreds.
SHARED_PAUSE = 5.0
# How long a stopping daemon goes on publishing: thousands of new orders take minutes, systemd waits 90 s.
STOP_SECONDS = 20.0


class Publisher:
    """Publishes what changed: `publish_all` now, in this thread; `start` and `stop` for a daemon."""

    def __init__(
        self,
        database: Database,
        publication: StudyPublication,
        pace: PublishSettings,
        observer: Observer | None = None,
        workers: Supervisor | None = None,
    ) -> None:
        self._database = database
        self._publication = publication
        self._pace = pace
        self._observer = observer or Observer()
        self._due: dict[int, float] = {}
        # When what is being published became due.
        self._at_work: float | None = None
        self._failing: set[int] = set()
        self._took: dict[int, float] = {}
        self._changed = threading.Condition()
        self._worker = (workers or Supervisor()).add("publisher", self._run)
        self._stopping = self._worker.stopping
        self._unpublished = database.compile(
            lambda _: Study.select(Study.id).where(Study.revision != Study.published)
        )

    def start(self) -> None:
        """Begin to publish: first what an earlier process left unpublished."""
        self._worker.start()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Publish what has changed, as far as that time goes, and end; the rest is the next start's."""
        until = time.monotonic() + seconds
        with self._changed:
            self._stopping.set()
            self._changed.notify()
        self._worker.stop()
        self.publish_all(until)
        if left := len(self._find()):
            log.warning("left_unpublished", studies=left, why="the next start publishes them")

    def lag(self) -> float:
        """Return how long the study that waits longest has been overdue, in seconds."""
        with self._changed:
            waiting = [*self._due.values(), *(at for at in (self._at_work,) if at is not None)]
        return max(0.0, time.monotonic() - min(waiting)) if waiting else 0.0

    def failing(self) -> int:
        """Return how many studies could not be published at the last try."""
        return len(self._failing)

    def waiting(self) -> int:
        """Return how many studies wait for their publication."""
        return len(self._due)

    def touch(self, studies: Iterable[int]) -> None:
        """These studies have changed and may change more."""
        now = time.monotonic()
        with self._changed:
            new = [study for study in studies if study not in self._due]
            if not new:
                return
            all_took = sum(self._took.get(study, 0.0) for study in (*self._due, *new))
            shared = min(SHARED_PAUSE, self._pace.backoff * all_took)
            for study in new:
                own = self._pace.backoff * self._took.get(study, 0.0)
                self._due[study] = now + max(self._pace.interval, own, shared)
            self._changed.notify()

    def flush(self, studies: Iterable[int]) -> None:
        """Publish these studies at once, where they have changed."""
        now = time.monotonic()
        with self._changed:
            self._due |= dict.fromkeys(studies, now)
            self._changed.notify()

    def publish_all(self, until: float = math.inf) -> int:
        """Publish until no study is left that has changed; return how many publications that took.

        A study that cannot be published is logged, stays unpublished, and does not stop the others. None is
        begun after `until`, on the monotonic clock.
        """
        failed: set[int] = set()
        count = 0
        while studies := self._find() - failed:
            for study in sorted(studies):
                if time.monotonic() >= until:
                    return count
                count += 1
                if not self._publish(study):
                    failed.add(study)
        return count

    def _find(self) -> set[int]:
        with self._database.connection():
            return {study for (study,) in self._unpublished.run().fetchall()}

    def _run(self) -> None:
        looked = 0.0
        self._at_work = None
        while True:
            now = time.monotonic()
            if now - looked >= LOOK_INTERVAL:
                self._look()
                looked = now
            with self._changed:
                if self._stopping.is_set():
                    return
                due = [study for study, at in self._due.items() if at <= now]
                if not due:
                    soonest = min(self._due.values(), default=now + LOOK_INTERVAL)
                    with self._worker.waiting():
                        self._changed.wait(min(soonest - now, LOOK_INTERVAL))
                    continue
                self._at_work = min(self._due[study] for study in due)
                for study in due:
                    del self._due[study]
            for study in due:
                if self._stopping.is_set():
                    return
                self._worker.beat()
                if not self._publish(study):
                    with self._changed:
                        self._due[study] = time.monotonic() + RETRY_INTERVAL
            self._at_work = None

    def _look(self) -> None:
        """Find what other processes have changed, and what a crash left unpublished."""
        try:
            self.touch(self._find())
        except Exception:  # the next look comes soon
            log.exception("publisher_cannot_read")

    def _publish(self, study: int) -> bool:
        began = time.monotonic()
        try:
            result = self._publication.publish(study)
        except Exception:  # one study must not stop the others
            log.exception("publish_failed", study=study, retry_seconds=RETRY_INTERVAL)
            self._failing.add(study)
            self._observer.publication_failed()
            return False
        self._failing.discard(study)
        if result is not None:
            took = time.monotonic() - began
            self._observer.published(took)
            self._remember(study, took)
            log.info(
                "published",
                study_uid=result.uid,
                instances=result.instances,
                written=result.written,
                removed=result.removed,
                seconds=round(took, 4),
            )
        return True

    def _remember(self, study: int, took: float) -> None:
        """Keep what the last rewrites took, of as many studies as may well grow at once."""
        self._took.pop(study, None)
        self._took[study] = took
        if len(self._took) > GROWING:
            del self._took[next(iter(self._took))]
