"""Retrieve objects and metadata (WADO-RS, PS3.18 Section 10.4): streamed as they are read."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response

from index.dicom.part10 import encode_meta
from index.dicom.transcoding import NotTranscodable, transcode
from index.errors import IndexFault
from index.web.dicomweb.formats import multipart
from index.web.dicomweb.formats.dicom_json import JsonEncoder, Model, Path
from index.web.dicomweb.formats.media_types import DICOM, JSON, XML, choose
from index.web.dicomweb.formats.native_xml import native_model
from index.web.dicomweb.formats.objects import BLOCK, StoredDataSet, pixel_model
from index.web.dicomweb.responses import NOT_ACCEPTABLE, BlocksResponse, Refused, Threads, accepted_by
from index.web.dicomweb.selecting import ObjectChoice, object_choices, select, uids_of

if TYPE_CHECKING:
    from index.query.retrieval import InstanceSelection, Retrieval
    from index.records import StoredInstance

log = structlog.get_logger(__name__)

PARTIAL_CONTENT = 206
_AVAILABLE_TRANSFER_SYNTAX = "00083002"
_STUDY, _SERIES = "0020000D", "0020000E"
_PLAIN_JSON = "application/json"


class Incomplete(IndexFault):
    """Raised at the end of a body that lacks instances, so that it is cut off: its reader must know."""


class ObjectService:
    """Answers for objects and their metadata."""

    def __init__(self, retrieval: "Retrieval", threads: Threads, base_url: Callable[[Request], str]) -> None:
        self._retrieval = retrieval
        self._threads = threads
        self._base_url = base_url

    async def objects(self, request: Request) -> Response:
        """Return a study, a series or an instance."""
        found = await self._threads.run(select, self._retrieval, uids_of(request.path_params))
        choices = object_choices(accepted_by(request))
        for choice in choices:
            taken = [kind for kind in found.kinds if choice.syntax_for(kind[1])]
            if not taken or (choice.is_single and found.total > 1):
                continue
            if choice.is_single:
                return await self.single(next(found.instances()), choice)
            status = 200 if len(taken) == len(found.kinds) else PARTIAL_CONTENT
            return self._multipart(found, choice, status)
        why = (
            "one instance alone is application/dicom" if found.total > 1 else "its transfer syntax is another"
        )
        raise Refused(NOT_ACCEPTABLE, f'objects are multipart/related; type="{DICOM}", {why}')

    async def single(self, instance: "StoredInstance", choice: ObjectChoice) -> Response:
        """Return an instance alone, as a Part 10 file. Raises Refused."""
        syntax = choice.syntax_for(instance.transfer_syntax)
        if syntax is None:
            raise Refused(NOT_ACCEPTABLE, f"it is stored in transfer syntax {instance.transfer_syntax}")
        blocks = object_blocks(self._retrieval, instance, syntax)
        # Opened before the status is sent: it may be damaged, or gone.
        first = await self._threads.run(next, blocks)
        size = {"content-length": str(instance.size)} if first.startswith(_own_meta(instance)) else {}
        if syntax != instance.transfer_syntax:
            size = {}
        media_type = f"{DICOM}; transfer-syntax={syntax}"
        return BlocksResponse(self._threads, _chain(first, blocks), media_type, size)

    def _multipart(self, found: "InstanceSelection", choice: ObjectChoice, status: int) -> Response:
        boundary = multipart.new_boundary()
        blocks = _object_parts(self._retrieval, found, choice, boundary)
        response = BlocksResponse(self._threads, blocks, multipart.content_type(DICOM, boundary))
        response.status_code = status
        return response

    async def metadata(self, request: Request) -> Response:
        """Return the metadata of a study, a series or an instance."""
        found = await self._threads.run(select, self._retrieval, uids_of(request.path_params))
        media_type = choose(accepted_by(request), (JSON, _PLAIN_JSON, XML))
        if media_type is None:
            raise Refused(NOT_ACCEPTABLE, f"metadata is {JSON}, or multipart/related of {XML}")
        models = self._models(found, self._base_url(request))
        if media_type != XML:
            return BlocksResponse(self._threads, _json_array(models), media_type)
        boundary = multipart.new_boundary()
        parts = (({"Content-Type": XML}, (native_model(model),)) for model in models)
        blocks = multipart.multipart(boundary, parts)
        return BlocksResponse(self._threads, blocks, multipart.content_type(XML, boundary))

    def _models(self, found: "InstanceSelection", base: str) -> Iterator[Model]:
        failed = 0
        for instance in found.instances():
            try:
                model = metadata_of(self._retrieval, instance, base)
            except (IndexFault, OSError) as error:
                failed += 1
                _log_failed(instance, error)
            else:
                yield model
        if failed:
            raise Incomplete(f"{failed} instances cannot be read")


def metadata_of(retrieval: "Retrieval", instance: "StoredInstance", base: str) -> Model:
    """Return the metadata of an instance, whose long values are bulk data. Raises IndexFault, OSError."""
    with StoredDataSet(retrieval.open(instance)) as dataset:
        header = dataset.header
        study, series = (str(header.get(one, "")) for one in ("StudyInstanceUID", "SeriesInstanceUID"))
        url = f"{base}/studies/{study}/series/{series}/instances/{instance.uid}/bulkdata"

        def uri(path: Path) -> str:
            return "/".join((url, *map(str, path)))

        model = JsonEncoder(uri).encode(header)
        if dataset.pixels:
            model[f"{dataset.pixels.tag:08X}"] = pixel_model(dataset.pixels, uri)
        model[_AVAILABLE_TRANSFER_SYNTAX] = {"vr": "UI", "Value": [instance.transfer_syntax]}
        return dict(sorted(model.items()))


def object_blocks(retrieval: "Retrieval", instance: "StoredInstance", syntax: str) -> Iterator[bytes]:
    """Yield an instance as a Part 10 file in this transfer syntax.

    Raises NotFound, Unreadable, NotTranscodable, OSError, before the first bytes where that can be known.
    """
    with retrieval.open(instance) as file:
        meta = encode_meta(instance.sop_class_uid, instance.uid, syntax)
        if syntax != file.transfer_syntax:
            data = memoryview(transcode(file.read(), file.transfer_syntax, syntax))
            yield meta
            for start in range(0, len(data), BLOCK):
                yield bytes(data[start : start + BLOCK])
            return
        for start in range(0, file.size, BLOCK):
            block = bytearray(min(BLOCK, file.size - start))
            file.read_into([memoryview(block)], start)
            yield meta + block if not start else bytes(block)


def _own_meta(instance: "StoredInstance") -> bytes:
    return encode_meta(instance.sop_class_uid, instance.uid, instance.transfer_syntax)


def _object_parts(
    retrieval: "Retrieval", found: "InstanceSelection", choice: ObjectChoice, boundary: str
) -> Iterator[bytes]:
    failed = 0
    for instance in found.instances():
        syntax = choice.syntax_for(instance.transfer_syntax)
        if syntax is None:
            continue  # the status says that they are not all
        blocks = object_blocks(retrieval, instance, syntax)
        try:
            first = next(blocks)
        except (IndexFault, NotTranscodable, OSError) as error:
            failed += 1
            _log_failed(instance, error)
            continue
        headers = {"Content-Type": f"{DICOM}; transfer-syntax={syntax}"}
        yield multipart.part_head(boundary, headers) + first
        yield from blocks
    if failed:
        raise Incomplete(f"{failed} instances cannot be read")
    yield multipart.closing(boundary)


def _log_failed(instance: "StoredInstance", error: Exception) -> None:
    log.warning("retrieve_failed", sop_instance_uid=instance.uid, reason=str(error))


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _json_array(models: Iterator[Model]) -> Iterator[bytes]:
    separator = b"["
    for model in models:
        yield separator + orjson.dumps(model)
        separator = b","
    yield b"]" if separator == b"," else b"[]"


def bulk_path(text: str) -> Path:
    """Return the path of an element in a BulkDataURI. Raises Refused."""
    parts: Sequence[str] = text.strip("/").split("/")
    try:
        path: list[Any] = []
        for number, part in enumerate(parts):
            path.append(int(part) if number % 2 else f"{int(part, 16):08X}")
    except ValueError as error:
        raise Refused(400, "bulk data is named by tags, and numbers of items between them") from error
    if len(path) % 2 == 0:
        raise Refused(400, "the last part of a bulk data URI is a tag")
    return tuple(path)
