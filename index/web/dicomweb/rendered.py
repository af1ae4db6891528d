"""Rendered resources and thumbnails (PS3.18 Sections 10.4.1.1.3 and 10.4.1.1.4)."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from index.errors import IndexFault
from index.web.dicomweb.formats.frames import Frames, NotDecodable
from index.web.dicomweb.formats.media_types import choose
from index.web.dicomweb.formats.objects import StoredDataSet
from index.web.dicomweb.formats.rendering import (
    FUNCTIONS,
    QUALITY,
    RENDERED_TYPES,
    SIDE_LIMIT,
    Rendering,
    render,
)
from index.web.dicomweb.responses import (
    BAD_REQUEST,
    NOT_ACCEPTABLE,
    Refused,
    Threads,
    accepted_by,
    reading,
)
from index.web.dicomweb.retrieve_frames import frame_numbers
from index.web.dicomweb.selecting import select, select_one, uids_of

if TYPE_CHECKING:
    from index.query.retrieval import Retrieval
    from index.records import StoredInstance

# Pixels of a side of a thumbnail, where the user agent names none.
THUMBNAIL = (128, 128)
# Instances of a study or series that are tried for a thumbnail: its first ones may be reports.
_TRIED = 5
_SIZE, _REGION = 2, 6


class RenderedService:
    """Answers for rendered instances and frames, and for thumbnails."""

    def __init__(self, retrieval: "Retrieval", threads: Threads) -> None:
        self._retrieval = retrieval
        self._threads = threads

    async def rendered(self, request: Request) -> Response:
        """Return the first frame, or the one that is named, as an image."""
        uids, how = uids_of(request.path_params), _rendering(request)
        numbers = frame_numbers(request.path_params.get("frames", "1"))
        if len(numbers) > 1:
            raise Refused(NOT_ACCEPTABLE, "one frame is rendered at a time")
        return await self._threads.run(self._one, uids, numbers[0] - 1, how)

    def _one(self, uids: Sequence[str], number: int, how: Rendering) -> Response:
        content = render_instance(self._retrieval, select_one(self._retrieval, uids), number, how)
        return Response(content, media_type=how.media_type)

    async def thumbnail(self, request: Request) -> Response:
        """Return a small image that stands for a study, a series, an instance or a frame."""
        uids, how = uids_of(request.path_params), _rendering(request, THUMBNAIL)
        number = frame_numbers(request.path_params.get("frames", "1"))[0] - 1
        return await self._threads.run(self._thumbnail, uids, number, how)

    def _thumbnail(self, uids: Sequence[str], number: int, how: Rendering) -> Response:
        found = select(self._retrieval, uids)
        instances = list(found.instances())
        # The middle of a series shows more than its edge.
        middle = len(instances) // 2
        ordered = [*instances[middle:], *instances[:middle]]
        for instance in ordered[:_TRIED]:
            try:
                content = render_instance(self._retrieval, instance, number, how)
            except (IndexFault, OSError) as error:
                why = error
            else:
                return Response(content, media_type=how.media_type)
        raise why


def render_instance(retrieval: "Retrieval", instance: "StoredInstance", number: int, how: Rendering) -> bytes:
    """Return a frame of an instance as an image. Raises IndexFault, OSError."""
    with reading(), StoredDataSet(retrieval.open(instance)) as dataset:
        if dataset.pixels is None:
            raise NotDecodable("the instance has no image to be rendered")
        return render(Frames(dataset), number, how)


def _rendering(request: Request, viewport: tuple[int, int] | None = None) -> Rendering:
    """Return how a request wants it rendered (PS3.18 Section 8.3.5). Raises Refused."""
    media_type = choose(accepted_by(request), RENDERED_TYPES)
    if media_type is None:
        raise Refused(NOT_ACCEPTABLE, f"what is rendered is one of {', '.join(RENDERED_TYPES)}")
    parameters = request.query_params
    region = None
    if "viewport" in parameters:
        numbers = _numbers("viewport", parameters["viewport"], (_SIZE, _REGION))
        viewport = _side(numbers[0]), _side(numbers[1])
        if len(numbers) == _REGION:
            x, y, width, height = numbers[_SIZE:]
            region = (x, y, width, height)
    return Rendering(media_type, _window(parameters), viewport, checked_region(region), _quality(parameters))


def _window(parameters: Mapping[str, str]) -> tuple[float, float, str] | None:
    if "window" not in parameters:
        return None
    *given, function = parameters["window"].split(",")
    numbers = _numbers("window", ",".join(given), (2,))
    if function.lower() not in FUNCTIONS or numbers[1] <= 0:
        raise Refused(BAD_REQUEST, f"window: a center, a width above 0, and one of {', '.join(FUNCTIONS)}")
    return numbers[0], numbers[1], FUNCTIONS[function.lower()]


def _quality(parameters: Mapping[str, str]) -> int:
    (quality,) = _numbers("quality", parameters.get("quality", str(QUALITY)), (1,))
    if not 1 <= quality <= 100:  # noqa: PLR2004  percent
        raise Refused(BAD_REQUEST, "quality: 1 to 100")
    return int(quality)


def checked_region(
    region: tuple[float, float, float, float] | None,
) -> tuple[float, float, float, float] | None:
    """Return a region that can be cropped. Raises Refused."""
    if region and (min(region[:2]) < 0 or min(region[2:]) < 1 or max(region) > SIDE_LIMIT * 8):
        raise Refused(BAD_REQUEST, "a region begins within the image, and has a width and a height")
    return region


def _side(number: float) -> int:
    if not 1 <= number <= SIDE_LIMIT:
        raise Refused(BAD_REQUEST, f"viewport: a side has 1 to {SIDE_LIMIT} pixels")
    return int(number)


def _numbers(name: str, text: str, counts: Sequence[int]) -> list[float]:
    try:
        numbers = [float(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) not in counts or not all(math.isfinite(one) for one in numbers):
        raise Refused(BAD_REQUEST, f"{name}: {' or '.join(map(str, counts))} numbers, separated by commas")
    return numbers
