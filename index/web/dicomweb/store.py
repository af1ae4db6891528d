"""Store (STOW-RS, PS3.18 Section 10.5): each part of the body is received as a C-STORE is, as it comes."""

import secrets
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import orjson
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from index.errors import NotKept
from index.records import Origin
from index.web.dicomweb.formats.dicom_json import Model
from index.web.dicomweb.formats.media_types import (
    DICOM,
    JSON,
    MULTIPART,
    XML,
    BadMediaType,
    choose,
    parse_media_type,
)
from index.web.dicomweb.formats.multipart import BadMultipart, MultipartReader, Part, PartEnd
from index.web.dicomweb.formats.native_xml import native_model
from index.web.dicomweb.responses import BAD_REQUEST, SERVICE_UNAVAILABLE, Refused, Threads, accepted_by
from index.web.dicomweb.selecting import uids_of
from index.web.dicomweb.upload import Reception, Stored, Upload

log = structlog.get_logger(__name__)

ACCEPTED, CONFLICT, TIMEOUT, UNSUPPORTED_MEDIA_TYPE = 202, 409, 408, 415
# Bytes of the body that are taken at one time by a thread.
BLOCK = 256 * 1024
# For so many more bytes of the body, or its end, in seconds: as of a PDU once begun. One who sends a byte now
# and then is not waited for.
BODY_SECONDS = 30.0
BODY_BYTES = 16 * 1024
_PLAIN_JSON = "application/json"


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
        upload = Upload(self._index, origin, uids[0] if uids else "", self._status_of)
        try:
            why = await self._take(request, upload, reader)
        finally:
            with anyio.CancelScope(shield=True):
                await self._threads.run(upload.abandon)
                request.state.received = upload.received
                await self._threads.run(self._index.association_ended, association)
        if not upload.results:
            raise Refused(BAD_REQUEST, why or "the body has no part")
        model = _response_model(upload.results, self._base_url(request))
        body = native_model(model) if answer_type == XML else orjson.dumps(model)
        return Response(body, _status(upload.results, why), media_type=answer_type)

    async def _take(self, request: Request, upload: Upload, reader: MultipartReader | None) -> str:
        """Receive the body; return why it ends early, or nothing."""
        if reader is None:
            upload.begin(Part({}))
        buffer = bytearray()
        stream = request.stream().__aiter__()
        is_ended = False
        try:
            while not is_ended:
                with anyio.fail_after(BODY_SECONDS):
                    is_ended = await _read_more(stream, buffer)
                if is_ended or len(buffer) >= BLOCK:
                    await self._threads.run(_feed, upload, reader, bytes(buffer))
                    buffer.clear()
            if reader is None:
                await self._threads.run(upload.end)
            else:
                reader.end()
        except (BadMultipart, ClientDisconnect) as error:
            return str(error) or "the connection was lost"
        except TimeoutError as error:
            raise Refused(TIMEOUT, f"no more of the body came within {BODY_SECONDS:.0f} seconds") from error
        return ""


async def _read_more(stream: AsyncIterator[bytes], buffer: bytearray) -> bool:
    """Read so much more of a body, or all; return whether it has ended."""
    wanted = len(buffer) + BODY_BYTES
    while len(buffer) < wanted:
        chunk = await anext(stream, None)
        if chunk is None:
            return True
        buffer += chunk
    return False


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


def _feed(upload: Upload, reader: MultipartReader | None, data: bytes) -> None:
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


def _status(results: list[Stored], why: str) -> int:
    """Return the status of the response (PS3.18 Table 10.5.3-1)."""
    failed = [one.fault for one in results if one.fault]
    if len(failed) < len(results):
        return ACCEPTED if failed or why or any(one.warning for one in results) else 200
    is_ours = any(isinstance(fault, NotKept | OSError) for fault in failed)
    return SERVICE_UNAVAILABLE if is_ours else CONFLICT


def _element(vr: str, *values: Any) -> Model:
    return {"vr": vr, "Value": list(values)}


def _response_model(results: list[Stored], base: str) -> Model:
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
            if one.warning:
                item["00081196"] = _element("US", one.warning)
            sequences.setdefault("00081199", []).append(item)
        else:
            # What has no UIDs is an other failure (PS3.18 Table I.1-1).
            name = "00081198" if item else "0008119A"
            sequences.setdefault(name, []).append({**item, "00081197": _element("US", one.status)})
    model.update((tag, _element("SQ", *items)) for tag, items in sorted(sequences.items()))
    return dict(sorted(model.items()))
