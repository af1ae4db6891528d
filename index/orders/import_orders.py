"""Orders from files: DICOM worklist files, HL7 messages, FHIR resources, folders of them."""

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import structlog

from index.errors import DatabaseFault, IndexFault
from index.orders import fhir
from index.orders.dicom import BadItem, order_of, printable, read_file
from index.orders.hl7.batch import messages
from index.orders.hl7.handler import Handler
from index.orders.records import Source
from index.orders.store import OrderStore

log = structlog.get_logger(__name__)

# What one file may hold: an export of a day's messages.
MAX_FILE = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_FRAMING = b"\x0b\x1c"
# Batch and file headers and trailers (HL7 v2.5.1 Section 2.10.3).
_ENVELOPE = (b"FHS", b"BHS", b"BTS", b"FTS")


@dataclass(slots=True)
class Imported:
    """What an import of orders came to: how many were taken, and what was not, with its reason."""

    taken: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)


class OrderImport:
    """Imports orders from files of any kind, told by their content."""

    def __init__(self, store: OrderStore, handler: Handler) -> None:
        self._store = store
        self._handler = handler

    def run(self, paths: Iterable[Path]) -> Imported:
        """Import files and folders of any depth; a bad file stops no other. Raises DatabaseFault."""
        report = Imported()
        for path in paths:
            for file in _files(path):
                try:
                    self._import(file, report, is_named=file == path)
                except DatabaseFault:
                    raise
                except (OSError, ValueError, IndexFault) as error:
                    report.failed.append((Path(printable(file)), str(error)))
                except Exception as error:  # whatever one file brings up, the others are taken
                    log.exception("order_file_failed", file=printable(file))
                    report.failed.append((Path(printable(file)), f"{type(error).__name__}: {error}"))
        return report

    def _import(self, path: Path, report: Imported, *, is_named: bool) -> None:
        status = path.stat()
        # A pipe is read where it is meant: one that lies about has perhaps no writer.
        if not (is_named or stat.S_ISREG(status.st_mode)):
            raise BadItem("is no regular file")
        if status.st_size > MAX_FILE:
            raise BadItem(f"{status.st_size} bytes are more than the {MAX_FILE} that are read")
        content = path.read_bytes().removeprefix(_BOM)
        start = content.lstrip(b" \t\r\n" + _FRAMING)
        if start.startswith(b"{"):
            report.taken += len(self._store.put_all(fhir.orders_of(orjson.loads(content))))
        elif start.startswith((b"MSH", *_ENVELOPE)):
            for number, message in enumerate(messages(content), start=1):
                answer, acknowledgement = self._handler.handle(message)
                if answer == "AA":
                    report.taken += 1
                else:
                    reason = f"message {number}: {_reason(acknowledgement)}"
                    report.failed.append((Path(printable(path)), reason))
        else:
            item = order_of(read_file(path), Source.FILE, "import", printable(path.absolute()))
            self._store.put(item)
            report.taken += 1


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        yield from (Path(folder) / name for name in sorted(names))


def _reason(acknowledgement: bytes) -> str:
    """Return the text of MSA-3."""
    msa = next((line for line in acknowledgement.split(b"\r") if line.startswith(b"MSA")), b"")
    fields = msa.split(b"|")
    return f"{fields[1].decode()} {fields[3].decode()}" if len(fields) > 3 else msa.decode()  # noqa: PLR2004
