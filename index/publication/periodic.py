"""Publication while an import goes on, where no daemon runs."""

import contextlib
import time
from collections.abc import Callable

from index.errors import Locked, NotKept

# How often what has come so far is published, and for how long studies are begun, in seconds.
INTERVAL = 10.0
DURATION = 5.0
# The least pause, as a multiple of the last duration: most of the time is the import's.
PAUSE = 4


class PeriodicPublication:
    """Publishes now and then; `publish` is given the time after which it begins no further study."""

    def __init__(self, publish: Callable[[float], object]) -> None:
        self._publish = publish
        self._due = time.monotonic() + INTERVAL

    def go_on(self) -> None:
        """Publish where it is due. A fault is left to the publication at the end."""
        began = time.monotonic()
        if began < self._due:
            return
        with contextlib.suppress(Locked, NotKept, OSError):
            self._publish(began + DURATION)
        ended = time.monotonic()
        self._due = ended + max(INTERVAL, PAUSE * (ended - began))
