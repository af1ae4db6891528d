"""Delivery: what waits in a queue of the outbox is sent to its peers.

One thread looks what is to be done; a few others send, each over an association with one peer. A peer that
cannot be reached is tried again after a pause, whatever waits for it.
"""

import random
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic, perf_counter, time
from typing import Generic, Protocol, TypeVar

import structlog

from index import Queue, Supervisor, Waiting, Worker
from scp.services.sending import NoResponse
from scp.wire.status import reason_for_peer

log = structlog.get_logger("scp")

# How long an association stays open while nothing is to be sent, in seconds.
QUIET_SECONDS = 5.0
# How long a peer keeps its thread while others wait for one, in seconds.
TURN_SECONDS = 30.0
# Seconds until the next attempt: twice as long after each failure, up to the longest.
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 600.0
# Rows that are read at once.
BATCH = 64
# How soon a row is deleted when the peer has the instance, in seconds. After a crash it is sent again.
NOTE_SECONDS = 1.0
# Attempts before the others that wait for this peer go first.
ATTEMPTS_IN_ORDER = 3
# Attempts until an instance that the peer does not take is a dead letter: some ten minutes.
MOST_ATTEMPTS = 8
# The same where the peer is out of resources, in seconds: a disk may be full over a weekend.
RESOURCES_SECONDS = 3 * 86400
STOP_SECONDS = 20.0
# PS3.4 Table B.2-1: refused, out of resources. PS3.7 Section C.5.11: resource limitation.
_RESOURCES_MASK, _OUT_OF_RESOURCES, _RESOURCE_LIMITATION = 0xFF00, 0xA700, 0x0213


One = TypeVar("One", bound=Waiting)
_One_contra = TypeVar("_One_contra", contravariant=True, bound=Waiting)


class Outcome(Protocol):
    """What came of sending something."""

    @property
    def status(self) -> int | None:
        """Status of the response; None: there was none."""

    @property
    def reason(self) -> str:
        """What is wrong, in words."""

    @property
    def why(self) -> NoResponse | None:
        """Why there was no response."""

    @property
    def is_failed(self) -> bool:
        """Whether the peer does not have it."""

    @property
    def is_warning(self) -> bool:
        """Whether the peer has it, with a warning."""


class PeerSender(Protocol[_One_contra]):
    """Sends to one peer, in one thread, over an association that it opens when it is needed."""

    def expect(self, batch: Sequence[_One_contra]) -> None:
        """Prepare for these, which are sent next."""

    def send(self, one: _One_contra) -> Outcome:
        """Send one. Does not raise for what it or the peer brings up."""

    def interrupt(self) -> None:
        """Give up at once. Called from any thread."""

    def close(self) -> None:
        """Release the association."""


def pause(failures: int) -> float:
    """Return the seconds until the next attempt; with jitter, so that not all come back at one time."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 30))
    return longest * random.uniform(0.75, 1.0)  # noqa: S311  no cryptography


def _is_full(sent: Outcome) -> bool:
    status = sent.status
    return status is not None and (
        status & _RESOURCES_MASK == _OUT_OF_RESOURCES or status == _RESOURCE_LIMITATION
    )


@dataclass(slots=True)
class _Peer(Generic[One]):
    """What is known of a peer. Times are on the monotonic clock.

    `has_more`: something new may wait. `due_at`: when what failed is tried again. `not_before`: when the peer
    is. `is_taken`: by a thread, or it waits for one. `more` wakes its thread. `failures`: in a row.
    """

    name: str
    more: threading.Condition
    has_more: bool = True
    due_at: float | None = None
    not_before: float = 0.0
    is_taken: bool = False
    failures: int = 0
    reason: str = ""
    sender: PeerSender[One] | None = None

    def next_turn(self) -> float | None:
        """Return when it is to be sent to; None: when there is more."""
        if self.is_taken or (self.due_at is None and not self.has_more):
            return None
        return self.not_before if self.has_more else max(self.not_before, self.due_at or 0.0)


@dataclass(slots=True)
class _Tally:
    """What was sent in one turn of a peer; `delivered`: rows that are still to be deleted."""

    began: float = field(default_factory=perf_counter)
    noted: float = field(default_factory=monotonic)
    delivered: list[int] = field(default_factory=list)
    sent: int = 0
    warnings: int = 0
    failed: int = 0
    bytes: int = 0


class Delivery(Generic[One]):
    """Sends what waits in one queue. `name` is that of its threads, of which at most `threads` send."""

    name: str
    threads: int

    def __init__(self, queue: Queue[One], workers: Supervisor) -> None:
        self._queue = queue
        self._kind = queue.kind.value
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._work = threading.Condition(self._lock)
        self._peers: dict[str, _Peer[One]] = {}
        self._ready: deque[_Peer[One]] = deque()
        self._senders = [
            workers.add(f"{self.name}-{number}", partial(self._send_to_peers, number), depends=True)
            for number in range(1, self.threads + 1)
        ]
        self._idle = 0
        self._stopping = False
        self._look_at = 0.0
        self._worker = workers.add(self.name, self._run, depends=True)

    def sender(self, peer: str) -> PeerSender[One]:
        """Return what sends to a peer, for one turn."""
        raise NotImplementedError

    def count(self, peer: str, outcome: str) -> None:
        """Count an attempt: sent, warning, failed, dead."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin, where something is wanted or waits. Raises NotKept, DatabaseFault."""
        self._queue.on_added, self._queue.on_look = self._added, self._look
        if self._queue.wanted_by or self._queue.peers():
            self._worker.start()

    def reload(self) -> None:
        """Try peers that failed at once; begin, where something is wanted now."""
        with self._changed:
            self._look_at = 0.0
            for peer in self._peers.values():
                peer.not_before = 0.0
            self._changed.notify()
        if self._queue.wanted_by and not self._worker.is_started:
            self._worker.start()

    def stop(self) -> None:
        """Interrupt what is being sent, and end. What the peers do not have stays in the outbox."""
        workers = (self._worker, *self._senders)
        with self._changed:
            self._stopping = True
            for worker in workers:  # before any of them ends by that
                worker.stopping.set()
            self._changed.notify_all()
            self._work.notify_all()
            for peer in self._peers.values():
                peer.more.notify_all()
                if peer.sender:
                    peer.sender.interrupt()
        for worker in workers:
            worker.stop(STOP_SECONDS)

    def failing(self) -> dict[str, str]:
        """Return the peers whose last attempt failed, each with the reason."""
        with self._changed:
            return {peer.name: peer.reason for peer in self._peers.values() if peer.failures}

    def _added(self, peers: Iterable[str]) -> None:
        """Something has been added for these peers. Called in the thread that has indexed it."""
        with self._changed:
            for name in peers:
                peer = self._peer(name)
                peer.has_more = True
                if peer.is_taken:
                    peer.more.notify()
                else:
                    self._changed.notify()

    def _look(self) -> None:
        """Another process may have changed something. Only where anything waits, a look is needed."""
        with self._changed:
            self._look_at = 0.0
            self._changed.notify()

    def _peer(self, name: str) -> _Peer[One]:
        if name not in self._peers:
            self._peers[name] = _Peer(name, threading.Condition(self._lock))
        return self._peers[name]

    def _run(self) -> None:
        """Find out whose turn it is, until the end."""
        while True:
            with self._changed:
                if self._stopping:
                    return
                is_due = monotonic() >= self._look_at
            found = self._queue.look() if is_due else []
            with self._changed:
                if is_due:
                    self._look_at = monotonic() + self._queue.look_seconds
                for name in found:
                    self._peer(name).has_more = True
                self._give_turns()
                turns = [turn for peer in self._peers.values() if (turn := peer.next_turn()) is not None]
                until = min(self._look_at, *turns) if turns else self._look_at
                if not self._stopping:
                    with self._worker.waiting():
                        self._changed.wait(max(0.0, until - monotonic()))

    def _give_turns(self) -> None:
        """Let threads take the peers whose turn it is; start another thread where none is free."""
        now = monotonic()
        for peer in self._peers.values():
            turn = peer.next_turn()
            if turn is None or turn > now:
                continue
            peer.is_taken = True
            self._ready.append(peer)
        self._work.notify(len(self._ready))
        unused = (worker for worker in self._senders if not worker.is_started)
        for _, worker in zip(range(len(self._ready) - self._idle), unused, strict=False):
            worker.start()
        if self._do_others_wait():  # threads that only wait for more of their peers let these go
            for peer in self._peers.values():
                peer.more.notify()

    def _do_others_wait(self) -> bool:
        return len(self._ready) > self._idle

    def _send_to_peers(self, number: int) -> None:
        """Take peers whose turn it is, one after the other, until the end."""
        worker = self._senders[number - 1]
        while True:
            with self._work:
                self._idle += 1
                with worker.waiting():
                    self._work.wait_for(lambda: self._ready or self._stopping)
                self._idle -= 1
                if self._stopping:
                    return
                peer = self._ready.popleft()
                peer.sender = self.sender(peer.name)
            try:
                self._turn(peer, peer.sender, worker)
            except Exception as error:  # such as a full disk: the thread goes on
                log.exception("forwarding_failed", peer=peer.name)
                worker.failed(error)
                self._pause(peer, reason_for_peer(error))
            else:
                worker.done()
            with self._changed:
                peer.sender, peer.is_taken = None, False
                self._changed.notify()

    def _turn(self, peer: _Peer[One], sender: PeerSender[One], worker: Worker) -> None:
        """Send over one association what is due, and what comes until it has been quiet for a while."""
        tally = _Tally()
        try:
            while batch := self._next(peer, tally, worker):
                sender.expect(batch)
                for one in batch:
                    with worker.waiting():  # for the peer, however large the object is
                        sent = sender.send(one)
                    if self._stopping and sent.status is None:
                        return
                    if not self._note(peer, one, sent, tally):
                        return
        finally:
            sender.close()
            self._note_delivered(tally)
            self._log(peer, tally)

    def _next(self, peer: _Peer[One], tally: _Tally, worker: Worker) -> list[One]:
        """Return what is to be sent next; nothing at the end of the turn."""
        self._note_delivered(tally)
        until = monotonic() + (QUIET_SECONDS if tally.sent else 0.0)
        while True:
            with self._changed:
                is_long = perf_counter() - tally.began > TURN_SECONDS
                if self._stopping or (is_long and self._do_others_wait()):
                    peer.has_more = True
                    return []
                peer.has_more = False
            if batch := self._queue.due(peer.name, BATCH):
                return batch
            due = self._queue.next_due(peer.name)
            with self._changed:
                peer.due_at = None if due is None else monotonic() + max(0.0, due / 1000 - time())
                quiet = min(until, peer.due_at or until) - monotonic()
                if not peer.has_more and not self._stopping and (quiet <= 0 or self._do_others_wait()):
                    return []
                with worker.waiting():
                    peer.more.wait_for(
                        lambda: peer.has_more or self._stopping or self._do_others_wait(), quiet
                    )

    def _note(self, peer: _Peer[One], one: One, sent: Outcome, tally: _Tally) -> bool:
        """Note what came of an instance; return whether the peer can be sent more now."""
        log.debug("forward", peer=peer.name, uid=one.uid, reason=sent.reason)
        if sent.why is NoResponse.UNREACHABLE:
            if peer.reason != sent.reason:
                self._queue.note_peer(one, sent.reason)
            self._pause(peer, sent.reason)
            return False
        if not sent.is_failed:
            peer.failures, peer.reason = 0, ""
            tally.sent += 1
            tally.warnings += sent.is_warning
            tally.bytes += one.size
            tally.delivered.append(one.id)
            self.count(peer.name, "warning" if sent.is_warning else "sent")
            if monotonic() - tally.noted > NOTE_SECONDS:
                self._note_delivered(tally)
            return True
        tally.failed += 1
        self._note_failed(peer, one, sent)
        if not _is_full(sent) and sent.why is not NoResponse.LOST:
            return True  # it is this instance that fails
        self._pause(peer, sent.reason)
        return False

    def _note_failed(self, peer: _Peer[One], one: One, sent: Outcome) -> None:
        """Postpone an instance, or make it a dead letter."""
        attempts = one.attempts + 1
        is_dead = attempts >= MOST_ATTEMPTS
        if _is_full(sent):
            is_dead = is_dead and time() - one.created / 1000 > RESOURCES_SECONDS
        self.count(peer.name, "dead" if is_dead else "failed")
        if is_dead:
            self._queue.give_up(one, sent.reason)
        else:
            is_peers = _is_full(sent) or sent.why is NoResponse.LOST
            seconds = 0.0 if is_peers and attempts <= ATTEMPTS_IN_ORDER else pause(attempts)
            self._queue.postpone(one, seconds, sent.reason)
        log.warning(
            "forward_failed",
            peer=peer.name,
            kind=self._kind,
            uid=one.uid,
            reason=sent.reason,
            attempts=attempts,
            is_dead=is_dead,
        )

    def _note_delivered(self, tally: _Tally) -> None:
        """Delete the rows of what the peer has."""
        if tally.delivered:
            self._queue.remove(tally.delivered)
            tally.delivered = []
        tally.noted = monotonic()

    def _pause(self, peer: _Peer[One], reason: str) -> None:
        """Leave a peer alone for a while."""
        with self._changed:
            if self._stopping:
                return
            peer.failures += 1
            peer.reason, peer.has_more = reason, True
            seconds = pause(peer.failures)
            peer.not_before = monotonic() + seconds
        log.warning("forwarding_paused", peer=peer.name, reason=reason, again_seconds=round(seconds, 1))

    def _log(self, peer: _Peer[One], tally: _Tally) -> None:
        if tally.sent or tally.failed:
            log.info(
                "forwarded",
                peer=peer.name,
                **{f"{self._kind}s": tally.sent},
                warnings=tally.warnings,
                failed=tally.failed,
                bytes=tally.bytes,
                seconds=round(perf_counter() - tally.began, 4),
            )
