"""Group commit: who takes the lock commits for all who wait, in one transaction.

There is no writer thread: handing over to one costs more than the commit of a small group.
"""

import functools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from index.database import Database
from index.errors import DatabaseFault, NotKept
from index.objects import ObjectStore
from index.observer import Observer
from index.rows import Filed, Rows

log = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """What became of an instance that is kept."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REPLACED = "replaced"
    CONFLICT = "conflict"


@dataclass(slots=True)
class Entry:
    """One instance that waits for its commit, and then what became of it: a failure until it is committed.

    An adopted one was filed by an earlier process: its object stays whatever happens, and replaces none.
    """

    filed: Filed
    adopted: bool = False
    done: bool = False
    outcome: Outcome = Outcome.STORED
    studies: frozenset[int] = frozenset()
    error: Exception | None = field(default_factory=lambda: NotKept("commit: not reached"))
    after: list[Callable[[], object]] = field(default_factory=list)


class GroupCommit:
    """Commits instances: durably named, indexed and counted, or not at all."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        *,
        replace: bool = False,
        conflicts_kept: int = 0,
        observer: Observer | None = None,
    ) -> None:
        self._database = database
        self._objects = objects
        self._rows = Rows(database)
        self._replace = replace
        self._conflicts_kept = conflicts_kept
        self._observer = observer or Observer()
        self._waiting: list[Entry] = []
        self._waiting_lock = threading.Lock()
        self._commit_lock = threading.Lock()

    def submit(self, filed: Filed, *, adopted: bool = False) -> Entry:
        """Return when the instance is committed. Raises NotKept or DatabaseFault; then its object is gone.

        After a DatabaseFault the object stays: whether the row is there only the next start can tell.
        """
        entry = Entry(filed, adopted)
        with self._waiting_lock:
            self._waiting.append(entry)
        with self._commit_lock:
            if not entry.done:
                with self._waiting_lock:
                    group, self._waiting = self._waiting, []
                try:
                    self._commit(group)
                finally:
                    for one in group:
                        one.done = True
        if entry.error is not None:
            raise entry.error
        return entry

    def known(self, uid: str) -> str | None:
        """Return the SHA-1 of the object that is kept under a SOP Instance UID, if one is."""
        with self._database.reading():
            known = self._rows.find(uid)
        return known.sha1 if known else None

    def conflicts(self) -> int:
        """Return how many data sets are kept aside."""
        return self._rows.conflicts()

    def waiting(self) -> int:
        """Return how many instances wait for their commit."""
        return len(self._waiting)

    def is_moving(self, seconds: float) -> bool:
        """Tell whether the commit lock can be had within that time."""
        if not self._commit_lock.acquire(timeout=seconds):
            return False
        self._commit_lock.release()
        return True

    def _commit(self, group: Sequence[Entry]) -> None:
        try:
            self._commit_all(group)
        except (NotKept, DatabaseFault) as error:
            self._fail(group, error)
        except Exception as error:  # whatever one instance brought up must not fail the others
            if len(group) == 1:
                log.exception("commit_failed", sop_instance_uid=group[0].filed.header.sop_instance_uid)
                self._fail(group, NotKept(f"commit: {error}"))
            else:
                for entry in group:
                    self._commit([entry])

    def _commit_all(self, group: Sequence[Entry]) -> None:
        began = time.perf_counter()
        try:
            self._objects.sync_folders(entry.filed.path for entry in group)
        except OSError as error:
            raise NotKept(f"objects: {error.strerror}") from error
        try:
            with self._database.writing():
                for entry in group:
                    entry.after.clear()
                    self._write(entry)
        except BaseException:
            self._rows.rolled_back()
            raise
        self._rows.committed()
        self._observer.committed(len(group), time.perf_counter() - began)
        for entry in group:
            entry.error = None
            for action in entry.after:
                _tidy(action)

    def _write(self, entry: Entry) -> None:
        filed = entry.filed
        known = self._rows.find(filed.header.sop_instance_uid)
        if known is None:
            entry.studies = frozenset((self._rows.add(filed),))
            entry.outcome = Outcome.STORED
        elif known.sha1 == filed.sha1:
            entry.outcome = Outcome.DUPLICATE
            if known.path != filed.path:
                entry.after.append(lambda: self._objects.remove(filed.path))
        elif self._replace and not entry.adopted:
            kept_aside = self._rows.set_aside(known.id) if self._has_room() else None
            self._rows.remove(known.id)
            entry.studies = frozenset((known.study_id, self._rows.add(filed)))
            entry.outcome = Outcome.REPLACED
            entry.after.append(lambda: self._objects.set_aside(known.path, kept_aside))
        else:
            entry.outcome = Outcome.CONFLICT
            kept_aside = self._rows.add_conflict(filed) if self._has_room() else None
            entry.after.append(lambda: self._objects.set_aside(filed.path, kept_aside))

    def _has_room(self) -> bool:
        return self._rows.conflicts() < self._conflicts_kept

    def _fail(self, group: Iterable[Entry], error: NotKept | DatabaseFault) -> None:
        for entry in group:
            entry.error = error
            if isinstance(error, NotKept) and not entry.adopted:
                _tidy(functools.partial(self._objects.remove, entry.filed.path))


def _tidy(action: Callable[[], object]) -> None:
    """Move or remove an object that has no row. What fails here fails no instance: `verify` finds it."""
    try:
        action()
    except OSError:
        log.exception("object_left_behind")
