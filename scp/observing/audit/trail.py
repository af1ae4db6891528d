"""The audit trail: events are put into a bounded queue, and a thread of its own sends them.

Nobody waits for it. What does not fit is dropped, counted and logged; while the server is away the messages
wait.
"""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from index import IndexFault, StudyFacts, Supervisor
from scp.observing.association_record import AssociationRecord
from scp.observing.audit.codes import INSTANCES_ACCESSED, Outcome
from scp.observing.audit.events import received, received_action, sender_of
from scp.observing.audit.messages import AuditEvent, Source, message
from scp.observing.audit.syslog import Syslog, TooLong, syslog_message
from scp.settings.audit import AuditSettings

log = structlog.get_logger(__name__)

MOST = 10_000
"""Events that wait: some 10 MB."""
REPEATED_SECONDS = 60.0
"""Accesses of one caller to one study within so many seconds are one event: a viewer asks for each frame."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds until a server that fails is tried again: twice as long each time, up to the longest."""
FLUSH_SECONDS = 5.0
"""At the end: how long what waits is still sent."""
CATCH_UP_SECONDS = 10.0
"""How long it is waited until what came is indexed: then it is known whether it was here before."""
# Accesses that are remembered.
_REMEMBERED = 10_000


class Facts(Protocol):
    """What the trail asks the index."""

    def study_facts(self, uid: str) -> StudyFacts:
        """Return what is known of a study, series or instance."""

    def catch_up(self, seconds: float | None = None) -> bool:
        """Return when all is indexed that was acknowledged before."""


def completed(event: AuditEvent, facts: Facts) -> AuditEvent:
    """Return an event with what the index knows of its study."""
    if event.received is not None:
        facts.catch_up(CATCH_UP_SECONDS)
        return replace(event, action=received_action(event.received))
    study = event.study
    if study is None or study.patient_id is not None:
        return event
    try:
        found = facts.study_facts(study.looked_up or study.uid)
    except IndexFault as error:  # the message is worth more than the patient's number
        log.warning("audit_incomplete", reason=str(error))
        return event
    classes = study.classes or found.classes
    known = replace(study, patient_id=found.patient_id, accession=found.accession, classes=classes)
    return replace(event, study=known)


class AuditTrail:
    """Sends audit messages. `put` may be called from any thread. Also a collector of prometheus_client."""

    def __init__(self, settings: AuditSettings, source: Source, facts: Facts, workers: Supervisor) -> None:
        """`settings` have an address."""
        assert settings.address is not None  # noqa: S101  the caller has looked
        self.source = source
        self._facts = facts
        self._syslog = Syslog(settings, settings.address)
        self._changed = threading.Condition()
        self._events: deque[AuditEvent] = deque()
        self._until: float | None = None
        self._accessed: dict[tuple[str, ...], float] = {}
        self._is_full = False
        self.sent = self.dropped = 0
        self._worker = workers.add("audit", self._run, depends=True)

    def start(self) -> None:
        """Begin to send."""
        self._worker.start()

    def stop(self) -> None:
        """Send what waits for some seconds, and end."""
        with self._changed:
            self._until = time.monotonic() + FLUSH_SECONDS
            self._worker.stopping.set()
            self._changed.notify()
        self._worker.stop(2 * FLUSH_SECONDS)
        self._syslog.close()

    def put(self, event: AuditEvent) -> None:
        """Take an event, without waiting."""
        with self._changed:
            if len(self._events) < MOST:
                self._events.append(event)
                self._changed.notify()
                return
            self.dropped += 1
            is_first, self._is_full = not self._is_full, True
        if is_first:
            log.error("audit_dropped", waiting=MOST, why="the syslog server is too slow or away")

    def put_all(self, events: Iterable[AuditEvent]) -> None:
        """Take several."""
        for event in events:
            self.put(event)

    def put_received(self, record: AssociationRecord) -> None:
        """Take what came over an association since this was last done."""
        self.put_all(received(self.source, sender_of(record.info), record.received.take()))

    def describe(self) -> Iterable[Metric]:
        """Return nothing: the names are those that `collect` yields."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield how many messages were sent and dropped, and how many wait."""
        with self._changed:
            waiting, dropped = len(self._events), self.dropped
        counts = CounterMetricFamily("imagingstudyd_audit_messages", "Audit messages.", labels=["outcome"])
        counts.add_metric(["sent"], self.sent)
        counts.add_metric(["dropped"], dropped)
        yield counts
        yield GaugeMetricFamily("imagingstudyd_audit_waiting", "Audit messages that wait.", value=waiting)

    def _run(self) -> None:
        while (event := self._next()) is not None:
            if self._is_repeated(event):
                continue
            content = message(completed(event, self._facts), self.source)
            self._deliver(syslog_message(content, event.at, is_failure=event.outcome is not Outcome.SUCCESS))

    def _next(self) -> AuditEvent | None:
        with self._changed, self._worker.waiting():
            self._changed.wait_for(lambda: self._events or self._until is not None)
            if not self._events:
                return None
            if self._until is not None and time.monotonic() > self._until:
                self.dropped += len(self._events)
                log.error("audit_dropped", waiting=len(self._events), why="the daemon ends")
                return None
            return self._events.popleft()

    def _is_repeated(self, event: AuditEvent) -> bool:
        """Whether the same caller has just had the same study."""
        if event.event is not INSTANCES_ACCESSED or event.study is None:
            return False
        who = event.parties[0]
        key = (who.user_id, who.address, event.study.uid, event.action, event.outcome)
        now = time.monotonic()
        if now - self._accessed.get(key, -REPEATED_SECONDS) < REPEATED_SECONDS:
            return True
        self._accessed.pop(key, None)
        self._accessed[key] = now
        if len(self._accessed) > _REMEMBERED:
            del self._accessed[next(iter(self._accessed))]
        return False

    def _deliver(self, sent: bytes) -> None:
        """Send a message, again and again until the server takes it or the daemon ends."""
        pause = FIRST_PAUSE
        while True:
            try:
                with self._worker.waiting():  # for the server
                    self._syslog.send(sent)
            except TooLong as error:
                self._drop(str(error))
                return
            except OSError as error:
                if pause == FIRST_PAUSE:
                    log.warning("audit_not_sent", reason=str(error), again_seconds=pause)
                self._worker.failed(error)
            else:
                self.sent += 1
                self._is_full = False
                self._worker.done()
                return
            with self._changed, self._worker.waiting():
                self._changed.wait_for(lambda: self._until is not None, pause)
            if self._until is not None:
                # What else waits is dropped too: each would wait for a connection.
                self._until = 0.0
                self._drop("the daemon ends, and the syslog server does not answer")
                return
            pause = min(2 * pause, LONGEST_PAUSE)

    def _drop(self, why: str) -> None:
        with self._changed:
            self.dropped += 1
        log.error("audit_dropped", why=why)
