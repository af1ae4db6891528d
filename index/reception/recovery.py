"""Recovery: the journal of an earlier process is replayed, and objects without a row are indexed.

A replay can be begun again at any moment, any number of times: what is done with a record follows from what
index and files hold now.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import structlog
from peewee import chunked

from index.database.connection import Database
from index.database.instance_rows import ExistingInstance, StoredObject
from index.database.node import of_node
from index.database.tables import Conflict, Instance, UnindexedObject
from index.dicom.file import read_object
from index.dicom.part10 import NotPart10
from index.errors import IndexFault
from index.reception.arrival import Arrival, Outcome, origin_of
from index.reception.indexing import Indexing
from index.reception.position import Position
from index.records import Origin
from index.storage.journal import Journal, Record, is_left, read
from index.storage.object_file import sha1_of
from index.storage.object_keys import conflict_path
from index.storage.object_store import FOLDER_SIZE, ObjectStore

log = structlog.get_logger(__name__)

ORIGIN = Origin(association="recovery")
BATCH = 512


class Replay:
    """Makes whole what the journal in a folder tells of. Nobody may be writing it."""

    def __init__(self, database: Database, objects: ObjectStore, indexing: Indexing, folder: Path) -> None:
        self._database = database
        self._objects = objects
        self._indexing = indexing
        self._folder = folder
        self._position = Position(database, objects)

    def run(self) -> int:
        """Replay; return how many records that were. The journal counts no more then.

        Raises NotKept, DatabaseFault, OSError; then it is to be run again.
        """
        if not is_left(self._folder):
            return 0
        self._objects.watch()
        number, settled = self._position.read()
        records = [record for record in read(self._folder) if record.number > settled]
        for record in records:
            if record.number <= number:
                self._mend(record)
        for some in chunked((record for record in records if record.number > number), BATCH):
            self._index(some)
        if records:
            last = max(number, records[-1].number)
            self._objects.settle_placed()
            with self._database.writing():
                self._position.set(number=last, settled=last)
        # Also what was settled: after a `reindex` it would come back, though it may have been deleted since.
        journal = Journal(self._folder, sync=self._objects.sync)
        journal.open()
        journal.close()
        return len(records)

    def index_again(self, last: int) -> list[Arrival]:
        """Index the records up to number `last` that the database has lost; return them.

        A replica that was behind lacks also what was durable at the server before it, of which the journal
        may know no more. These objects are in their places. Raises NotKept, DatabaseFault, OSError.
        """
        number, _ = self._position.read()
        left = list(read(self._folder))
        records = [record for record in left if number < record.number <= last]
        arrivals = [arrival for some in chunked(records, BATCH) for arrival in self._index(some)]
        if last > number and not any(record.number == number + 1 for record in records):
            later = {str(record.facts["path"]) for record in left if record.number > last}
            found = index_orphans(self._database, self._objects, self._indexing, but=later)
            log.warning("indexed_from_objects", instances=found, why="the database has lost what was settled")
        with self._database.writing():
            self._position.set(number=max(last, number))
        return arrivals

    def write_again(self) -> None:
        """Write every small object of the journal anew, and sync the names of large ones.

        After a sync that failed, nothing tells what could not be written, and the kernel may show what the
        disk does not have. The content of large ones is durable. Raises OSError, NotKept, DatabaseFault.
        """
        large = []
        for record in read(self._folder):
            path = self._home(record)
            if path and record.content:
                self._objects.put(path, record.content)
            elif path:
                large.append(path)
        self._objects.sync_folders(large)

    def next_number(self) -> int:
        """Return the number of the next record: greater than any that was given before. Those are indexed.

        It follows the clock: an index that is restored from a backup, or made anew, knows of no number that
        is still to come.
        """
        number = max(self._position.read()[0] + 1, time.time_ns() // 1000)
        with self._database.writing():
            self._position.set(number=number - 1)
        return number

    def _index(self, records: Sequence[Record]) -> list[Arrival]:
        """Index what the index does not know yet; return that."""
        known = self._indexing.known([record.facts["uid"] for record in records])
        found = (self._arrival(record, known.get(record.facts["uid"])) for record in records)
        arrivals = [arrival for arrival in found if arrival]

        def note(committed: Sequence[Arrival]) -> None:
            self._position.set(number=committed[-1].number or 0)

        if arrivals:
            self._indexing.index(arrivals, durable=False, within=note)
        return arrivals

    def _arrival(self, record: Record, known: ExistingInstance | None) -> Arrival | None:
        """Return what is to be indexed of a record, its object in its place; None where that is lost.

        `known` is what the index holds under its UID. A replay that failed at first can come after it.
        """
        facts = record.facts
        source = self._source(record)
        if source is None:
            if known is None or known.sha1 != facts["sha1"]:
                log.error("object_lost", sop_instance_uid=facts["uid"], path=facts["path"])
            return None
        try:
            with self._objects.open(source) as file:
                header, _ = read_object(file)
        except (NotPart10, IndexFault):
            log.exception("object_not_recovered", path=source)
            self._objects.move(source, facts["path"])  # `incoming/` is swept
            return None
        stored = StoredObject(
            header,
            origin_of(facts),
            facts["syntax"],
            facts["path"],
            facts["size"],
            facts["sha1"],
            facts["received"],
        )
        incoming = "" if source == facts["path"] else source
        is_older = known is not None and known.received > stored.received
        return Arrival(stored, incoming=incoming, recovered=is_older, number=record.number)

    def _source(self, record: Record) -> str | None:
        """Return where the object of a record stands; a small one is put into its place."""
        path = record.facts["path"]
        if record.content:
            self._objects.write(path, record.content)
            return str(path)
        aside = conflict_path(record.facts["sha1"], self._objects.node)
        return self._objects.standing(record.facts["incoming"], path, aside)

    def _mend(self, record: Record) -> None:
        """Make whole what the index knows of already."""
        path = self._home(record)
        if path is None:  # a duplicate, or deleted, or not kept aside for want of room
            while left := self._objects.standing(record.facts["incoming"], record.facts["path"]):
                self._objects.remove(left)
        elif record.content:
            restore(self._objects, path, record.content)
        elif source := self._objects.standing(record.facts["incoming"]):
            self._objects.move(source, path)
            self._objects.settle_later([path])

    def _home(self, record: Record) -> str | None:
        """Return where the object of a record belongs; None: nowhere in this data directory."""
        facts = record.facts
        mine = (
            (Instance.uid == facts["uid"])
            & (Instance.sha1 == facts["sha1"])
            & (Instance.path == facts["path"])
        )
        for query in (
            Instance.select(Instance.path).where(mine),
            UnindexedObject.select(UnindexedObject.path).where(UnindexedObject.path == facts["path"]),
            Conflict.select(Conflict.path).where(Conflict.sha1 == facts["sha1"]),
        ):
            if found := self._database.rows(query):
                path = str(found[0][0])
                return path if self._objects.holds(path) else None
        return None


def restore(objects: ObjectStore, path: str, content: bytes) -> None:
    """Make a small object whole and durable in its place. Raises OSError."""
    try:
        with objects.open(path) as file:
            there = file.read_at(0, len(content) + 1)
    except OSError:
        there = b""
    if there == content:
        objects.sync_objects([path])
    else:
        objects.put(path, content)


def restore_all(objects: ObjectStore, folder: Path) -> None:
    """Make every object whole that the journal holds, where there is no index to ask. Raises OSError."""
    for record in read(folder):
        if record.content:
            restore(objects, record.facts["path"], record.content)
        elif source := objects.standing(record.facts["incoming"]):
            objects.move(source, record.facts["path"])


def index_orphans(
    database: Database, objects: ObjectStore, indexing: Indexing, but: Collection[str] = ()
) -> int:
    """Index the objects without a row of all folders that may have some; return how many that were.

    `but` are paths of objects that are about to be indexed.
    """
    query = Instance.select(Instance.path, Instance.received).where(of_node(Instance.path, objects.node))
    query = query.order_by(Instance.id.desc()).limit(1)
    last, received = next(iter(database.rows(query)), (None, 0))
    indexed = 0
    filed = [path for path in objects.filed_since(last, received) if path not in but]
    for path in _without_recent_row(database, objects.node, filed):
        try:
            indexed += index_object(objects, indexing, path) is not Outcome.DUPLICATE
        except (NotPart10, IndexFault, OSError):
            log.exception("object_not_recovered", path=path)
    return indexed


def _without_recent_row(database: Database, node: int, paths: Sequence[str]) -> Iterator[str]:
    """Yield those of `paths` that none of the latest rows holds.

    Rows are not looked up by path, for which there is no index: each instance would pay for it. A path that
    an older row holds comes along; to index it again changes nothing.
    """
    if not paths:
        return
    query = Instance.select(Instance.path).where(of_node(Instance.path, node)).order_by(Instance.id.desc())
    recent = {path for (path,) in database.rows(query.limit(2 * len(paths) + FOLDER_SIZE))}
    yield from (path for path in paths if path not in recent)


def index_object(objects: ObjectStore, indexing: Indexing, path: str) -> Outcome | None:
    """Index an object where it stands; one that has its row already, and is in its place, stays.

    One that stands outside `objects/` is filed first. It replaces no other instance, whatever
    `storage.duplicates` says, since it was never acknowledged after that one.
    Raises NotPart10, Unreadable, InvalidUID, NotKept, DatabaseFault or OSError; then the object stays.
    """
    with objects.open(path) as file:
        header, meta = read_object(file)
        sha1 = sha1_of(file)
        size, incoming = file.size, ""
    if not path.startswith("objects/"):
        incoming, path = path, objects.reserve(size)
    received = time.time_ns() // 1_000_000
    stored = StoredObject(header, ORIGIN, meta.transfer_syntax, path, size, sha1, received)
    arrival = Arrival(stored, incoming=incoming, recovered=True)
    objects.sync_objects([arrival.source])
    indexing.index([arrival], durable=True, within=indexing.forget_refusals)
    return arrival.outcome
