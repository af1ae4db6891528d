"""Import: files and folders of any depth are copied into the index in batches, without a log.

A batch is copied into `incoming/` and synced, renamed into `objects/`, and then its rows are committed
durably. So an object in `objects/` is whole at every moment; one without a row is indexed at the next start.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from index.database.instance_rows import StoredObject
from index.dicom.file import read_object
from index.dicom.part10 import FileMeta, NotPart10, encode_meta
from index.dicom.uids import check_uid
from index.errors import DatabaseFault, IndexFault
from index.reception.arrival import Arrival, Outcome
from index.reception.direct import DirectIndexing
from index.reception.indexing import Indexing
from index.records import Header, Origin
from index.storage.object_file import LocalFile
from index.storage.object_store import ObjectStore
from index.storage.object_writer import ObjectWriter
from index.storage.walk import files_below

ORIGIN = Origin(association="import")
# What is synced and committed together: the syncs of a batch take as long as some hundred small files.
BATCH_FILES = 512
BATCH_BYTES = 64 * 1024 * 1024
# Files that have begun and not ended: a batch is copied while the one before it is synced.
AHEAD = 2 * BATCH_FILES
CHUNK = 1024 * 1024


@dataclass(slots=True)
class Report:
    """What an import came to: counts by outcome, and what was not taken, with its reason.

    `interrupted`: it was stopped before all files were looked at.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    bytes: int = 0
    passed_over: list[tuple[Path, str]] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    interrupted: bool = False


def files(paths: Iterable[Path], report: Report) -> Iterator[Path]:
    """Yield every file of these paths, folders walked in order of name; what cannot be read is reported."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue

        def failed(error: OSError) -> None:
            report.failed.append((Path(error.filename), str(error.strerror)))

        yield from files_below(path, failed)


@dataclass(slots=True)
class _File:
    """A file that is imported. Without an arrival, the index holds the same instance already."""

    path: Path
    size: int
    header: Header
    meta: FileMeta
    arrival: Arrival | None = None


class FileImport:
    """One import. `progress` is called after each file, `committed` after each batch, in the thread of `run`.

    Once it is `stopped`, no further file is begun; what has begun is ended and reported.
    """

    def __init__(
        self,
        objects: ObjectStore,
        indexing: Indexing,
        direct: DirectIndexing,
        progress: Callable[[], None],
        stopped: Callable[[], bool],
        committed: Callable[[], None],
    ) -> None:
        self._objects = objects
        self._indexing = indexing
        self._direct = direct
        self._progress = progress
        self._stopped = stopped
        self._committed = committed
        self._report = Report()
        self._running: Future[Sequence[_File]] | None = None

    def run(self, paths: Iterable[Path]) -> Report:
        """Import what these paths hold. Raises DatabaseFault only."""
        report = self._report
        with ThreadPoolExecutor(1, thread_name_prefix="import") as committing:
            for batch in self._batches(paths):
                copied = self._copy_all(batch)
                self._collect()
                self._running = committing.submit(self._commit, copied)
            self._collect()
        report.passed_over.sort()
        report.failed.sort()
        return report

    def _batches(self, paths: Iterable[Path]) -> Iterator[list[_File]]:
        """Yield the files whose headers can be read, in batches."""
        batch: list[_File] = []
        size = 0
        for path in files(paths, self._report):
            if self._stopped():
                self._report.interrupted = True
                break
            try:
                batch.append(_read(path))
            except (NotPart10, IndexFault, OSError) as error:
                self._not_taken(path, error)
                continue
            size += batch[-1].size
            if len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _not_taken(self, path: Path, error: Exception) -> None:
        kind = self._report.passed_over if isinstance(error, NotPart10) else self._report.failed
        kind.append((path, str(error)))
        self._progress()

    def _copy_all(self, batch: Sequence[_File]) -> list[_File]:
        """Copy a batch into `incoming/`; return the files of which that was possible.

        What the index holds already is only read: so an interrupted import is begun again.
        """
        known = self._indexing.known([file.header.sop_instance_uid for file in batch])
        copied = []
        for file in batch:
            existing = known.get(file.header.sop_instance_uid)
            try:
                with file.path.open("rb") as content:
                    if existing is None or existing.sha1 != _sha1(content, file.header, file.meta):
                        file.arrival = self._copy(content, file)
            except (IndexFault, OSError) as error:
                self._not_taken(file.path, error)
            else:
                copied.append(file)
        return copied

    def _copy(self, content: BinaryIO, file: _File) -> Arrival:
        """Copy one file into `incoming/`, unsynced. Raises NotKept, TooLarge, OSError."""
        header, syntax = file.header, file.meta.transfer_syntax
        objects = self._objects
        uids = header.sop_class_uid, header.sop_instance_uid
        writer = ObjectWriter(objects, *uids, syntax, objects.incoming_path)
        incoming = ""
        try:
            content.seek(file.meta.offset)
            while chunk := content.read(CHUNK):
                writer.write(chunk)
            writer.finish(sync=False)
            incoming = writer.path
            if writer.content is not None:
                incoming = objects.write_incoming(writer.content)
            path = objects.reserve(writer.size, incoming)
        except BaseException:
            writer.discard()
            if incoming:
                objects.discard(incoming)
            raise
        received = time.time_ns() // 1_000_000
        stored = StoredObject(header, ORIGIN, syntax, path, writer.size, writer.sha1.hex(), received)
        return Arrival(stored, incoming=incoming)

    def _commit(self, batch: Sequence[_File]) -> Sequence[_File]:
        """Make a batch durable and index it. Raises DatabaseFault."""
        arrivals = [file.arrival for file in batch if file.arrival]
        self._direct.index(arrivals)
        for arrival in arrivals:
            if isinstance(arrival.error, DatabaseFault):
                raise arrival.error
        return batch

    def _collect(self) -> None:
        """Wait for the batch that is being committed, and report it. Raises DatabaseFault."""
        if self._running is None:
            return
        batch, self._running = self._running.result(), None
        for file in batch:
            arrival = file.arrival
            if arrival and arrival.error:
                self._not_taken(file.path, arrival.error)
                continue
            self._report.outcomes[str(arrival.outcome if arrival else Outcome.DUPLICATE)] += 1
            self._report.bytes += arrival.stored.size if arrival else file.size
            self._progress()
        self._committed()


def _read(path: Path) -> _File:
    """Read a file's header. Raises NotPart10, Unreadable, InvalidUID, OSError."""
    if not path.is_file():
        raise NotPart10("no regular file" if path.exists() else "does not exist")
    with LocalFile(path) as content:
        header, meta = read_object(content)
        check_uid("SOP Class UID", header.sop_class_uid)
        return _File(path, content.size, header, meta)


def _sha1(file: BinaryIO, header: Header, meta: FileMeta) -> str:
    """Return the SHA-1 that a file's instance would be kept with."""
    start = encode_meta(header.sop_class_uid, header.sop_instance_uid, meta.transfer_syntax)
    digest = hashlib.sha1(start, usedforsecurity=False)
    file.seek(meta.offset)
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
