"""Orders from files and folders: DICOM worklist files, HL7 messages, FHIR resources."""

import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import orjson
import structlog

from index.errors import DatabaseFault, IndexFault, NotKept
from index.orders import fhir
from index.orders.dicom import BadItem, order_of, parse, printable
from index.orders.hl7.handler import Handler
from index.orders.hl7.message import ENVELOPE, messages
from index.orders.records import NewOrder, Source
from index.orders.store import AT_ONCE, OrderStore
from index.storage.walk import files_below

log = structlog.get_logger(__name__)

# Bytes of one file: an export of a day's messages.
MAX_FILE = 64 * 1024 * 1024
_BOM = b"\xef\xbb\xbf"
_FRAMING = b"\x0b\x1c"


@dataclass(slots=True)
class Imported:
    """The result of an import: how many orders and messages were taken, and the failed files with reasons."""

    taken: int = 0
    failed: list[tuple[Path, str]] = field(default_factory=list)


class OrderImport:
    """Imports orders from files; their content tells their kind."""

    def __init__(self, store: OrderStore, handler: Handler) -> None:
        self._store = store
        self._handler = handler
        # Worklist files that are read and not yet in the index.
        self._read: list[tuple[Path, NewOrder]] = []

    def run(self, paths: Iterable[Path]) -> Imported:
        """Import files and folders; a bad file stops no other. Raises DatabaseFault."""
        report = Imported()
        for path in paths:
            for file in files_below(path) if path.is_dir() else (path,):
                try:
                    self._import(file, report, is_named=file == path)
                except DatabaseFault:
                    raise
                except Exception as error:  # noqa: BLE001  a fault of one file stops no other
                    _failed(report, file, error)
        self._put_read(report)
        return report

    def _put_read(self, report: Imported) -> None:
        """Put the worklist files into the index that have been read."""
        read, self._read = self._read, []
        errors: Sequence[Exception | None]
        try:
            errors = self._store.put_each([order for _, order in read])
        except NotKept as fault:
            errors = [fault] * len(read)
        for (path, _), error in zip(read, errors, strict=True):
            if error:
                _failed(report, path, error)
            else:
                report.taken += 1

    def _import(self, path: Path, report: Imported, *, is_named: bool) -> None:
        # A pipe is read only if it is named: one in a folder may have no writer.
        if not (is_named or stat.S_ISREG(path.stat().st_mode)):
            raise BadItem("is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            raise BadItem(f"its bytes are more than the {MAX_FILE} that are read")
        text = content.removeprefix(_BOM)
        start = text.lstrip(b" \t\r\n" + _FRAMING)
        if start.startswith((b"{", b"MSH", *ENVELOPE)):
            self._put_read(report)  # what a message changes depends on what came before it
        if start.startswith(b"{"):
            report.taken += len(self._store.put_all(fhir.orders_of(orjson.loads(text))))
        elif start.startswith((b"MSH", *ENVELOPE)):
            for number, message in enumerate(messages(text), start=1):
                answer, acknowledgement = self._handler.handle(message)
                if answer == "AA":
                    report.taken += 1
                else:
                    reason = f"message {number}: {_reason(acknowledgement)}"
                    report.failed.append((Path(printable(path)), reason))
        else:
            order = order_of(parse(content), Source.FILE, "import", printable(path.absolute()))
            self._read.append((path, order))
            if len(self._read) >= AT_ONCE:
                self._put_read(report)


def _failed(report: Imported, path: Path, error: Exception) -> None:
    reason = str(error)
    if not isinstance(error, OSError | ValueError | IndexFault):
        log.error("order_file_failed", file=printable(path), exc_info=error)
        reason = f"{type(error).__name__}: {error}"
    report.failed.append((Path(printable(path)), reason))


def _reason(acknowledgement: bytes) -> str:
    """Return the text of MSA-3."""
    msa = next((line for line in acknowledgement.split(b"\r") if line.startswith(b"MSA")), b"")
    fields = msa.split(b"|")
    return f"{fields[1].decode()} {fields[3].decode()}" if len(fields) > 3 else msa.decode()  # noqa: PLR2004
