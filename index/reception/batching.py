"""What many threads want at one moment, done for all of them at once by one of them.

There is no thread for it: handing over to one costs more than the work of a small group.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class _Turn(Generic[T]):
    """What one thread submits and, where it has to wait, a lock that it waits for."""

    __slots__ = ("done", "gate", "items")

    def __init__(self, items: Sequence[T]) -> None:
        self.items = items
        self.done = False
        self.gate: threading.Lock | None = None

    def wake(self) -> None:
        if self.gate is not None:
            self.gate.release()


class GroupLeader(Generic[T]):
    """Calls `act` with one group after the other; every item is in one group. `act` does not raise.

    The thread that comes first leads: it acts for all that have come meanwhile. Then the first of those that
    came later leads.
    """

    def __init__(self, act: Callable[[Sequence[T]], None]) -> None:
        self._act = act
        self._lock = threading.Lock()
        self._waiting: list[_Turn[T]] = []
        self._has_leader = False
        self._acting = threading.Lock()

    def submit(self, *items: T) -> None:
        """Return when a group with these items, in their order, has been acted for."""
        turn = _Turn(items)
        with self._lock:
            self._waiting.append(turn)
            if self._has_leader:
                turn.gate = threading.Lock()
                turn.gate.acquire()
            self._has_leader = True
        if turn.gate is not None:
            turn.gate.acquire()  # until it is done, or ours to lead
        if not turn.done:
            self._lead()

    def waiting(self) -> int:
        """Return how many items wait."""
        return sum(len(turn.items) for turn in self._waiting)

    def makes_progress(self, seconds: float) -> bool:
        """Tell whether the group that is acted for is done within that time."""
        if not self._acting.acquire(timeout=seconds):
            return False
        self._acting.release()
        return True

    def _lead(self) -> None:
        group: list[_Turn[T]] = []
        try:
            with self._acting:
                with self._lock:
                    group, self._waiting = self._waiting, []
                self._act([item for turn in group for item in turn.items])
        finally:
            with self._lock:
                following = self._waiting[0] if self._waiting else None
                self._has_leader = following is not None
            for turn in group:
                turn.done = True
                turn.wake()
            if following is not None:
                following.wake()
