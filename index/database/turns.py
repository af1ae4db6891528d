"""Periodic work that one node does for all: once in a while, whichever node it is.

When it is to be done next stands in the index: a node that dies in the middle leaves it due, and another one,
which looks soon, does it again. With SQLite the daemon's own clock is enough.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from index.database.claims import Claim, Work
from index.database.connection import Database
from index.database.node import clock
from index.database.tables import PeriodicWork

# How soon a node looks whether work is due that another one was to do, in seconds; a claim that was held by
# a machine that has vanished ends some seconds before (index/database/postgresql.py).
LOOK_SECONDS = 5.0


class Turns:
    """The turns of one process at some work, which is done every `interval` seconds.

    The first turn after its start is at once: its configuration may be new.
    """

    def __init__(self, database: Database, work: Work, interval: float) -> None:
        self._database = database
        self._work = work
        self._interval = interval
        self._is_first = True

    @property
    def pause(self) -> float:
        """How many seconds to wait before the next turn is asked for."""
        return self._interval if self._database.is_sqlite else min(self._interval, LOOK_SECONDS)

    @contextmanager
    def next(self, name: object = "") -> Iterator[Claim | None]:
        """A turn: it is over when the block ends without a fault. None: it is not due, or another node's.

        Raises NotKept.
        """
        with self._database.claims.claimed(self._work, name) as claim:
            key = f"{self._work}/{name}"
            if claim is None or not (self._is_first or self._is_due(key)):
                yield None
                return
            yield claim
            self._is_first = False
            self._note(key)

    def _is_due(self, key: str) -> bool:
        if self._database.is_sqlite:
            return True
        row = PeriodicWork
        left = self._database.rows(row.select(row.due - clock(self._database)).where(row.name == key))
        return not left or left[0][0] <= 0

    def _note(self, key: str) -> None:
        if self._database.is_sqlite:
            return
        due = clock(self._database) + int(self._interval * 1000)
        insert = PeriodicWork.insert(name=key, due=due)
        update = insert.on_conflict(conflict_target=[PeriodicWork.name], update={PeriodicWork.due: due})
        with self._database.writing(durable=False):
            self._database.execute(update)
