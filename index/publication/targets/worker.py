"""The threads of one target: each takes what is due, sends it, and notes what came of it.

Nothing that shares a resource which the server does not have yet is sent at the same time. While the server
fails, one at a time is tried, later and later: the others wait and lose no attempt.
"""

import math
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import structlog

from index.database.connection import Database
from index.hooks import Observer
from index.publication.targets.delivery import Delivery, Plan
from index.publication.targets.growth import Growth
from index.publication.targets.http.answers import Action, Result
from index.publication.targets.knowledge import Knowledge
from index.publication.targets.outbox import IMAGING_STUDY, Pending, TargetOutbox, now
from index.publication.targets.settings import TargetSettings
from index.supervisor import Supervisor, Worker

log = structlog.get_logger(__name__)

# Seconds until the next attempt: twice as long after each failure, up to the longest; of a server that is
# down, and of a study.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
FIRST_STUDY_PAUSE, LONGEST_STUDY_PAUSE = 5.0, 3600.0
# Seconds until the server is asked again for a patient that it does not have.
FIRST_HOLD, LONGEST_HOLD = 10.0, 900.0
# Attempts until a study that the server does not take is a dead letter.
MOST_ATTEMPTS = 8
# How soon it is seen what other nodes have changed, in seconds: they publish into PostgreSQL alone. And how
# soon another node, or old settings, have let go of the target.
LOOK_SECONDS = {True: 300.0, False: 1.0}
CLAIM_SECONDS = 1.0
# Rows that are looked at for one that can be sent now: so many at a time, and in all.
LOOKED_AT, MOST_LOOKED_AT = 50, 1000

Claim = Callable[[str], bool]


def pause(failures: int, first: float, longest: float) -> float:
    """Return the seconds until the next attempt; with jitter, so that not all come back at one time."""
    return min(longest, first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.75, 1.0)  # noqa: S311


class TargetWorker:
    """Sends what is pending to one target. `claim` tells whether this node does it now."""

    def __init__(
        self,
        database: Database,
        settings: TargetSettings,
        outbox: TargetOutbox,
        knowledge: Knowledge,
        delivery: Delivery,
        observer: Observer,
        workers: Supervisor,
        claim: Claim,
    ) -> None:
        self._database = database
        self._settings = settings
        self._outbox = outbox
        self._knowledge = knowledge
        self._delivery = delivery
        self._observer = observer
        self._claim = claim
        # Held by who reads and writes the outbox, one thread at a time. `_changed` is held for moments only:
        # the publisher, which wakes us, waits for it. It guards `_in_flight`, the times, and `_growth`.
        self._deciding = threading.Lock()
        self._changed = threading.Condition()
        self._in_flight: dict[int, Plan] = {}
        self._threads = [
            workers.add(f"publish-{settings.name}-{number}", partial(self._run, number), depends=True)
            for number in range(settings.concurrency)
        ]
        self._idle = 0
        self._stopping = False
        # Whether it was ours when that was last looked at.
        self._is_claimed = False
        # On the monotonic clock: when the feed is looked at, and rows; before when nothing is sent.
        self._look_at = self._pick_at = self._not_before = 0.0
        # Whether an operator may have said that all is to be tried now.
        self._is_to_ask = False
        # In a row, of the server.
        self._failures = 0
        self._reason = ""
        self._growth = Growth(settings.interval)
        # By row: its number, and the keys that kept it from being sent: reading it each time would be slow.
        self._blocked: dict[int, tuple[int, frozenset[str]]] = {}

    @property
    def name(self) -> str:
        """The target's name."""
        return self._settings.name

    @property
    def failure(self) -> str:
        """Why nothing can be sent now; empty: it can."""
        with self._changed:
            return self._reason

    def start(self) -> None:
        """Begin: first what an earlier process left."""
        self._threads[0].start()

    def stopping(self) -> None:
        """Begin nothing more."""
        with self._changed:
            self._stopping = True
            for thread in self._threads:
                thread.stopping.set()
            self._changed.notify_all()

    def stop(self, seconds: float) -> None:
        """Finish what is being sent, within so long, and end. What is not sent stays in the outbox."""
        self.stopping()
        for thread in self._threads:
            thread.stop(seconds)

    @property
    def has_ended(self) -> bool:
        """Whether nothing is being sent any more, after a stop."""
        return not any(thread.is_running for thread in self._threads)

    def wake(self, uid: str, acknowledged: float | None, *, is_complete: bool) -> None:
        """A study has been published. `acknowledged`: when its first unpublished instance was."""
        with self._changed:
            self._growth.published(uid, acknowledged, is_complete=is_complete)
            self._look_at = 0.0
            self._changed.notify()

    def look(self) -> None:
        """Look at the outbox soon: another process may have changed it."""
        with self._changed:
            self._look_at = self._pick_at = 0.0
            self._is_to_ask = True
            self._changed.notify()

    def try_now(self) -> None:
        """Try at once, even where the server fails, or has asked for a pause."""
        with self._changed:
            self._not_before = self._look_at = self._pick_at = 0.0
            self._changed.notify()

    def _run(self, number: int) -> None:
        worker = self._threads[number]
        while (plan := self._wait_for_plan(worker)) is not None:
            try:
                with worker.waiting():  # for the server
                    result = self._delivery.deliver(plan)
                with self._deciding:
                    self._note(plan, result)
                worker.done()
            finally:
                with self._changed:
                    del self._in_flight[plan.pending.id]
                    self._growth.not_sent(plan.pending.name)
                    self._pick_at = 0.0
                    self._changed.notify()

    def _wait_for_plan(self, worker: Worker) -> Plan | None:
        """Return what is to be sent next; None at the end."""
        with self._changed:
            self._idle += 1
        try:
            while not self._stopping:
                with self._deciding:
                    plan = self._next()
                with self._changed:
                    if plan is not None:
                        self._start_another()
                        return plan
                    if not self._stopping:
                        with worker.waiting():
                            self._changed.wait(self._seconds())
            return None
        finally:
            with self._changed:
                self._idle -= 1

    def _seconds(self) -> float | None:
        """Return after what time there may be something to do; None: when the one that is tried is over."""
        is_trying = self._failures and self._in_flight
        until = min(self._look_at, math.inf if is_trying else max(self._not_before, self._pick_at))
        return None if until == math.inf else max(0.0, until - time.monotonic())

    def _start_another(self) -> None:
        """Let another thread look for more, where this one was the last that waited."""
        if self._idle > 1:
            self._changed.notify()
        elif unused := [one for one in self._threads if not one.is_started]:
            with suppress(RuntimeError):  # no more threads: fewer do it
                unused[0].start()

    def _next(self) -> Plan | None:
        moment = time.monotonic()
        if self._is_to_ask:
            self._is_to_ask = False
            if self._is_claimed and self._outbox.take_retried():
                self._not_before = 0.0
        if moment >= self._look_at:
            self._is_claimed = self._claim(self.name)
            seconds = LOOK_SECONDS[self._database.is_sqlite] if self._is_claimed else CLAIM_SECONDS
            self._look_at = moment + seconds
            while self._is_claimed and self._outbox.advance():
                pass
            self._pick_at = 0.0
        if not self._is_claimed:
            self._pick_at = math.inf
        # While the server fails, one is tried.
        if moment < max(self._pick_at, self._not_before) or (self._failures and self._in_flight):
            return None
        self._pick_at = math.inf
        if (plan := self._pick(moment)) is not None:
            # Another thread may find more.
            self._pick_at = 0.0
        return plan

    def _pick(self, moment: float) -> Plan | None:
        """Return the first that is due and shares nothing with what is being sent."""
        with self._changed:
            in_flight = dict(self._in_flight)
        taken = frozenset[str]().union(*(plan.keys for plan in in_flight.values()))
        at, offset = now(), 0
        while rows := self._outbox.due(at, in_flight, LOOKED_AT, offset):
            for pending in rows:
                if (plan := self._plan(pending, moment, taken)) is not None:
                    return plan
            offset += len(rows)
            if len(rows) < LOOKED_AT or offset >= MOST_LOOKED_AT:
                break
        if self._outbox.is_filling and offset < LOOKED_AT:
            self._look_at = 0.0
        if (due := self._outbox.next_due(at)) is not None:
            self._pick_again(moment + due - time.time())
        return None

    def _pick_again(self, at: float) -> None:
        with self._changed:
            self._pick_at = min(self._pick_at, at)

    def _plan(self, pending: Pending, moment: float, taken: frozenset[str]) -> Plan | None:
        """Return the plan of a row, in flight now; None where it may not be while `taken` is, or so soon."""
        with self._changed:
            not_before = self._growth.not_before(pending.name)
        if moment < not_before and not pending.attempts:
            self._pick_again(not_before)
            return None
        number, keys = self._blocked.get(pending.id, (-1, frozenset()))
        if f"{pending.type}/{pending.name}" in taken or (number == pending.number and taken & keys):
            return None
        if pending.type != IMAGING_STUDY and self._outbox.is_before_studies(pending):
            return None
        with self._changed:
            # Before it is read: what is published after that is not in it.
            self._growth.take(pending.name)
        plan = self._delivery.plan(pending)
        with self._changed:
            if not taken & plan.keys:
                self._in_flight[pending.id] = plan
                self._blocked.pop(pending.id, None)
                return plan
            self._growth.not_sent(pending.name)
        if len(self._blocked) >= MOST_LOOKED_AT:
            self._blocked.clear()
        self._blocked[pending.id] = pending.number, plan.keys
        return None

    def _note(self, plan: Plan, result: Result) -> None:
        """Note what came of it; where that cannot be noted, it is sent again."""
        if self._stopping and result.action is not Action.DONE:
            return
        pending = plan.pending
        if result.action is Action.DONE:
            self._note_done(pending, result)
            return
        if result.learnt or result.forgotten:
            with self._database.writing(durable=False):
                self._keep(pending, result)
        self._observer.published_to(self.name, result.action, None)
        if result.action in (Action.PAUSE, Action.SUSPECT):
            self._note_server(pending, result)
        else:
            self._recover()
            self._note_study(pending, result)

    def _keep(self, pending: Pending, result: Result) -> None:
        """Remember what was learnt. Studies that refer to what has another id there now are sent again."""
        others = self._knowledge.referring(self._knowledge.renamed(result.learnt))
        self._knowledge.keep(result.learnt, result.forgotten)
        self._outbox.add_studies([name for name in others if name != pending.name])

    def _note_done(self, pending: Pending, result: Result) -> None:
        with self._database.writing(durable=False):
            self._keep(pending, result)
            self._outbox.done(pending)
            if result.is_provisional:
                seconds = pause(pending.attempts + 1, FIRST_HOLD, LONGEST_HOLD)
                self._outbox.hold_again(pending, seconds, "sent with a reference by identifier alone")
        self._recover()
        with self._changed:
            lag = self._growth.sent(pending.name)
        self._observer.published_to(self.name, Action.DONE, lag)
        log.info(
            "published_to_target",
            target=self.name,
            type=pending.type,
            id=pending.name,
            resources=len(result.learnt),
            lag=None if lag is None else round(lag, 4),
        )

    def _note_server(self, pending: Pending, result: Result) -> None:
        """The server fails: leave it alone for a while."""
        is_first, self._failures = not self._failures, self._failures + 1
        seconds = max(pause(self._failures, FIRST_PAUSE, LONGEST_PAUSE), result.retry_after)
        if result.action is Action.SUSPECT:
            if self._note_study(pending, result, costs=is_first):
                self._recover()
                return
            if is_first:
                # Others are tried before it counts as the server's.
                seconds = result.retry_after
        elif self._reason != result.reason:
            self._outbox.postpone(pending, 0.0, result.reason, result.outcome, attempts=pending.attempts)
        self._not_before = time.monotonic() + seconds
        self._reason = result.reason
        log.warning(
            "publishing_paused", target=self.name, reason=result.reason, again_seconds=round(seconds, 1)
        )

    def _note_study(self, pending: Pending, result: Result, *, costs: bool = True) -> bool:
        """Postpone it, hold it back, or make it a dead letter; return whether it is one."""
        attempts = pending.attempts + costs
        action = result.action
        if action is Action.HOLD:
            self._outbox.hold(pending, pause(attempts, FIRST_HOLD, LONGEST_HOLD), result.reason)
        elif action is Action.GIVE_UP or attempts >= MOST_ATTEMPTS:
            action = Action.GIVE_UP
            self._outbox.give_up(pending, result.reason, result.outcome)
        else:
            seconds = max(pause(max(attempts, 1), FIRST_STUDY_PAUSE, LONGEST_STUDY_PAUSE), result.retry_after)
            self._outbox.postpone(pending, seconds, result.reason, result.outcome, attempts=attempts)
        log.warning(
            "publish_to_target_failed",
            target=self.name,
            type=pending.type,
            id=pending.name,
            reason=result.reason,
            attempts=attempts,
            is_dead=action is Action.GIVE_UP,
        )
        return action is Action.GIVE_UP

    def _recover(self) -> None:
        if self._failures:
            log.info("publishing_goes_on", target=self.name)
        self._failures, self._reason, self._not_before = 0, "", 0.0
