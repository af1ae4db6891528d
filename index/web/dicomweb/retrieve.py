"""Retrieve objects and metadata (WADO-RS, PS3.18 Section 10.4): streamed as they are read."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

import orjson
import structlog
from starlette.requests import Request
from starlette.responses import Response

from index.dicom.part10 import encode_meta
from index.dicom.transcoding import transcode
from index.errors import IndexFault, NotKept
from index.web.dicomweb.formats import multipart
from index.web.dicomweb.formats.dicom_json import JsonEncoder, Model, Path
from index.web.dicomweb.formats.media_types import DICOM, JSON, XML, choose
from index.web.dicomweb.formats.native_xml import native_model
from index.web.dicomweb.formats.objects import BLOCK, StoredDataSet, pixel_model
from index.web.dicomweb.responses import (
    NOT_ACCEPTABLE,
    PARTIAL_CONTENT,
    BlocksResponse,
    Content,
    Refused,
    Threads,
    accepted_by,
    content_response,
    is_known,
    not_modified,
    reading,
)
from index.web.dicomweb.selecting import ObjectChoice, object_choices, select, uids_of

if TYPE_CHECKING:
    from index.query.retrieval import InstanceSelection, Retrieval
    from index.records import StoredInstance
    from index.storage.data_set_file import DataSetFile

log = structlog.get_logger(__name__)

# What is transcoded stands in memory until it is sent; of all that are sent at one time so many bytes.
TRANSCODED_LIMIT = 1024 * 1024 * 1024
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
                instance = await self._threads.run(next, found.instances())
                return await self.single(request, instance, choice)
            status = 200 if len(taken) == len(found.kinds) else PARTIAL_CONTENT
            return self._multipart(found, choice, status)
        stored = ", ".join(sorted({syntax for _, syntax in found.kinds}))
        raise Refused(
            NOT_ACCEPTABLE,
            f'objects are multipart/related; type="{DICOM}", one alone is {DICOM}; these are stored in'
            f" transfer syntax {stored}, which a user agent takes by its name, or by transfer-syntax=*",
        )

    async def single(self, request: Request, instance: "StoredInstance", choice: ObjectChoice) -> Response:
        """Return an instance alone, as a Part 10 file. Raises Refused."""
        syntax = choice.syntax_for(instance.transfer_syntax)
        if syntax is None:
            raise Refused(NOT_ACCEPTABLE, f"it is stored in transfer syntax {instance.transfer_syntax}")
        if is_known(request, tag := entity_tag(instance, syntax)):
            return not_modified(tag)
        content = await self._threads.run(open_object, self._retrieval, instance, syntax)
        try:
            return content_response(request, self._threads, content, f"{DICOM}; transfer-syntax={syntax}")
        except Refused:
            content.close()
            raise

    def _multipart(self, found: "InstanceSelection", choice: ObjectChoice, status: int) -> Response:
        boundary = multipart.new_boundary()
        blocks = _object_parts(self._retrieval, found, choice, boundary)
        return BlocksResponse(self._threads, blocks, multipart.content_type(DICOM, boundary), status=status)

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
    with reading(), StoredDataSet(retrieval.open(instance)) as dataset:
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


def entity_tag(instance: "StoredInstance", *how: str) -> str:
    """Return the entity tag of an instance, or of a part of it. One that replaces it has another path."""
    text = "\0".join((instance.uid, instance.path, str(instance.size), *how))
    return f'"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}"'


def open_object(retrieval: "Retrieval", instance: "StoredInstance", syntax: str) -> Content:
    """Open an instance as a Part 10 file in this transfer syntax; it is to be closed.

    Raises NotFound, Unreadable, NotTranscodable, NotKept, OSError.
    """
    meta = encode_meta(instance.sop_class_uid, instance.uid, syntax)
    tag = entity_tag(instance, syntax)
    file = retrieval.open(instance)
    if syntax == file.transfer_syntax:
        return Content(len(meta) + file.size, partial(_file_blocks, file, meta), tag, file.close)
    with file:
        data = transcode(file.read(), file.transfer_syntax, syntax)
    _transcoded.take(len(data))
    blocks = partial(_memory_blocks, memoryview(meta + data))
    return Content(len(meta) + len(data), blocks, tag, partial(_transcoded.give_back, len(data)))


def _file_blocks(file: "DataSetFile", meta: bytes, start: int, stop: int) -> Iterator[bytes]:
    """Yield the bytes between two places of a file that begins with `meta`. Raises OSError."""
    while start < stop:
        head = meta[start : min(stop, start + BLOCK)]
        length = min(BLOCK - len(head), stop - start - len(head))
        block = bytearray(length)
        if length:
            file.read_into([memoryview(block)], max(0, start - len(meta)))
        yield bytes(head) + block if head else bytes(block)
        start += len(head) + length


def _memory_blocks(data: memoryview, start: int, stop: int) -> Iterator[bytes]:
    for place in range(start, stop, BLOCK):
        yield bytes(data[place : min(place + BLOCK, stop)])


class _Budget:
    """Bytes that all may hold together. Raises NotKept where there are not so many left."""

    def __init__(self, limit: int) -> None:
        self._left = limit
        self._lock = Lock()

    def take(self, count: int) -> None:
        with self._lock:
            if count > self._left:
                raise NotKept("memory: others are sent too much that is transcoded")
            self._left -= count

    def give_back(self, count: int) -> None:
        with self._lock:
            self._left += count


_transcoded = _Budget(TRANSCODED_LIMIT)


def _object_parts(
    retrieval: "Retrieval", found: "InstanceSelection", choice: ObjectChoice, boundary: str
) -> Iterator[bytes]:
    failed = 0
    for instance in found.instances():
        syntax = choice.syntax_for(instance.transfer_syntax)
        if syntax is None:
            continue  # the status says that they are not all
        try:
            content = open_object(retrieval, instance, syntax)
        except (IndexFault, OSError) as error:
            failed += 1
            _log_failed(instance, error)
            continue
        try:
            yield multipart.part_head(boundary, {"Content-Type": f"{DICOM}; transfer-syntax={syntax}"})
            yield from content.blocks(0, content.size)
        finally:
            content.close()
    if failed:
        raise Incomplete(f"{failed} instances cannot be read")
    yield multipart.closing(boundary)


def _log_failed(instance: "StoredInstance", error: Exception) -> None:
    log.warning("retrieve_failed", sop_instance_uid=instance.uid, reason=str(error))


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
