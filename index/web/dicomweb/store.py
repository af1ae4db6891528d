"""Store (STOW-RS, PS3.18 Section 10.5): each part of the body is received as a C-STORE is, as it comes."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from index.dicom.header import HEAD_SIZE, detect_transfer_syntax, read_header
from index.dicom.part10 import NotPart10, read_meta
from index.dicom.scanning.byte_window import ByteWindow
from index.errors import Disagreement, IndexFault, NotKept, Unreadable
from index.reception.instance import keep_all
from index.records import Origin
from index.web.dicomweb.formats.dicom_json import Model
from index.web.dicomweb.formats.media_types import (
    DICOM,
    JSON,
    MULTIPART,
    OCTETS,
    XML,
    BadMediaType,
    choose,
    parse_media_type,
)
from index.web.dicomweb.formats.multipart import BadMultipart, MultipartReader, Part, PartEnd
from index.web.dicomweb.formats.native_xml import native_model
from index.web.dicomweb.responses import BAD_REQUEST, SERVICE_UNAVAILABLE, Refused, Threads, accepted_by
from index.web.dicomweb.selecting import uids_of

if TYPE_CHECKING:
    from index.reception.instance import InstanceReceiver, Kept

log = structlog.get_logger(__name__)

ACCEPTED, CONFLICT, TIMEOUT, UNSUPPORTED_MEDIA_TYPE = 202, 409, 408, 415
# Bytes of the body that are taken at one time by a thread.
BLOCK = 256 * 1024
# Small instances that are made durable by one sync; each is in memory until then.
AT_ONCE = 16
# For the next bytes of the body, in seconds: as of a PDU once begun.
BODY_SECONDS = 30.0
_PLAIN_JSON = "application/json"
_SUCCESS = 0


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
class _Stored:
    """What came of one part. Its UIDs are empty where they could not be read."""

    study: str = ""
    series: str = ""
    sop_class: str = ""
    instance: str = ""
    status: int = _SUCCESS
    fault: Exception | None = None


@dataclass(slots=True)
class _Upload:
    """The parts of one request. `study`: the study that all instances must be of, or nothing."""

    index: Reception
    origin: Origin
    study: str
    status_of: Callable[[Exception], int]
    results: list[_Stored] = field(default_factory=list)
    _complete: "list[tuple[_Stored, InstanceReceiver]]" = field(default_factory=list)
    _current: _Stored | None = None
    _receiver: "InstanceReceiver | None" = None
    _head: bytearray = field(default_factory=bytearray)

    def begin(self, part: Part) -> None:
        """Begin an instance."""
        self._current, self._receiver, self._head = _Stored(), None, bytearray()
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
            if len(self._head) >= HEAD_SIZE:
                self._receive()
        except (IndexFault, OSError) as error:
            self._fail(error)

    def end(self) -> None:
        """End an instance; it is made durable with its group."""
        current = self._current
        try:
            if self._receiver is None and current is not None and not current.fault:
                self._receive()
        except (IndexFault, OSError) as error:
            self._fail(error)
        receiver, self._current, self._receiver = self._receiver, None, None
        if receiver is not None and current is not None:
            self._complete.append((current, receiver))
            if len(self._complete) >= AT_ONCE or not receiver.is_small:
                self.flush()

    def _receive(self) -> None:
        """Read the head of an instance, and receive it by the UIDs of its data set."""
        head, current = bytes(self._head), self._current
        self._head.clear()
        assert current is not None  # noqa: S101  a part has begun
        try:
            meta = read_meta(ByteWindow(head))
        except NotPart10 as error:
            raise Unreadable(f"no DICOM file: {error}") from error
        data = head[meta.offset :]
        syntax = meta.transfer_syntax or detect_transfer_syntax(data, lambda _, __: b"", len(data))
        current.sop_class, current.instance = meta.sop_class_uid, meta.sop_instance_uid
        header = read_header(data, syntax)
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
        for (stored, _), kept in zip(complete, keep_all([one for _, one in complete]), strict=True):
            if isinstance(kept, Exception):
                self._set_fault(stored, kept)
            else:
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

    def _set_fault(self, stored: _Stored, error: Exception) -> None:
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


class StoreService:
    """Answers requests to store. `status_of` gives the status of a failure (PS3.4 Table B.2-1)."""

    def __init__(
        self,
        index: Reception,
        threads: Threads,
        base_url: Callable[[Request], str],
        status_of: Callable[[Exception], int],
    ) -> None:
        self._index = index
        self._threads = threads
        self._base_url = base_url
        self._status_of = status_of

    async def store(self, request: Request) -> Response:
        """Store the instances of a body, one by one."""
        answer_type = choose(accepted_by(request), (JSON, _PLAIN_JSON, XML)) or JSON
        reader = _reader(request)
        association = f"stow-{secrets.token_hex(8)}"
        address = request.client.host if request.client else ""
        uids = uids_of(request.path_params)
        origin = Origin(address=address, association=association)
        upload = _Upload(self._index, origin, uids[0] if uids else "", self._status_of)
        try:
            why = await self._take(request, upload, reader)
        finally:
            with anyio.CancelScope(shield=True):
                await self._threads.run(upload.abandon)
                await self._threads.run(self._index.association_ended, association)
        if not upload.results:
            raise Refused(BAD_REQUEST, why or "the body has no part")
        model = _response_model(upload.results, self._base_url(request))
        body = native_model(model) if answer_type == XML else orjson.dumps(model)
        return Response(body, _status(upload.results, why), media_type=answer_type)

    async def _take(self, request: Request, upload: _Upload, reader: MultipartReader | None) -> str:
        """Receive the body; return why it ends early, or nothing."""
        if reader is None:
            upload.begin(Part({}))
        buffer = bytearray()
        stream = request.stream().__aiter__()
        try:
            while True:
                with anyio.fail_after(BODY_SECONDS):
                    chunk = await anext(stream, None)
                if chunk is not None:
                    buffer += chunk
                if chunk is None or len(buffer) >= BLOCK:
                    await self._threads.run(_feed, upload, reader, bytes(buffer))
                    buffer.clear()
                if chunk is None:
                    break
            if reader is None:
                await self._threads.run(upload.end)
            else:
                reader.end()
        except (BadMultipart, ClientDisconnect) as error:
            return str(error) or "the connection was lost"
        except TimeoutError as error:
            raise Refused(TIMEOUT, f"no more of the body came within {BODY_SECONDS:.0f} seconds") from error
        return ""


def _reader(request: Request) -> MultipartReader | None:
    """Return the reader of a body; None: it is one instance alone. Raises Refused."""
    try:
        given = parse_media_type(request.headers.get("content-type", ""))
        if given.name == DICOM:
            return None
        if given.name == MULTIPART and given.content in (DICOM, "*/*"):
            return MultipartReader(given.parameters.get("boundary", ""))
    except BadMultipart as error:
        raise Refused(BAD_REQUEST, f"Content-Type: {error}") from error
    except BadMediaType as error:
        raise Refused(UNSUPPORTED_MEDIA_TYPE, f"Content-Type: {error}") from error
    raise Refused(UNSUPPORTED_MEDIA_TYPE, f'instances are stored as {MULTIPART}; type="{DICOM}", or {DICOM}')


def _feed(upload: _Upload, reader: MultipartReader | None, data: bytes) -> None:
    if reader is None:
        upload.write(data)
        return
    for event in reader.feed(data):
        if isinstance(event, Part):
            upload.begin(event)
        elif isinstance(event, PartEnd):
            upload.end()
        else:
            upload.write(event)


def _status(results: list[_Stored], why: str) -> int:
    """Return the status of the response (PS3.18 Table 10.5.3-1)."""
    failed = [one.fault for one in results if one.fault]
    if len(failed) < len(results):
        return ACCEPTED if failed or why else 200
    is_ours = any(isinstance(fault, NotKept | OSError) for fault in failed)
    return SERVICE_UNAVAILABLE if is_ours else CONFLICT


def _element(vr: str, *values: Any) -> Model:
    return {"vr": vr, "Value": list(values)}


def _response_model(results: list[_Stored], base: str) -> Model:
    """Return the Store Instances Response Module (PS3.18 Annex I)."""
    model: Model = {}
    studies = {one.study for one in results if not one.fault}
    if len(studies) == 1:
        model["00081190"] = _element("UR", f"{base}/studies/{next(iter(studies))}")
    sequences: dict[str, list[Model]] = {}
    for one in results:
        item: Model = {}
        if one.sop_class and one.instance:
            item = {"00081150": _element("UI", one.sop_class), "00081155": _element("UI", one.instance)}
        if not one.fault:
            url = f"{base}/studies/{one.study}/series/{one.series}/instances/{one.instance}"
            item["00081190"] = _element("UR", url)
            sequences.setdefault("00081199", []).append(item)
        else:
            # What has no UIDs is an other failure (PS3.18 Table I.1-1).
            name = "00081198" if item else "0008119A"
            sequences.setdefault(name, []).append({**item, "00081197": _element("US", one.status)})
    model.update((tag, _element("SQ", *items)) for tag, items in sorted(sequences.items()))
    return dict(sorted(model.items()))
