"""The reception log: an instance is acknowledged when its record is synced; index and files follow it.

All associations that wait at a moment share one sync. The journal has two parts that are written in turn:
while what one holds becomes durable elsewhere (settling.py), records go into the other.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

from peewee import chunked

from index.errors import NotKept
from index.reception.arrival import Arrival
from index.reception.batching import GroupLeader
from index.storage.journal import Journal

# How long senders wait for room, in seconds: the disk or the database has a bad moment. Modalities wait for
# 30 seconds and more for an answer.
FULL_SECONDS = 10
# Records of one part: a replay of all of both takes less than two seconds.
PART_RECORDS = 2048

# Arrivals of one write: what they hold fits into a part many times.
AT_ONCE = 64

Take = Callable[[Sequence[Arrival]], None]


class ReceptionLog:
    """Appends arrivals to the journal, and hands them on in the order of the log."""

    def __init__(self, journal: Journal, take: Take) -> None:
        self._journal = journal
        self._take = take
        self._groups = GroupLeader(self._append)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._appended = threading.Condition(self._lock)
        self._next = 1
        self._records = 0
        # The part that is not written now, and its last number, until it is settled.
        self._unsettled: tuple[int, int] | None = None
        self._broken = False
        self._full_until: float | None = None
        self._is_open = False

    @property
    def is_open(self) -> bool:
        """Whether arrivals are taken."""
        return self._is_open

    @property
    def last(self) -> int:
        """The number of the last record."""
        return self._next - 1

    def open(self, first: int) -> None:
        """Take arrivals from now on; the first one gets this number. Raises OSError."""
        self._journal.open()
        self._next = first
        self._is_open = True

    def stop_taking(self) -> None:
        """Take no more arrivals."""
        with self._lock:
            self._is_open = False
            self._appended.notify_all()
            self._room.notify_all()

    def close(self, *, settled: bool) -> None:
        """Let go of the journal; what is `settled` is not read again."""
        if settled:
            with contextlib.suppress(OSError):  # the next start finds all of it settled
                self._journal.clear()
        self._journal.close()

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        """Return when these arrivals are durable. One that has an error then must not be relied on."""
        self._groups.submit(*arrivals)

    def waiting(self) -> int:
        """Return how many instances wait for their sync."""
        return self._groups.waiting()

    def fill(self) -> float:
        """Return how full the journal is, from 0 to 1. It waits for no disk."""
        own = max(self._journal.fill, self._records / PART_RECORDS)
        return min(1.0, (1 + own) / 2 if self._unsettled else own / 2)

    def takes(self) -> bool:
        """Whether arrivals find room; False where senders have waited for it in vain."""
        refused = self._full_until is not None and time.monotonic() >= self._full_until
        return not refused or self._fits([b""])

    def makes_progress(self, seconds: float) -> bool:
        """Tell whether the group that is written now is done within that time."""
        return self._groups.makes_progress(seconds)

    def wait_until_needed(self, seconds: float | None = None) -> bool:
        """Wait until there is something to be settled, or the log is closed; return whether there is."""

        def is_needed() -> bool:
            return bool(self._unsettled or self._records or self._broken)

        with self._lock:
            self._appended.wait_for(lambda: is_needed() or not self._is_open, seconds)
            return is_needed()

    def wait_while_roomy(self, seconds: float) -> None:
        """Wait for so long, or until senders wait for room or the log is closed."""
        with self._lock:
            self._appended.wait_for(
                lambda: self._full_until is not None or self._broken or not self._is_open, seconds
            )

    def turn(self) -> tuple[int, int]:
        """Write into the other part from now on; return this one, and its last number.

        Where the other part is not released yet, that one is returned again: a fault may have come between.
        """
        with self._lock:
            if self._unsettled is None:
                self._unsettled = self._journal.turn(), self._next - 1
                self._records = 0
                self._room.notify_all()
            return self._unsettled

    def release(self) -> None:
        """What `turn` returned is durable elsewhere: that part is free. Raises OSError."""
        with self._lock:
            self._unsettled = None
            if self._broken and not self._records:
                self._journal.renew()
                self._broken = False
            self._room.notify_all()

    def wipe(self) -> None:
        """Leave nothing in the part that was settled last. For the thread that turns. Raises OSError."""
        self._journal.wipe()

    def _append(self, group: Sequence[Arrival]) -> None:
        for some in chunked(group, AT_ONCE):
            try:
                bodies = [arrival.record() for arrival in some]
                with self._lock:
                    self._wait_for_room(bodies)
                    self._write(some, bodies)
                    self._take(some)
            except Exception as error:  # noqa: BLE001  each sender is told; what failed for one fails for all of a write
                for arrival in some:
                    arrival.error = _not_kept(error)

    def _wait_for_room(self, bodies: Sequence[bytes]) -> None:
        """Wait until the records fit. All groups together wait for one obstacle. Raises NotKept."""
        if self._fits(bodies):
            self._full_until = None
            return
        if self._full_until is None:
            self._full_until = time.monotonic() + FULL_SECONDS
        self._appended.notify_all()
        left = max(0.0, self._full_until - time.monotonic())
        if not self._room.wait_for(lambda: self._fits(bodies) or not self._is_open, left):
            raise NotKept(f"journal: no room for {FULL_SECONDS} seconds")
        if not self._is_open:
            raise NotKept("journal: the daemon stops")
        self._full_until = None

    def _fits(self, bodies: Sequence[bytes]) -> bool:
        fits = self._records + len(bodies) <= PART_RECORDS and self._journal.has_room(bodies)
        return self._is_open and not self._broken and fits

    def _write(self, group: Sequence[Arrival], bodies: Sequence[bytes]) -> None:
        try:
            self._journal.append(self._next, bodies)
        except OSError:
            self._broken = True
            self._appended.notify_all()
            raise
        now = time.monotonic()
        for number, arrival in enumerate(group, self._next):
            arrival.number, arrival.acknowledged = number, now
        self._next += len(group)
        if not self._records:
            self._appended.notify_all()
        self._records += len(group)


def _not_kept(error: Exception) -> NotKept:
    if isinstance(error, NotKept):
        return error
    reason = error.strerror if isinstance(error, OSError) else error
    return NotKept(f"journal: {reason}")
