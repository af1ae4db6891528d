"""A batch of arrivals made part of the index: what each of them is, its file in its place, its row.

The order is: look, place the files, then one transaction. Whatever ends it in between, the journal or the
sender has the instances still, and the same batch can be begun anew.
"""

import contextlib
import threading
from collections.abc import Callable, Mapping, Sequence

import structlog
from peewee import IntegrityError

from index.database.connection import Database
from index.database.instance_rows import ExistingInstance, InstanceRows, RowGone
from index.database.tables import RemovedObject, UnindexedObject
from index.errors import Contention, DatabaseFault, NotKept
from index.forwarding.outbox import Outbox
from index.reception.arrival import NEW, Arrival, Outcome
from index.storage.object_keys import conflict_path, node_of
from index.storage.object_store import ObjectStore

log = structlog.get_logger(__name__)

# Another process may delete, or import the same instances, between the look and the transaction.
TRIES = 3

Within = Callable[[Sequence[Arrival]], object]


class Indexing:
    """Indexes batches of arrivals. Safe to use from many threads; one batch goes after the other."""

    def __init__(
        self,
        database: Database,
        objects: ObjectStore,
        outbox: Outbox,
        *,
        replace: bool,
        conflicts_kept: int,
    ) -> None:
        self._database = database
        self._objects = objects
        self._outbox = outbox
        self._replace = replace
        self._conflicts_kept = conflicts_kept
        self._rows = InstanceRows(database)
        self._lock = threading.Lock()

    def index(self, batch: Sequence[Arrival], *, durable: bool, within: Within = lambda _: None) -> None:
        """Index a batch; each arrival has its outcome and its studies then.

        `within` is called with what a transaction commits, in that transaction. What is `durable` survives a
        power cut when this returns. An instance whose row the database refuses is kept and listed.
        Raises NotKept, DatabaseFault: what is not committed then can be indexed anew.
        """
        with self._lock:
            for some in self._parts(batch):
                self._index_or_set_apart(some, durable=durable, within=within)

    def forget_refusals(self, arrivals: Sequence[Arrival]) -> None:
        """Take off the list what the database refused before and takes now. Called in the transaction."""
        for arrival in arrivals:
            if arrival.outcome is not Outcome.NOT_INDEXED:
                path = arrival.stored.path
                self._database.execute(UnindexedObject.delete().where(UnindexedObject.path == path))

    def known(self, uids: Sequence[str]) -> dict[str, ExistingInstance]:
        """Return what the index holds under these SOP Instance UIDs."""
        return self._rows.find(uids)

    def conflicts(self) -> int:
        """Return how many data sets are kept aside."""
        return self._rows.conflicts()

    def _parts(self, batch: Sequence[Arrival]) -> Sequence[Sequence[Arrival]]:
        """One that may replace another of the same batch finds that one indexed."""
        if not self._replace or len({arrival.uid for arrival in batch}) == len(batch):
            return [batch]
        return [[arrival] for arrival in batch]

    def _index_or_set_apart(self, batch: Sequence[Arrival], *, durable: bool, within: Within) -> None:
        try:
            self._index(batch, durable=durable, within=within)
        except (NotKept, DatabaseFault, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  whatever one instance brings up must not stop the others
            if len(batch) == 1:
                self._set_apart(batch[0], error, durable=durable, within=within)
                return
            for arrival in batch:
                self._index_or_set_apart([arrival], durable=durable, within=within)

    def _set_apart(self, arrival: Arrival, error: Exception, *, durable: bool, within: Within) -> None:
        """Keep and list an instance whose row the database refuses."""
        log.error("not_indexed", sop_instance_uid=arrival.uid, path=arrival.stored.path, exc_info=error)
        arrival.outcome = Outcome.NOT_INDEXED
        row = {"uid": arrival.uid, "path": arrival.stored.path, "received": arrival.stored.received}
        try:
            with contextlib.suppress(FileNotFoundError):  # it is what is logged and listed
                self._put(arrival, arrival.stored.path)
                self._settle([arrival.stored.path], durable=durable)
            with self._database.writing(durable=durable):
                reason = f"{type(error).__name__}: {error}".replace("\0", "")
                self._database.execute(UnindexedObject.insert(**row, reason=reason).on_conflict_ignore())
                within([arrival])
            arrival.is_indexed = True
        except OSError as fault:
            raise NotKept(f"objects: {fault.strerror}") from fault

    def _index(self, batch: Sequence[Arrival], *, durable: bool, within: Within) -> None:
        for left in range(TRIES - 1, -1, -1):
            existing = self._look(batch)
            try:
                self._settle(self._place(batch, existing), durable=durable)
                with self._database.writing(durable=durable):
                    receivers = self._write_rows(batch, existing)
                    within(batch)
            except FileNotFoundError:
                raise  # no second try brings it back: it is set apart
            except OSError as error:
                raise NotKept(f"objects: {error.strerror}") from error
            except (RowGone, Contention, IntegrityError) as error:
                self._rows.rolled_back()
                if not left:
                    raise _last(error) from error
            except BaseException:
                self._rows.rolled_back()
                raise
            else:
                self._rows.committed()
                if receivers:
                    self._outbox.on_added(receivers)
                for arrival in batch:
                    arrival.is_indexed = True
                self._tidy(batch, existing)
                return

    def _settle(self, placed: Sequence[str], *, durable: bool) -> None:
        """Make names durable now, where content is already; or leave both to the next settling."""
        if durable:
            self._objects.sync_folders(placed)
        else:
            self._objects.settle_later(placed)

    def _look(self, batch: Sequence[Arrival]) -> dict[str, ExistingInstance]:
        """Tell what each arrival is; return what the index holds of their UIDs."""
        existing = self._rows.find([arrival.uid for arrival in batch])
        first = {uid: (one.sha1, one.path) for uid, one in existing.items()}
        for arrival in batch:
            mine = arrival.stored.sha1, arrival.stored.path
            sha1, path = first.setdefault(arrival.uid, ("", ""))
            if not sha1:
                first[arrival.uid] = mine
                arrival.outcome = Outcome.STORED
            elif sha1 == arrival.stored.sha1 or path == arrival.stored.path:
                arrival.outcome = Outcome.DUPLICATE
            elif self._replace and not arrival.recovered:
                arrival.outcome = Outcome.REPLACED
            else:
                arrival.outcome = Outcome.CONFLICT
        return existing

    def _place(self, batch: Sequence[Arrival], existing: Mapping[str, ExistingInstance]) -> list[str]:
        """Put the files where their rows will say that they are; return these paths. Can be done again.

        Raises OSError.
        """
        room, placed = self._room(batch), []
        for arrival in batch:
            target = arrival.stored.path
            if arrival.outcome is Outcome.CONFLICT:
                target = conflict_path(arrival.stored.sha1, self._objects.node)
                room -= self._keep_aside(arrival, target, room)
            elif arrival.outcome is Outcome.REPLACED:
                old = existing[arrival.uid]
                arrival.aside = conflict_path(old.sha1, node_of(old.path))
                room -= self._keep_aside(arrival, arrival.aside, room)
                # Another node keeps its own aside, before it unlinks it.
                if self._objects.holds(old.path) and arrival.kept_aside:
                    arrival.kept_aside = self._objects.link_aside(old.path, arrival.aside)
            if arrival.outcome in NEW or arrival.kept_aside:
                self._put(arrival, target)
                placed.append(target)
        return placed

    def _keep_aside(self, arrival: Arrival, path: str, room: int) -> bool:
        """Decide whether a data set is kept aside at this path; return whether that takes room."""
        is_there = self._objects.is_there(path)
        arrival.kept_aside = room > 0 or is_there
        return arrival.kept_aside and not is_there

    def _put(self, arrival: Arrival, target: str) -> None:
        if arrival.content is None:
            if target != arrival.source:
                self._objects.move(arrival.source, target)
                arrival.incoming = target
        # A data set that is kept aside already is not written over: the disk may be full.
        elif target == arrival.stored.path or self._objects.size(target) != len(arrival.content):
            self._objects.write(target, arrival.content)

    def _room(self, batch: Sequence[Arrival]) -> int:
        """Return how many more data sets may be kept aside."""
        if all(arrival.outcome in (Outcome.STORED, Outcome.DUPLICATE) for arrival in batch):
            return 0
        return self._conflicts_kept - self.conflicts()

    def _write_rows(
        self, batch: Sequence[Arrival], existing: Mapping[str, ExistingInstance]
    ) -> Sequence[str]:
        """Add the rows of a batch; return the peers to whom something of it is to be sent."""
        for arrival in batch:
            if arrival.outcome is Outcome.REPLACED:
                self._replace_row(arrival, existing[arrival.uid])
            elif arrival.kept_aside:
                path = conflict_path(arrival.stored.sha1, self._objects.node)
                arrival.aside = self._rows.add_conflict(arrival.stored, path)
        new = [arrival for arrival in batch if arrival.outcome in NEW]
        for arrival, study in zip(new, self._rows.add([one.stored for one in new]), strict=True):
            arrival.studies |= {study}
        return self._outbox.add([one.stored for one in new])

    def _replace_row(self, arrival: Arrival, old: ExistingInstance) -> None:
        aside = arrival.aside if arrival.kept_aside else ""
        if aside:
            self._rows.set_aside(old.id, aside)
        self._rows.remove(old.id)
        self._database.execute(RemovedObject.insert(path=old.path, aside=aside))
        arrival.studies = frozenset((old.study_id,))

    def _tidy(self, batch: Sequence[Arrival], existing: Mapping[str, ExistingInstance]) -> None:
        """Remove the files that no row tells of. `verify` finds what fails here."""
        for arrival in batch:
            needed = {existing[arrival.uid].path} if arrival.uid in existing else set()
            unneeded = {arrival.source, arrival.stored.path}
            if arrival.outcome in NEW:
                needed.add(arrival.stored.path)
            elif arrival.kept_aside:
                needed.add(arrival.aside)
                unneeded.add(conflict_path(arrival.stored.sha1, self._objects.node))
            for path in unneeded - needed:
                try:
                    self._objects.discard(path)
                except OSError:
                    log.exception("object_left_behind", path=path)


def _last(error: Exception) -> Exception:
    """Return what the last try ends with: a constraint refuses the batch for good, other processes do not."""
    return (
        Contention("database: other processes change the same rows") if isinstance(error, RowGone) else error
    )
