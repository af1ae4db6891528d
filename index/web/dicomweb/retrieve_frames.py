"""Retrieve frames and bulk data (WADO-RS, PS3.18 Sections 10.4.1.1.5 and 10.4.1.1.6)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from starlette.requests import Request
from starlette.responses import Response

from index.dicom.transcoding import EXPLICIT_LITTLE
from index.web.dicomweb.formats import multipart
from index.web.dicomweb.formats.frames import Frames, can_decode
from index.web.dicomweb.formats.media_types import ANY_SYNTAX, IMAGE_TYPES, OCTETS, MediaType
from index.web.dicomweb.formats.objects import StoredDataSet
from index.web.dicomweb.responses import (
    BAD_REQUEST,
    NOT_ACCEPTABLE,
    NOT_FOUND,
    BlocksResponse,
    Refused,
    Threads,
    accepted_by,
)
from index.web.dicomweb.retrieve import bulk_path
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
        if choice.is_single:
            blocks, media_type = next(parts)[1], choice.content_type
        else:
            boundary = multipart.new_boundary()
            blocks, media_type = (
                multipart.multipart(boundary, parts),
                multipart.content_type(choice.media_type, boundary),
            )
        return BlocksResponse(self._threads, _closing(dataset, blocks), media_type)

    async def bulk_data(self, request: Request) -> Response:
        """Return the value that a BulkDataURI names."""
        uids, ranges = uids_of(request.path_params), accepted_by(request)
        return await self._threads.run(self._bulk_data, uids, request.path_params["path"], ranges)

    def _bulk_data(self, uids: Sequence[str], text: str, ranges: Sequence[MediaType]) -> Response:
        path = bulk_path(text)
        dataset = StoredDataSet(self._retrieval.open(select_one(self._retrieval, uids)))
        try:
            if dataset.pixels and path == (f"{dataset.pixels.tag:08X}",):
                return self._pixel_data(dataset, ranges)
            value = dataset.value(path)
            blocks = (value,) if isinstance(value, bytes) else dataset.blocks(*value)
            choice = _octets(ranges)
            return self._respond(dataset, choice, iter([({"Content-Type": OCTETS}, blocks)]))
        except BaseException:
            dataset.close()
            raise

    def _pixel_data(self, dataset: StoredDataSet, ranges: Sequence[MediaType]) -> Response:
        frames = Frames(dataset)
        if not frames.is_encapsulated:
            choice = _octets(ranges)
            part = {"Content-Type": f"{OCTETS}; transfer-syntax={EXPLICIT_LITTLE}"}, frames.all_blocks()
            return self._respond(dataset, choice, iter([part]))
        choice = choose_frames(ranges, frames, frames.count)
        return self._respond(dataset, choice, _frame_parts(frames, range(frames.count), choice))


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


def _closing(dataset: StoredDataSet, blocks: Iterable[bytes]) -> Iterator[bytes]:
    with dataset:
        yield from blocks
