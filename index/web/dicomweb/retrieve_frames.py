"""Retrieve frames and bulk data (WADO-RS, PS3.18 Sections 10.4.1.1.5 and 10.4.1.1.6)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from index.dicom.transcoding import EXPLICIT_LITTLE
from index.web.dicomweb.formats import multipart
from index.web.dicomweb.formats.dicom_json import Path
from index.web.dicomweb.formats.frames import Frames, can_decode
from index.web.dicomweb.formats.media_types import ANY_SYNTAX, IMAGE_TYPES, OCTETS, MediaType
from index.web.dicomweb.formats.objects import StoredDataSet
from index.web.dicomweb.responses import (
    BAD_REQUEST,
    NOT_ACCEPTABLE,
    NOT_FOUND,
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
from index.web.dicomweb.retrieve import bulk_path, entity_tag
from index.web.dicomweb.selecting import select_one, uids_of

if TYPE_CHECKING:
    from index.query.retrieval import Retrieval

# Digits of the number of a frame; NumberOfFrames is IS.
_LIST = re.compile(r"[0-9]{1,10}(,[0-9]{1,10})*")
# Frames of one request.
FRAMES_LIMIT = 100_000

Part = tuple[Mapping[str, str], Iterable[bytes]]


class FrameChoice(NamedTuple):
    """How frames are sent: their media type and transfer syntax; `decode`: not as they are stored."""

    media_type: str
    syntax: str
    decode: bool
    is_single: bool

    @property
    def content_type(self) -> str:
        """The Content-Type of a frame. Viewers choose their decoder by its transfer syntax."""
        return f"{self.media_type}; transfer-syntax={self.syntax}"


def choose_frames(ranges: Iterable[MediaType], frames: Frames, wanted: int) -> FrameChoice:
    """Return how a user agent takes frames (PS3.18 Section 8.7.3). Raises Refused where it does not.

    An image media type without a transfer syntax takes all that PS3.18 Table 8.7.3-5 has for it: its default
    alone would refuse images that every reader of that type reads.
    """
    stored = frames.transfer_syntax
    image = IMAGE_TYPES.get(stored) if frames.is_encapsulated else None
    for one in ranges:
        is_single = not one.is_multipart and one.name != "*/*"
        if is_single and wanted > 1:
            continue
        asked = one.transfer_syntax
        if image and one.covers(image) and asked in ("", ANY_SYNTAX, stored):
            return FrameChoice(image, stored, False, is_single)
        if not one.covers(OCTETS):
            continue
        if asked in (ANY_SYNTAX, stored) or (not frames.is_encapsulated and not asked):
            return FrameChoice(OCTETS, stored, False, is_single)
        if asked in ("", EXPLICIT_LITTLE) and can_decode(stored):
            return FrameChoice(OCTETS, EXPLICIT_LITTLE, True, is_single)
    raise Refused(
        NOT_ACCEPTABLE,
        f"frames are stored in transfer syntax {stored}: {image or OCTETS}; ask for multipart/related"
        f" of it, or of {OCTETS} with transfer-syntax=*",
    )


class FrameService:
    """Answers for frames and bulk data."""

    def __init__(self, retrieval: "Retrieval", threads: Threads) -> None:
        self._retrieval = retrieval
        self._threads = threads

    async def frames(self, request: Request) -> Response:
        """Return frames by their numbers."""
        uids, ranges = uids_of(request.path_params), accepted_by(request)
        return await self._threads.run(self._frames, uids, request.path_params["frames"], ranges)

    @reading()
    def _frames(self, uids: Sequence[str], text: str, ranges: Sequence[MediaType]) -> Response:
        numbers = frame_numbers(text)
        dataset = StoredDataSet(self._retrieval.open(select_one(self._retrieval, uids)))
        try:
            frames = Frames(dataset)
            _check(frames, numbers)
            choice = choose_frames(ranges, frames, len(numbers))
            parts = _frame_parts(frames, [number - 1 for number in numbers], choice)
            return self._respond(dataset, choice, parts)
        except BaseException:
            dataset.close()
            raise

    def _respond(self, dataset: StoredDataSet, choice: FrameChoice, parts: Iterator[Part]) -> Response:
        blocks: Iterator[bytes]
        if choice.is_single:
            blocks, media_type = iter(next(parts)[1]), choice.content_type
        else:
            boundary = multipart.new_boundary()
            blocks, media_type = (
                multipart.multipart(boundary, parts),
                multipart.content_type(choice.media_type, boundary),
            )
        return BlocksResponse(self._threads, blocks, media_type, close=dataset.close)

    async def bulk_data(self, request: Request) -> Response:
        """Return the value that a BulkDataURI names."""
        uids, path = uids_of(request.path_params), bulk_path(request.path_params["path"])
        return await self._threads.run(self._bulk_data, request, uids, path, accepted_by(request))

    @reading()
    def _bulk_data(
        self, request: Request, uids: Sequence[str], path: Path, ranges: Sequence[MediaType]
    ) -> Response:
        instance = select_one(self._retrieval, uids)
        tag = entity_tag(instance, *map(str, path))
        dataset = StoredDataSet(self._retrieval.open(instance))
        try:
            if not dataset.pixels or path != (f"{dataset.pixels.tag:08X}",):
                return self._octets(request, dataset, dataset.value(path), ranges, tag)
            frames = Frames(dataset)
            if not frames.is_encapsulated:
                return self._octets(request, dataset, frames.place, ranges, tag)
            choice = choose_frames(ranges, frames, frames.count)
            return self._respond(dataset, choice, _frame_parts(frames, range(frames.count), choice))
        except BaseException:
            dataset.close()
            raise

    def _octets(
        self,
        request: Request,
        dataset: StoredDataSet,
        value: bytes | tuple[int, int],
        ranges: Sequence[MediaType],
        tag: str,
    ) -> Response:
        """Return a value, or the place of one, as it is; alone it can be had in ranges of bytes."""
        choice = _octets(ranges)
        start, length = (0, len(value)) if isinstance(value, bytes) else value

        def blocks(first: int, stop: int) -> Iterator[bytes]:
            if isinstance(value, bytes):
                return iter((value[first:stop],))
            return dataset.blocks(start + first, stop - first)

        if not choice.is_single:
            part = {"Content-Type": choice.content_type}, blocks(0, length)
            return self._respond(dataset, choice, iter((part,)))
        if is_known(request, tag):
            dataset.close()
            return not_modified(tag)
        content = Content(length, blocks, tag, dataset.close)
        return content_response(request, self._threads, content, choice.content_type)


def frame_numbers(text: str) -> list[int]:
    """Return the frames that a path names, numbered from 1. Raises Refused."""
    if not _LIST.fullmatch(text):
        raise Refused(BAD_REQUEST, "frames are numbers from 1 on, separated by commas")
    numbers = [int(number) for number in text.split(",")]
    if min(numbers) < 1 or len(numbers) > FRAMES_LIMIT:
        raise Refused(BAD_REQUEST, f"frames are numbered from 1 on, and {FRAMES_LIMIT} at most are sent")
    return numbers


def _check(frames: Frames, numbers: Sequence[int]) -> None:
    if max(numbers) > frames.count:
        raise Refused(NOT_FOUND, f"the instance has {frames.count} frames, numbered from 1")


def _octets(ranges: Sequence[MediaType]) -> FrameChoice:
    for one in ranges:
        if one.covers(OCTETS):
            is_single = not one.is_multipart and one.name != "*/*"
            return FrameChoice(OCTETS, EXPLICIT_LITTLE, False, is_single)
    raise Refused(NOT_ACCEPTABLE, f"bulk data is {OCTETS}, alone or as multipart/related")


def _frame_parts(frames: Frames, numbers: Iterable[int], choice: FrameChoice) -> Iterator[Part]:
    for number in numbers:
        blocks = iter((frames.decoded(number),)) if choice.decode else frames.blocks(number)
        yield {"Content-Type": choice.content_type}, blocks
