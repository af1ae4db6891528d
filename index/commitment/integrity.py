"""Whether objects are there and whole: what the last `verify` found, and what their files tell now."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

import peewee
import structlog

from index.database.connection import Database
from index.database.mark_changed import now
from index.database.node import in_scope
from index.database.tables import DamagedObject, Verification
from index.storage.object_file import sha1_of
from index.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

# Bytes a second that are read: a fifth of what a common disk gives, since reception comes first.
RATE = 100 * 1024 * 1024
# File systems keep times by a clock that ticks up to 10 ms apart, some by whole seconds; in milliseconds.
CLOCK = 1000

# After how long a store that did not answer is asked again, in seconds.
AWAY_SECONDS = 5.0

# Waits for so many seconds; returns True where the work is to end.
Pause = Callable[[float], bool]


class Damage(Enum):
    """What can be wrong with an object."""

    MISSING = "missing"
    CORRUPT = "corrupt"
    ELSEWHERE = "kept by another node"


@dataclass(frozen=True, slots=True)
class IndexedObject:
    """What the index says of an instance's object."""

    path: str
    size: int
    sha1: str
    received: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at objects: those that did not change since `verified` (ms since 1970) are not read again.

    It ends when `pause` returns True.
    """

    verified: int
    pause: Pause


class Interrupted(Exception):
    """`pause` returned True: the caller ends."""


class _StoreAway(Exception):
    """The store does not answer, which tells nothing of an object."""


class Integrity:
    """Looks at the objects of a data directory, for one thread."""

    def __init__(self, database: Database, objects: ObjectStore) -> None:
        self._database = database
        self._objects = objects
        # What time it is, in milliseconds since 1970.
        self.clock = now

    @property
    def node(self) -> int:
        """The number of this node in the paths of its objects."""
        return self._objects.node

    def holds(self, path: str) -> bool:
        """Whether an object is to be found here, not in the data directory of another node."""
        objects = self._objects
        return objects.holds(path) and not (objects.may_be_elsewhere(path) and not objects.is_there(path))

    def last_verified(self) -> int:
        """Return when the last `verify` began that read every object; 0: never."""
        query = Verification.select(peewee.fn.MAX(Verification.began))
        rows = self._database.rows(query.where(Verification.node == self._objects.scope))
        return int(rows[0][0] or 0)

    def note_verified(self, began: int, damaged: Iterable[str]) -> None:
        """A `verify` has read every object: keep when it began, and the paths of those that are not whole."""
        with self._database.writing():
            node = self._objects.scope
            self._database.execute(Verification.delete().where(Verification.node == node))
            self._database.execute(Verification.insert(began=began, node=node))
            self._database.execute(DamagedObject.delete().where(in_scope(DamagedObject.path, self._objects)))
            for path in damaged:
                self._database.execute(DamagedObject.insert(path=path).on_conflict_ignore())

    def damage(self, stored: IndexedObject, reading: Reading) -> Damage | None:
        """Return what is wrong with an object: its file is to be there with the right size and SHA-1.

        It is read where it came, or its file changed, since the last reading, or was not whole then. Raises
        Interrupted.
        """
        while True:
            try:
                return self._damage(stored, reading)
            except _StoreAway:
                if reading.pause(AWAY_SECONDS):
                    raise Interrupted from None

    def _damage(self, stored: IndexedObject, reading: Reading) -> Damage | None:
        if not self._objects.holds(stored.path):
            return Damage.ELSEWHERE
        try:
            state = self._objects.state(stored.path)
            if state is None:
                return self._missing(stored.path)
            if not state.is_file or state.size != stored.size:
                return Damage.CORRUPT
            changed = max(stored.received, state.changed)
            was_damaged = self._was_damaged(stored.path)
            if changed + CLOCK < reading.verified and not was_damaged:
                return None
            is_whole = self._sha1(stored.path, reading.pause) == stored.sha1
        except FileNotFoundError:
            return self._missing(stored.path)
        except OSError:  # the disk cannot read it
            if self._objects.away:
                raise _StoreAway from None
            log.exception("object_not_read", path=stored.path)
            is_whole, was_damaged = False, self._was_damaged(stored.path)
        if is_whole == was_damaged:
            self._note(stored.path, damaged=not is_whole)
        return None if is_whole else Damage.CORRUPT

    def _missing(self, path: str) -> Damage:
        return Damage.ELSEWHERE if self._objects.may_be_elsewhere(path) else Damage.MISSING

    def _sha1(self, path: str, pause: Pause) -> str:
        """Return the SHA-1 of an object, in hexadecimal, at the pace allowed. Raises OSError, Interrupted."""
        began, read = time.monotonic(), 0

        def keep_pace(size: int) -> None:
            nonlocal read
            read += size
            if pause(max(0, read / RATE - (time.monotonic() - began))):
                raise Interrupted

        with self._objects.open(path) as file:
            return sha1_of(file, keep_pace)

    def _was_damaged(self, path: str) -> bool:
        return bool(self._database.rows(DamagedObject.select().where(DamagedObject.path == path)))

    def _note(self, path: str, *, damaged: bool) -> None:
        with self._database.writing():
            if damaged:
                self._database.execute(DamagedObject.insert(path=path).on_conflict_ignore())
            else:
                self._database.execute(DamagedObject.delete().where(DamagedObject.path == path))
