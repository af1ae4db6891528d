"""How often a study that grows is sent to one target, and since when what is sent has been acknowledged."""

import math
import time

# Studies of which it is remembered when they were acknowledged, and sent.
REMEMBERED = 10_000


class Growth:
    """What is known of studies that change. Times are on the monotonic clock. For one thread at a time."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        # When the first instance was acknowledged that has not been sent.
        self._acknowledged: dict[str, float] = {}
        # The same of what is being sent.
        self._taken: dict[str, float | None] = {}
        # When it was sent while it grows.
        self._sent: dict[str, float] = {}
        # Those whose association has ended while they were being sent.
        self._ended: set[str] = set()

    def published(self, uid: str, acknowledged: float | None, *, is_complete: bool) -> None:
        """Note that a study has been published. `is_complete`: its association has ended."""
        if acknowledged is not None:
            self._acknowledged.setdefault(uid, acknowledged)
            _shorten(self._acknowledged)
        if is_complete:
            self._sent.pop(uid, None)
            if uid in self._taken:
                self._ended.add(uid)

    def not_before(self, uid: str) -> float:
        """Return when a study may be sent again."""
        return self._sent.get(uid, -math.inf) + self._interval

    def take(self, uid: str) -> None:
        """Note that a study is read, to be sent as it is now."""
        self._taken[uid] = self._acknowledged.pop(uid, None)

    def sent(self, uid: str) -> float | None:
        """Note that it has been; return how long ago its first instance was acknowledged, where known."""
        acknowledged, now = self._taken.pop(uid, None), time.monotonic()
        if uid in self._ended:
            self._ended.discard(uid)
        else:
            self._sent[uid] = now
            _shorten(self._sent)
        return None if acknowledged is None else now - acknowledged

    def not_sent(self, uid: str) -> None:
        """Note that a study was not taken after all; nothing where it was sent."""
        if (acknowledged := self._taken.pop(uid, None)) is not None:
            self._acknowledged[uid] = acknowledged
        self._ended.discard(uid)


def _shorten(times: dict[str, float]) -> None:
    if len(times) > REMEMBERED:
        del times[next(iter(times))]
