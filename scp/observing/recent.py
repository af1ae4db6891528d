"""What was stored in the last hour and what was refused last, kept for whoever looks at the page."""

import threading
import time
from collections import OrderedDict
from dataclasses import replace

from index import STORED_NUMBERS, STORED_SECONDS, Refusal

# Refusals that are kept. A caller that is refused again and again for one reason is one of them.
REFUSALS = 50
# The longest reason that is kept, in characters.
LONGEST_REASON = 500


class Recent:
    """Counts and refusals of the last time. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = [0] * STORED_NUMBERS
        self._period = _period()
        self._refusals: OrderedDict[tuple[str, str, str, str], Refusal] = OrderedDict()

    def count_stored(self) -> None:
        """Count an instance that is acknowledged."""
        period = _period()
        with self._lock:
            if period != self._period:
                self._turn(period)
            self._counts[period % STORED_NUMBERS] += 1

    def stored(self) -> list[int]:
        """Return how many were stored in each STORED_SECONDS of the last hour, oldest first."""
        period = _period()
        with self._lock:
            self._turn(period)
            first = (period + 1) % STORED_NUMBERS
            return self._counts[first:] + self._counts[:first]

    def refused(self, what: str, reason: str, caller: str = "", address: str = "") -> None:
        """Keep a refusal."""
        reason = reason[:LONGEST_REASON]
        key = what, reason, caller, address
        with self._lock:
            before = self._refusals.pop(key, None)
            now = Refusal(time.time_ns() // 1_000_000, what, caller, address, reason)
            self._refusals[key] = replace(now, times=before.times + 1) if before else now
            while len(self._refusals) > REFUSALS:
                self._refusals.popitem(last=False)

    def refusals(self) -> list[Refusal]:
        """Return what was refused last, the newest first."""
        with self._lock:
            return list(reversed(self._refusals.values()))

    def _turn(self, period: int) -> None:
        """Empty the counts of the periods that have begun since."""
        for one in range(self._period + 1, min(period, self._period + STORED_NUMBERS) + 1):
            self._counts[one % STORED_NUMBERS] = 0
        self._period = max(self._period, period)


def _period() -> int:
    return int(time.monotonic() // STORED_SECONDS)
