"""The publisher: one thread that publishes studies that have changed.

A study that grows is written again after `interval` seconds, or `backoff` times the duration of its last
rewrite if that is longer: the cost of an instance does not grow with its study. Where many studies grow at
the same time, the durations of all that wait are added, up to a limit.
"""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from index.database.connection import Database
from index.database.tables import Study
from index.errors import Contention
from index.hooks import Observer
from index.publication.due import DueStudies
from index.publication.filling import ContentFilling
from index.publication.study import Postponed, PublicationResult, StudyPublication
from index.publication.terms.filling import TermFilling
from index.settings import PublishSettings
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

# Studies whose last rewrite's duration is remembered.
GROWING = 1000
# How soon a change by another process (import, delete) is seen, in seconds; one query of a partial index.
LOOK_INTERVAL = 0.5
# The same after some time without any change.
IDLE_LOOK_INTERVAL = 2.0
IDLE_SECONDS = 10.0
# After a failed publication (full disk), in seconds.
RETRY_INTERVAL = 5.0
# The longest pause because of other studies, in seconds: the merge of a patient may change hundreds.
SHARED_PAUSE = 5.0
# How long a stopping daemon publishes, in seconds: thousands of new orders take minutes, systemd waits 90 s.
STOP_SECONDS = 20.0


class Publisher:
    """Publishes changed studies: all now by `publish_all`, or from `start` to `stop` in a thread."""

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
        self._due = DueStudies()
        self._filling = ContentFilling(database)
        self._terms = TermFilling(database)
        # When the study that is being published became due.
        self._publishing_since: float | None = None
        self._last_change = time.monotonic()
        self._failing: set[int] = set()
        self._durations: dict[int, float] = {}
        self._of_association: dict[str, set[int]] = {}
        # When the first instance was acknowledged that a study's resource does not show yet.
        self._acknowledged: dict[int, float] = {}
        # Those whose association has ended since they were published.
        self._complete: set[int] = set()
        # Called after a publication, with the study's row, when it was acknowledged, and whether its
        # association has ended.
        self.on_published: Callable[[int, float | None, bool], None] = lambda *_: None
        # Called where another process may have changed something.
        self.on_look: Callable[[], None] = lambda: None
        self._watch = database.watch()
        self._changed = threading.Condition()
        self._worker = (workers or Supervisor()).add("publisher", self._run)
        self._stopping = self._worker.stopping
        self._unpublished = database.compile(
            lambda _: Study.select(Study.id).where(Study.revision != Study.published)
        )

    def start(self) -> None:
        """Begin to publish: first the studies that an earlier process left unpublished."""
        self._worker.start()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Publish for at most so many seconds, and end; the next start publishes the rest."""
        until = time.monotonic() + seconds
        with self._changed:
            self._stopping.set()
            self._changed.notify()
        self._worker.stop()
        self.publish_all(until)
        if unpublished := len(self._find()):
            log.warning("left_unpublished", studies=unpublished, why="the next start publishes them")

    def lag(self) -> float:
        """Return how long the study that waits longest has been overdue, in seconds."""
        with self._changed:
            publishing = math.inf if self._publishing_since is None else self._publishing_since
            return max(0.0, time.monotonic() - min(publishing, self._due.first()))

    def failing(self) -> int:
        """Return how many studies could not be published at the last attempt."""
        return len(self._failing)

    def waiting(self) -> int:
        """Return how many studies wait for their publication, or for its end."""
        with self._changed:
            return len(self._due) + (self._publishing_since is not None)

    def schedule(self, studies: Iterable[int]) -> None:
        """Publish these studies soon: they have changed, and may change more."""
        now = time.monotonic()
        with self._changed:
            new = [study for study in studies if study not in self._due]
            if not new:
                return
            durations = {study: self._durations.get(study, 0.0) for study in new}
            shared = min(SHARED_PAUSE, self._pace.backoff * (self._due.seconds + sum(durations.values())))
            for study, duration in durations.items():
                pause = max(self._pace.interval, self._pace.backoff * duration, shared)
                self._due.add(study, now + pause, duration)
            self._changed.notify()

    def indexed(self, association: str, studies: Mapping[int, float]) -> None:
        """Publish these studies soon, and when their association has ended, at once.

        With each study comes when an instance of it was acknowledged, on the monotonic clock.
        """
        with self._changed:
            self._of_association.setdefault(association, set()).update(studies)
            for study, acknowledged in studies.items():
                self._acknowledged.setdefault(study, acknowledged)
        self.schedule(studies)

    def association_ended(self, association: str) -> None:
        """Publish next what came over this association."""
        with self._changed:
            studies = self._of_association.pop(association, set())
        if studies:
            self.schedule_now(studies)

    def schedule_now(self, studies: Iterable[int]) -> None:
        """Publish these studies next, if they have changed."""
        now = time.monotonic()
        with self._changed:
            for study in studies:
                self._complete.add(study)
                self._due.add_complete(study, now, self._durations.get(study, 0.0))
            self._changed.notify()

    def publish_all(self, until: float = math.inf) -> int:
        """Publish until no changed study is left; return the number of publications.

        A study that cannot be published is logged, stays unpublished, and does not stop the others. No
        publication begins after `until`, on the monotonic clock.
        """
        failed: set[int] = set()
        count = 0
        while studies := self._find() - failed:
            for study in sorted(studies):
                if time.monotonic() >= until:
                    return count
                count += 1
                if self._publish(study) is not None:
                    failed.add(study)
        if until == math.inf:
            self._publication.directory.follow({})
            self._publication.directory.compare_all()
        return count

    def _find(self) -> set[int]:
        with self._database.connection():
            return {study for (study,) in self._unpublished.run().fetchall()}

    def _run(self) -> None:
        try:
            self._go_on()
        finally:
            self._watch.close()

    def _go_on(self) -> None:
        last_look = 0.0
        self._publishing_since = None
        while True:
            now = time.monotonic()
            interval = LOOK_INTERVAL if now - self._last_change < IDLE_SECONDS else IDLE_LOOK_INTERVAL
            if now - last_look >= interval:
                self._find_changes()
                last_look = now
            with self._changed:
                if self._stopping.is_set():
                    return
                taken = self._take(now)
                if taken is None:
                    with self._worker.waiting():
                        self._changed.wait(min(self._due.first() - now, interval))
                    continue
            self._worker.beat()
            study, grows = taken
            seconds = self._publish(study, grows=grows)
            if seconds is not None:
                with self._changed:
                    add = self._due.add if grows else self._due.add_complete
                    add(study, time.monotonic() + seconds, self._durations.get(study, 0.0))
            self._publishing_since = None

    def _take(self, now: float) -> tuple[int, bool] | None:
        """Take the study that is due next; with it, whether it grows."""
        found = self._due.pop(now)
        if found is None:
            return None
        study, self._publishing_since, grows = found
        self._last_change = now
        return study, grows

    def _find_changes(self) -> None:
        """Schedule what other processes have changed, and what a crash left unpublished."""
        try:
            if self._watch.is_changed():
                self.schedule(self._find())
                self.on_look()
            self._publication.directory.look()
            if self._due or self._failing:
                return
            if not self._filling.is_done:
                self.schedule(self._filling.go_on())
            elif not self._terms.is_done:
                self._terms.go_on()
            else:
                self._publication.directory.compare_some()
        except Exception:  # the next look comes soon
            self._watch.close()
            log.exception("publisher_cannot_read")

    def _publish(self, study: int, *, grows: bool = False) -> float | None:
        """Publish a study; return in how many seconds it is to be tried again, or None."""
        began = time.monotonic()
        acknowledged = self._acknowledged.pop(study, None)
        is_complete = study in self._complete
        self._complete.discard(study)
        try:
            result = self._publication.publish(study, grows=grows)
        except Contention as error:
            log.warning("publication_postponed", study=study, reason=str(error))
            result = Postponed(LOOK_INTERVAL)
        except Exception:  # one study must not stop the others
            log.exception("publish_failed", study=study, retry_seconds=RETRY_INTERVAL)
            self._failing.add(study)
            self._observer.publication_failed()
            result = Postponed(RETRY_INTERVAL)
        else:
            self._failing.discard(study)
        if isinstance(result, Postponed):
            if acknowledged is not None:
                self._acknowledged[study] = acknowledged
            if is_complete:
                self._complete.add(study)
            return result.seconds
        if result is not None:
            self._note_published(study, result, time.monotonic() - began, acknowledged)
        if result is not None or is_complete:
            self.on_published(study, acknowledged, is_complete)
        return None

    def _note_published(
        self, study: int, result: PublicationResult, duration: float, acknowledged: float | None
    ) -> None:
        lag = None if acknowledged is None else time.monotonic() - acknowledged
        self._observer.published(duration, lag)
        self._remember(study, duration)
        log.info(
            "published",
            study_uid=result.uid,
            instances=result.instances,
            written=result.written,
            removed=result.removed,
            seconds=round(duration, 4),
            lag=None if lag is None else round(lag, 4),
        )

    def _remember(self, study: int, duration: float) -> None:
        """Keep the durations of the last rewrites, of as many studies as may grow at the same time."""
        self._durations.pop(study, None)
        self._durations[study] = duration
        if len(self._durations) > GROWING:
            del self._durations[next(iter(self._durations))]
