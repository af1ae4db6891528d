"""Group commit: objects made durable, then their rows made, for all who wait at that moment."""

import functools
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import structlog

from index.database.connection import Database
from index.database.instance_rows import ExistingInstance, Rows, StoredObject
from index.errors import DatabaseFault, NotKept
from index.hooks import Observer
from index.reception.batching import GroupLeader
from index.reception.indexer import Spool
from index.storage.object_store import ObjectStore
from index.storage.object_writer import JournaledObject

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
    An unsynced one is small: this commit makes it durable, and then it has its file. `named`: the name of one
    that is synced is durable.
    """

    filed: StoredObject
    adopted: bool = False
    unsynced: JournaledObject | None = None
    named: bool = False
    outcome: Outcome = Outcome.STORED
    studies: frozenset[int] = frozenset()
    error: Exception | None = field(default_factory=lambda: NotKept("commit: not reached"))
    after: list[Callable[[], object]] = field(default_factory=list)


class _MustBeDurable(Exception):
    """What the journal would not tell: that one data set was kept aside for another."""


class GroupCommit:
    """Commits instances: durably named, indexed and counted, or not at all."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        spool: Spool,
        *,
        replace: bool = False,
        conflicts_kept: int = 0,
        observer: Observer | None = None,
    ) -> None:
        self._database = database
        self._objects = objects
        self._spool = spool
        self._rows = Rows(database)
        self._replace = replace
        self._conflicts_kept = conflicts_kept
        self._observer = observer or Observer()
        # While one group is committed, names of the next are made durable.
        self._naming = GroupLeader(self._name)
        self._committing = GroupLeader(self._commit)

    def submit(
        self, filed: StoredObject, *, adopted: bool = False, unsynced: JournaledObject | None = None
    ) -> Entry:
        """Return when the instance is committed. Raises NotKept or DatabaseFault; then its object is gone.

        After a DatabaseFault the object stays: whether the row is there only the next start can tell.
        """
        entry = Entry(filed, adopted, unsynced)
        try:
            if unsynced is None:
                self._naming.submit(entry)
            if unsynced or entry.named:
                self._committing.submit(entry)
        finally:
            if entry.unsynced:
                self._spool.end(entry.unsynced, keep=entry.error is None and entry.outcome is Outcome.STORED)
        if entry.error is not None:
            raise entry.error
        return entry

    def takes_unsynced(self) -> bool:
        """Tell whether a small object may come without being synced."""
        return self._spool.has_room()

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
        return self._naming.waiting() + self._committing.waiting()

    def is_moving(self, seconds: float) -> bool:
        """Tell whether the commit that goes on ends within that time."""
        return self._committing.is_moving(seconds)

    def _name(self, group: Sequence[Entry]) -> None:
        """Make the names of synced objects durable."""
        try:
            self._objects.sync_folders(entry.filed.path for entry in group)
        except OSError as error:
            self._fail(group, NotKept(f"objects: {error.strerror}"))
        else:
            for entry in group:
                entry.named = True

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
        self._remember([entry for entry in group if entry.unsynced])
        began = time.perf_counter()
        # What is in the journal needs no durable row: it is made again.
        durable = not all(entry.unsynced for entry in group)
        try:
            if not self._commit_at_once(group, durable=durable):
                self._commit_rows(group, durable=durable)
        except _MustBeDurable:
            self._commit_rows(group, durable=True)
        self._observer.committed(len(group), time.perf_counter() - began)
        for entry in group:
            entry.error = None
            for action in entry.after:
                _tidy(action)

    def _commit_at_once(self, group: Sequence[Entry], *, durable: bool) -> bool:
        """Commit by one statement where none of the instances says anything new; return whether that was."""
        numbered = [(entry.filed, entry.unsynced.number if entry.unsynced else None) for entry in group]
        with self._database.writing(durable=durable, at_once=True):
            studies = self._rows.arrive(numbered)
        if studies is None:
            return False
        for entry, study in zip(group, studies, strict=True):
            entry.after.clear()
            entry.studies, entry.outcome = frozenset((study,)), Outcome.STORED
        return True

    def _remember(self, entries: Sequence[Entry]) -> None:
        """Put the unsynced into the journal; where it has no room, sync them."""
        unnumbered = [one for entry in entries if (one := entry.unsynced) and one.number is None]
        try:
            if not unnumbered or self._spool.remember(unnumbered):
                return
        except OSError as error:
            raise NotKept(f"journal: {error.strerror}") from error
        for entry in entries:
            if entry.unsynced and entry.unsynced.number is None:
                entry.unsynced.make_durable()
                entry.unsynced = None

    def _commit_rows(self, group: Sequence[Entry], *, durable: bool) -> None:
        try:
            with self._database.writing(durable=durable):
                for entry in group:
                    entry.after.clear()
                    self._write(entry, durable=durable)
        except BaseException:
            self._rows.rolled_back()
            raise
        self._rows.committed()

    def _write(self, entry: Entry, *, durable: bool) -> None:
        filed, unsynced = entry.filed, entry.unsynced
        if unsynced and unsynced.number is not None:
            self._spool.reached(unsynced.number)
        known = self._rows.find(filed.header.sop_instance_uid)
        if known is None:
            entry.studies, entry.outcome = frozenset((self._rows.add(filed),)), Outcome.STORED
        elif known.sha1 == filed.sha1:
            entry.outcome = Outcome.DUPLICATE
            if known.path != filed.path and not unsynced:
                entry.after.append(lambda: self._objects.remove(filed.path))
        else:
            if not durable:
                raise _MustBeDurable
            if unsynced:
                unsynced.make_durable()
            self._differ(entry, known)

    def _differ(self, entry: Entry, known: ExistingInstance) -> None:
        """Keep one of two data sets with the same UID in its place, and the other one aside."""
        filed = entry.filed
        if self._replace and not entry.adopted:
            self._spool.make_file_durable(known.path)
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
