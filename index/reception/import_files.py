"""Import: files and folders of any depth take the way that received instances take."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from index.dicom.file import read_object
from index.dicom.part10 import FileMeta, NotPart10, encode_meta
from index.errors import DatabaseFault, IndexFault
from index.reception.arrival import Outcome
from index.reception.instance import InstanceReceiver
from index.records import Header, Origin
from index.storage.walk import files_below

# Enough to keep a disk's sync busy while others read; more only waits for the commit.
WORKERS = 4
# Files handed to the workers ahead of need: a million of them must not become a million futures.
AHEAD = 4 * WORKERS
CHUNK = 1024 * 1024

Receive = Callable[[Origin, str, str, str], InstanceReceiver]
ExistingInstance = Callable[[str], str | None]


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


def import_files(
    receive: Receive,
    known: ExistingInstance,
    paths: Iterable[Path],
    origin: Origin,
    progress: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Report:
    """Import what `paths` hold; call `progress` after each file. Raises DatabaseFault only.

    Once it is `stopped`, no further file is begun; what has begun is ended and reported.

    `known` gives the SHA-1 that a SOP Instance UID is kept with: an interrupted import, begun again, reads
    what it has done and writes nothing.
    """
    report = Report()
    with ThreadPoolExecutor(WORKERS, thread_name_prefix="import") as workers:
        running: dict[Future[tuple[Outcome | None, int]], Path] = {}
        for path in files(paths, report):
            if len(running) >= AHEAD:
                _collect(running, report, progress)
            if stopped():
                report.interrupted = True
                break
            running[workers.submit(_import_file, receive, known, path, origin)] = path
        while running:
            if stopped():
                cancelled = [future for future in running if future.cancel()]
                report.interrupted |= bool(cancelled)
            _collect(running, report, progress)
    report.passed_over.sort()
    report.failed.sort()
    return report


def _collect(
    running: dict[Future[tuple[Outcome | None, int]], Path], report: Report, progress: Callable[[], None]
) -> None:
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for future in done:
        path = running.pop(future)
        if future.cancelled():
            continue
        try:
            outcome, size = future.result()
        except NotPart10 as error:
            report.passed_over.append((path, str(error)))
        except DatabaseFault:
            raise
        except (IndexFault, OSError) as error:
            report.failed.append((path, str(error)))
        else:
            report.outcomes[str(outcome)] += 1
            report.bytes += size
        progress()


def _import_file(
    receive: Receive, known: ExistingInstance, path: Path, origin: Origin
) -> tuple[Outcome | None, int]:
    if not path.is_file():
        raise NotPart10("no regular file" if path.exists() else "does not exist")
    with path.open("rb") as file:
        header, meta = read_object(file)
        if (kept := known(header.sop_instance_uid)) and kept == _sha1(file, header, meta):
            return Outcome.DUPLICATE, os.fstat(file.fileno()).st_size
        incoming = receive(origin, header.sop_class_uid, header.sop_instance_uid, meta.transfer_syntax)
        try:
            file.seek(meta.offset)
            while chunk := file.read(CHUNK):
                incoming.write(chunk)
        except BaseException:
            incoming.discard()
            raise
        done = incoming.keep()
        return done.outcome, done.size


def _sha1(file: BinaryIO, header: Header, meta: FileMeta) -> str:
    """Return the SHA-1 that a file's instance would be kept with."""
    start = encode_meta(header.sop_class_uid, header.sop_instance_uid, meta.transfer_syntax)
    digest = hashlib.sha1(start, usedforsecurity=False)
    file.seek(meta.offset)
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
