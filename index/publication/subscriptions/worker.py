"""The threads that send notifications: handshakes, events in their order, heartbeats.

An endpoint that fails is tried again later and later, and after MOST_ATTEMPTS its subscription is in error:
only its owner sets that right. What it has missed is sent then, as far as it is still known.
"""

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import structlog

from index.database.connection import Database
from index.database.subscription_tables import SubscriptionStatus
from index.publication.subscriptions.endpoints import is_allowed, origin_of
from index.publication.subscriptions.following import FeedFollower
from index.publication.subscriptions.hook import Hook
from index.publication.subscriptions.notifications import Kind, Notifications
from index.publication.subscriptions.store import Subscription, SubscriptionStore, now
from index.publication.targets.http.answers import Action, Result
from index.publication.targets.worker import LOOK_SECONDS, pause
from index.supervisor import Supervisor, Worker

log = structlog.get_logger(__name__)

THREADS = 4
"""Endpoints that are sent to at one time."""
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 600.0
"""Seconds until the next attempt: twice as long after each failure, up to the longest."""
MOST_ATTEMPTS = 10
"""Some 17 minutes: an endpoint may be restarted meanwhile."""
# How long a stop waits for what is being sent, in seconds.
STOP_SECONDS = 20.0
# How often forgotten events are deleted, in seconds: as often as the feed is pruned.
_FORGET_SECONDS = 3600.0


class _Task(NamedTuple):
    """What is to be sent next. `due` in ms since 1970."""

    due: int
    kind: Kind | None
    subscription: Subscription


class SubscriptionWorker:
    """Sends notifications. `claim` tells whether this node does it now; `allowed`: prefixes of endpoints."""

    def __init__(
        self,
        store: SubscriptionStore,
        notifications: Notifications,
        allowed: Callable[[], tuple[str, ...]],
        claim: Callable[[], bool],
        workers: Supervisor,
    ) -> None:
        self._store = store
        self._database: Database = store.database
        self._notifications = notifications
        self._allowed = allowed
        self._claim = claim
        self._follower = FeedFollower(store)
        self._hook = Hook()
        self._changed = threading.Condition()
        self._threads = [
            workers.add(f"subscriptions-{number}", partial(self._run, number), depends=True)
            for number in range(THREADS)
        ]
        self._in_flight: set[int] = set()
        self._idle = 0
        self._stopping = self._is_claimed = False
        # On the monotonic clock: when the feed is looked at, what is due, and what may be forgotten.
        self._look_at = self._pick_at = self._forget_at = 0.0

    def start(self) -> None:
        """Begin, unless it has begun."""
        with self._changed:
            if not self._threads[0].is_started and not self._stopping:
                self._threads[0].start()

    def stop(self) -> None:
        """Finish what is being sent, and end. What endpoints do not have is sent after the next start."""
        with self._changed:
            self._stopping = True
            for thread in self._threads:
                thread.stopping.set()
            self._changed.notify_all()
        for thread in self._threads:
            thread.stop(STOP_SECONDS)
        self._hook.close()

    def wake(self) -> None:
        """Studies or subscriptions have changed."""
        with self._changed:
            self._look_at = 0.0
            self._changed.notify()

    def _run(self, number: int) -> None:
        worker = self._threads[number]
        while (task := self._wait_for_task(worker)) is not None:
            try:
                self._do(task, worker)
                worker.done()
            finally:
                with self._changed:
                    self._in_flight.discard(task.subscription.id)
                    self._pick_at = 0.0
                    self._changed.notify()

    def _wait_for_task(self, worker: Worker) -> _Task | None:
        """Return what is to be sent next; None at the end."""
        with self._changed:
            self._idle += 1
            try:
                while not self._stopping:
                    if (task := self._next()) is not None:
                        self._in_flight.add(task.subscription.id)
                        self._start_another()
                        return task
                    with worker.waiting():
                        self._changed.wait(max(0.0, min(self._look_at, self._pick_at) - time.monotonic()))
                return None
            finally:
                self._idle -= 1

    def _start_another(self) -> None:
        """Let another thread look for more, where this one was the last that waited."""
        self._pick_at = 0.0
        if self._idle > 1:
            self._changed.notify()
        elif unused := [one for one in self._threads if not one.is_started]:
            unused[0].start()

    def _next(self) -> _Task | None:
        moment = time.monotonic()
        if moment >= self._look_at:
            self._look_at = moment + LOOK_SECONDS[self._database.is_sqlite]
            self._is_claimed = self._claim()
            self._pick_at = 0.0
            if self._is_claimed:
                self._follower.follow()
                self._forget(moment)
        if not self._is_claimed:
            self._pick_at = math.inf  # another node's, until the next look
        if moment < self._pick_at:
            return None
        tasks = [_task(one) for one in self._store.served() if one.id not in self._in_flight]
        wanted = [task for task in tasks if task.kind or task.due]
        # Of several the one that has waited longest: no endpoint that is slow holds up all others.
        due = min(wanted, default=None, key=lambda task: (task.due, task.subscription.sent))
        if due is None:
            self._pick_at = math.inf
            return None
        wait = (due.due - now()) / 1000
        self._pick_at = moment + wait
        return due if wait <= 0 else None

    def _forget(self, moment: float) -> None:
        if moment >= self._forget_at:
            self._forget_at = moment + _FORGET_SECONDS
            self._follower.forget()

    def _do(self, task: _Task, worker: Worker) -> None:
        subscription, kind = task.subscription, task.kind
        if kind is None:
            self._store.delete(subscription.fhir, subscription.name)
            log.info("subscription_ended", subscription=subscription.name, why="its end has come")
            return
        if not is_allowed(subscription.definition.endpoint, self._allowed()):
            self._fail(subscription, "http.subscriptions allows its endpoint no more", is_final=True)
            return
        events = []
        if kind is Kind.EVENT:
            first, count = subscription.delivered + 1, subscription.definition.max_count
            events = self._store.events(subscription, first, subscription.events, count)
        bundle, count = self._notifications.bundle(subscription, kind, events)
        # Events that the feed has forgotten are left out: their numbers are missing.
        delivered = events[count - 1].number if events else subscription.events
        if kind is Kind.EVENT and not events:
            self._store.note(subscription, delivered=delivered)
            return
        with worker.waiting():  # for the endpoint
            result = self._hook.send(subscription.definition, bundle)
        if result.action is Action.DONE:
            self._note_sent(subscription, kind, delivered, count)
        else:
            self._note_failed(subscription, kind, result)

    def _note_sent(self, subscription: Subscription, kind: Kind, delivered: int, count: int) -> None:
        changes = {"attempts": 0, "due": 0, "sent": now(), "error": ""}
        if kind is Kind.EVENT:
            changes["delivered"] = delivered
        elif kind is Kind.HANDSHAKE:
            changes |= {"status": SubscriptionStatus.ACTIVE.value, "changed": now()}
        self._store.note(subscription, **changes)
        log.info("subscription_notified", subscription=subscription.name, kind=str(kind), events=count)

    def _note_failed(self, subscription: Subscription, kind: Kind, result: Result) -> None:
        if self._stopping:
            return
        if result.action is Action.GIVE_UP:
            off = {"status": SubscriptionStatus.OFF.value, "changed": now(), "error": result.reason}
            self._store.note(subscription, **off)
            log.warning("subscription_ended", subscription=subscription.name, why=result.reason)
            return
        attempts = subscription.attempts + 1
        # R5 subscription.html: an error in the handshake is one of the subscription.
        is_final = kind is Kind.HANDSHAKE or attempts >= MOST_ATTEMPTS
        seconds = max(pause(attempts, FIRST_PAUSE, LONGEST_PAUSE), result.retry_after)
        self._fail(subscription, result.reason, is_final=is_final, seconds=seconds)

    def _fail(self, subscription: Subscription, reason: str, *, is_final: bool, seconds: float = 0) -> None:
        changes = {"attempts": subscription.attempts + 1, "due": now() + int(seconds * 1000), "error": reason}
        if is_final:
            changes |= {"status": SubscriptionStatus.ERROR.value, "changed": now()}
        self._store.note(subscription, **changes)
        log.warning(
            "subscription_failed",
            subscription=subscription.name,
            endpoint=origin_of(subscription.definition.endpoint),
            reason=reason,
            is_error=is_final,
            again_seconds=None if is_final else round(seconds, 1),
        )


def _task(one: Subscription) -> _Task:
    """Return what is to be sent to a subscription next, and when; due 0 and no kind: nothing."""
    end, heartbeat = one.definition.end, one.definition.heartbeat
    if end is not None and end <= now():
        return _Task(end, None, one)
    sent = []
    if one.status == SubscriptionStatus.REQUESTED:
        sent.append(_Task(one.due, Kind.HANDSHAKE, one))
    elif one.status == SubscriptionStatus.ACTIVE:
        if one.delivered < one.events:
            sent.append(_Task(one.due, Kind.EVENT, one))
        elif heartbeat:
            sent.append(_Task(max(one.due, one.sent + heartbeat * 1000), Kind.HEARTBEAT, one))
    return min(sent, default=_Task(end or 0, None, one), key=lambda task: task.due)
