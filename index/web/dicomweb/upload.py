"""The parts of one request to store, each received as a C-STORE is, as it comes."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import structlog

from index.dicom.header import HEAD_SIZE, detect_transfer_syntax, read_header
from index.dicom.part10 import NotPart10, read_meta
from index.dicom.scanning.byte_window import ByteWindow
from index.errors import Disagreement, IndexFault, Unreadable
from index.reception.instance import keep_all
from index.reception.received import Received
from index.records import Origin
from index.web.dicomweb.formats.media_types import DICOM, OCTETS
from index.web.dicomweb.formats.multipart import BadMultipart, Part

if TYPE_CHECKING:
    from index.reception.instance import InstanceReceiver, Kept

log = structlog.get_logger(__name__)

# Small instances that are made durable by one sync; each is in memory until then.
AT_ONCE = 16
# The Study Instance UID stands within so many bytes, or is not looked for.
HEAD_LIMIT = 8 * 1024 * 1024
# Parts of one body: the response has an item for each, and is made in memory.
PARTS_LIMIT = 50_000
_SUCCESS = 0
# Data Set does not match SOP Class (PS3.18 Table I.2-1), a warning: it is truncated, or in another encoding.
DOES_NOT_MATCH = 0xB007


class Reception(Protocol):
    """What storing needs of the index."""

    def receive(
        self,
        origin: Origin,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        *,
        limit: int | None = None,
    ) -> "InstanceReceiver":
        """Begin to receive an instance."""

    def association_ended(self, association: str) -> None:
        """Publish at once what came."""


@dataclass(slots=True)
class Stored:
    """What came of one part. Its UIDs are empty where they could not be read."""

    study: str = ""
    series: str = ""
    sop_class: str = ""
    instance: str = ""
    status: int = _SUCCESS
    warning: int = 0
    fault: Exception | None = None


@dataclass(slots=True)
class Upload:
    """The parts of one request. `study`: the study that all instances must be of, or nothing."""

    index: Reception
    origin: Origin
    study: str
    status_of: Callable[[Exception], int]
    results: list[Stored] = field(default_factory=list)
    # By study, for the audit trail.
    received: Received = field(default_factory=Received)
    _complete: "list[tuple[Stored, InstanceReceiver]]" = field(default_factory=list)
    _current: Stored | None = None
    _receiver: "InstanceReceiver | None" = None
    _head: bytearray = field(default_factory=bytearray)
    _enough: int = HEAD_SIZE

    def begin(self, part: Part) -> None:
        """Begin an instance."""
        if len(self.results) >= PARTS_LIMIT:
            raise BadMultipart(f"more than {PARTS_LIMIT} parts")
        self._current, self._receiver, self._head = Stored(), None, bytearray()
        self._enough = HEAD_SIZE
        self.results.append(self._current)
        given = part.headers.get("content-type", DICOM)
        if given.partition(";")[0].strip().lower() not in (DICOM, OCTETS):
            self._fail(Unreadable(f"a part is {given[:80]!a}, not {DICOM}"))

    def write(self, content: bytes) -> None:
        """Take the next bytes of an instance."""
        if self._current is None or self._current.fault:
            return
        try:
            if self._receiver is not None:
                self._receiver.write(content)
                return
            self._head += content
            if len(self._head) >= self._enough:
                self._receive()
        except Exception as error:  # noqa: BLE001  it is named in the response; others are stored
            self._fail(error)

    def end(self) -> None:
        """End an instance; it is made durable with its group."""
        current = self._current
        try:
            if self._receiver is None and current is not None and not current.fault:
                self._receive(is_complete=True)
        except Exception as error:  # noqa: BLE001  it is named in the response; others are stored
            self._fail(error)
        receiver, self._current, self._receiver = self._receiver, None, None
        if receiver is not None and current is not None:
            self._complete.append((current, receiver))
            if len(self._complete) >= AT_ONCE or not receiver.is_small:
                self.flush()

    def _receive(self, *, is_complete: bool = False) -> None:
        """Read the head of an instance, and receive it by the UIDs of its data set."""
        head, current = bytes(self._head), self._current
        assert current is not None  # noqa: S101  a part has begun
        try:
            meta = read_meta(ByteWindow(head))
        except NotPart10 as error:
            raise Unreadable(f"no DICOM file: {error}") from error
        data = head[meta.offset :]
        syntax = meta.transfer_syntax or detect_transfer_syntax(data, lambda _, __: b"", len(data))
        current.sop_class, current.instance = meta.sop_class_uid, meta.sop_instance_uid
        try:
            header = read_header(data, syntax)
            is_enough = bool(header.study_uid and header.series_uid)
        except IndexFault:
            is_enough = False
            if is_complete or len(head) >= HEAD_LIMIT:
                raise
        if not (is_enough or is_complete or len(head) >= HEAD_LIMIT):
            # Long values stand before it. What has come is read again when there is twice as much.
            self._enough = 2 * len(head)
            return
        self._head.clear()
        # The data set counts, not the meta information of the file.
        current.sop_class = header.sop_class_uid or meta.sop_class_uid
        current.instance, current.study = header.sop_instance_uid, header.study_uid
        current.series = header.series_uid
        if self.study and header.study_uid != self.study:
            raise Disagreement(f"Study Instance UID: the URL says {self.study}, the data set another")
        self._receiver = self.index.receive(self.origin, current.sop_class, current.instance, syntax)
        self._receiver.write(data)

    def flush(self) -> None:
        """Make durable what is complete."""
        complete, self._complete = self._complete, []
        receivers = [one for _, one in complete]
        results: Iterable[Kept | Exception]
        try:
            results = keep_all(receivers)
        except Exception as error:  # noqa: BLE001  a fault of our own is named in the response too
            for receiver in receivers:
                receiver.discard()
            results = [error] * len(receivers)
        for (stored, _), kept in zip(complete, results, strict=True):
            if isinstance(kept, Exception):
                self._set_fault(stored, kept)
            else:
                stored.study, stored.series = kept.header.study_uid, kept.header.series_uid
                stored.warning = DOES_NOT_MATCH if any(map(_is_of_all, kept.header.doubts)) else 0
                self.received.add(kept)
                self._log_kept(kept)

    def _log_kept(self, kept: "Kept") -> None:
        header = kept.header
        log.info(
            "store",
            status="0000",
            study_uid=header.study_uid,
            sop_instance_uid=header.sop_instance_uid,
            bytes=kept.size,
            address=self.origin.address,
        )

    def _fail(self, error: Exception) -> None:
        if self._receiver is not None:
            self._receiver.discard()
            self._receiver = None
        if self._current is not None:
            self._set_fault(self._current, error)

    def _set_fault(self, stored: Stored, error: Exception) -> None:
        stored.status, stored.fault = self.status_of(error), error
        log.error(
            "store",
            status=f"{stored.status:04X}",
            reason=str(error),
            sop_instance_uid=stored.instance,
            address=self.origin.address,
            exc_info=None if isinstance(error, IndexFault | OSError) else error,
        )

    def abandon(self) -> None:
        """Leave nothing behind of an instance that has begun; keep those that are complete."""
        if self._current is not None and not self._current.fault:
            self._fail(Unreadable("the body ends within it"))
        self.flush()


def _is_of_all(doubt: str) -> bool:
    """Whether a doubt is of the data set, not of one attribute."""
    return doubt.startswith("The data set ")
