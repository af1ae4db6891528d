"""The indexer: one thread that takes what the log has acknowledged, and indexes it in batches.

A batch waits for others a few milliseconds, and not at all where an association has ended or a reader waits.
What the database refuses is kept and listed; a database that is busy, full or away is tried again until it
takes the batch: the journal holds what waits.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice

import structlog

from index.errors import CommitsLost, DatabaseFault, NotKept
from index.reception.arrival import Arrival
from index.reception.indexing import Indexing
from index.reception.position import Position
from index.reception.reporting import Reporter
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

# How long the first of a batch waits for others, in seconds.
BATCH_SECONDS = 0.015
BATCH_SIZE = 512
# After a database that was busy, full or away, in seconds.
RETRY_SECONDS = 1.0

OnEnded = Callable[[str], None]
# Indexes the records of the journal anew up to this number, where they are not; returns them.
Recover = Callable[[int], Sequence[Arrival]]


class Indexer:
    """Indexes arrivals in the order of the log. All its methods but `start` may be called from any thread.

    `on_ended` is called with an association's id when all that it had acknowledged is indexed.
    """

    def __init__(
        self,
        position: Position,
        indexing: Indexing,
        reporter: Reporter,
        workers: Supervisor,
        on_ended: OnEnded,
        recover: Recover,
    ) -> None:
        self._position = position
        self._indexing = indexing
        self._reporter = reporter
        self._on_ended = on_ended
        self._recover = recover
        self._lost = False
        self._queue: deque[Arrival | str] = deque()
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._reached = threading.Condition(lock)
        self._number = 0
        self._hurry = False
        self._stopping = False
        self._failing = False
        self._ended = False
        self._worker = workers.add("indexer", self._run)

    def start(self, number: int) -> None:
        """Begin; the records up to this number are indexed."""
        self._number = number
        self._worker.start()

    def stop(self) -> None:
        """Index what has been taken, as far as the database lets us, and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._worker.stop()
        self._end()

    def take(self, arrivals: Sequence[Arrival]) -> None:
        """Take arrivals that are acknowledged, in the order of the log."""
        with self._changed:
            is_first = not self._queue
            self._queue.extend(arrivals)
            if is_first or len(self._queue) >= BATCH_SIZE:
                self._changed.notify_all()

    def association_ended(self, association: str) -> None:
        """Index what came over this association at once, and then say so."""
        with self._changed:
            self._queue.append(association)
            self._hurry = True
            self._changed.notify_all()

    def catch_up(self, number: int, seconds: float | None = None) -> bool:
        """Return when the records up to this number are indexed; False where that takes longer."""
        with self._changed:
            if self._number >= number:
                return True
            self._hurry = True
            self._changed.notify_all()
            self._reached.wait_for(lambda: self._number >= number or self._ended, seconds)
            return self._number >= number

    def commits_lost(self) -> None:
        """Index anew what the database has lost."""
        with self._changed:
            self._lost = True
            self._changed.notify_all()

    @property
    def is_failing(self) -> bool:
        """Whether the last try to index a batch failed."""
        return self._failing

    def waiting(self) -> int:
        """Return how many instances wait to be indexed."""
        return len(self._queue)

    def _run(self) -> None:
        while (items := self._next()) or self._lost:
            if not self._serve(items):
                break
        self._end()
        with self._worker.waiting():
            self._worker.stopping.wait()

    def _end(self) -> None:
        """Nothing is indexed any more: what waits for it goes on. Also where a fault has ended the thread."""
        with self._changed:
            self._ended = True
            self._reached.notify_all()

    def _serve(self, items: Sequence[Arrival | str]) -> bool:
        """Index the arrivals of a batch, and report what came of them; False: the next start has to."""
        arrivals = [item for item in items if isinstance(item, Arrival)]
        if not self._index(arrivals):
            return False
        with self._changed:
            for _ in items:
                self._queue.popleft()
        if arrivals:
            self._reach(arrivals[-1].number or 0)
        self._reporter.report(arrivals)
        for association in (item for item in items if isinstance(item, str)):
            self._on_ended(association)
        return True

    def _next(self) -> list[Arrival | str]:
        """Wait for a batch, which stays in the queue until it is indexed; nothing at the end."""
        with self._changed, self._worker.waiting():
            self._changed.wait_for(lambda: self._queue or self._stopping or self._lost)
            self._changed.wait_for(
                lambda: self._hurry or self._lost or self._stopping or len(self._queue) >= BATCH_SIZE,
                BATCH_SECONDS,
            )
            items = list(islice(self._queue, BATCH_SIZE))
            self._hurry = self._hurry and len(items) < len(self._queue)
            return items

    def _index(self, batch: Sequence[Arrival]) -> bool:
        """Index a batch, however long that takes; False where it must be left to the next start."""

        def note(committed: Sequence[Arrival]) -> None:
            known = [arrival.number or 0 for arrival in batch if arrival.is_indexed]
            self._position.advance(max([self._number, *known]), number=committed[-1].number or 0)

        while (left := [arrival for arrival in batch if not arrival.is_indexed]) or self._lost:
            try:
                if self._lost:
                    self._index_lost(batch)
                if left:
                    self._indexing.index(left, durable=False, within=note)
            except CommitsLost as error:
                log.error("commits_lost", error=str(error))  # noqa: TRY400  it is the database's
                self._lost = True
            except DatabaseFault:
                return False
            except NotKept as error:
                if not self._wait_to_retry(error):
                    return False
        self._failing = False
        self._worker.done()
        return True

    def _index_lost(self, batch: Sequence[Arrival]) -> None:
        known = [arrival.number or 0 for arrival in batch if arrival.is_indexed]
        self._reporter.report(self._recover(max([self._number, *known])))
        self._lost = False

    def _reach(self, number: int) -> None:
        with self._changed:
            self._number = number
            self._reached.notify_all()

    def _wait_to_retry(self, error: NotKept) -> bool:
        """Wait; False where the daemon stops meanwhile: the journal keeps what waits."""
        if not self._failing:
            log.error("not_indexed_yet", error=str(error), retry_seconds=RETRY_SECONDS)
        self._failing = True
        self._worker.failed(error)
        with self._changed, self._worker.waiting():
            return not self._changed.wait_for(lambda: self._stopping, RETRY_SECONDS)
