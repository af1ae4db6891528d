"""WADO-URI (PS3.18 Section 9): one instance, its UIDs in the query; for viewers of before WADO-RS."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from index.dicom.transcoding import EXPLICIT_LITTLE
from index.web.dicomweb.formats.media_types import DICOM, BadMediaType, accepted, choose
from index.web.dicomweb.formats.rendering import QUALITY, RENDERED_TYPES, SIDE_LIMIT, Rendering
from index.web.dicomweb.rendered import render_instance
from index.web.dicomweb.responses import BAD_REQUEST, NOT_ACCEPTABLE, Refused, Threads
from index.web.dicomweb.retrieve import ObjectService
from index.web.dicomweb.selecting import ObjectChoice, select_one, uids_of

if TYPE_CHECKING:
    from index.query.retrieval import Retrieval

# PS3.18 Section 9.1.2.1: the parameters that name the instance.
_NAMES = {"study": "studyUID", "series": "seriesUID", "instance": "objectUID"}


class WadoUriService:
    """Answers WADO-URI, with the objects of WADO-RS."""

    def __init__(self, retrieval: "Retrieval", objects: ObjectService, threads: Threads) -> None:
        self._retrieval = retrieval
        self._objects = objects
        self._threads = threads

    async def retrieve(self, request: Request) -> Response:
        """Return an instance as a file, or one of its frames as an image."""
        parameters = request.query_params
        if parameters.get("requestType") != "WADO":
            raise Refused(BAD_REQUEST, "requestType must be WADO")
        if "anonymize" in parameters:
            raise Refused(BAD_REQUEST, "anonymize: objects are sent as they are stored")
        for name in _NAMES.values():
            if not parameters.get(name):
                raise Refused(BAD_REQUEST, f"{name} is missing")
        uids = uids_of({name: parameters[parameter] for name, parameter in _NAMES.items()})
        instance = await self._threads.run(select_one, self._retrieval, uids)
        try:
            ranges = accepted([parameters.get("contentType", "image/jpeg")])
        except BadMediaType as error:
            raise Refused(BAD_REQUEST, f"contentType: {error}") from error
        media_type = choose(ranges, (*RENDERED_TYPES, DICOM))
        if media_type == DICOM:
            choice = ObjectChoice((parameters.get("transferSyntax", EXPLICIT_LITTLE),), is_single=True)
            return await self._objects.single(request, instance, choice)
        if media_type is None:
            raise Refused(NOT_ACCEPTABLE, f"contentType: one of {', '.join((*RENDERED_TYPES, DICOM))}")
        number = _whole(parameters, "frameNumber", 1)
        how = _rendering(parameters, media_type)
        content = await self._threads.run(render_instance, self._retrieval, instance, number - 1, how)
        return Response(content, media_type=media_type)


def _rendering(parameters: Mapping[str, str], media_type: str) -> Rendering:
    """Return how the parameters want it rendered (PS3.18 Section 9.4.1.2). Raises Refused."""
    window = None
    if "windowCenter" in parameters or "windowWidth" in parameters:
        window = _number(parameters, "windowCenter"), _number(parameters, "windowWidth"), "LINEAR"
        if window[1] <= 0:
            raise Refused(BAD_REQUEST, "windowWidth must be above 0")
    viewport = None
    if "rows" in parameters or "columns" in parameters:
        viewport = _whole(parameters, "columns", SIDE_LIMIT), _whole(parameters, "rows", SIDE_LIMIT)
    if "region" in parameters:
        raise Refused(BAD_REQUEST, "region is not supported; ask WADO-RS for a viewport")
    quality = min(100, _whole(parameters, "imageQuality", QUALITY))
    return Rendering(media_type, window, viewport, None, quality)


def _number(parameters: Mapping[str, str], name: str) -> float:
    try:
        number = float(parameters.get(name, ""))
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Refused(BAD_REQUEST, f"{name} must be a number")
    return number


def _whole(parameters: Mapping[str, str], name: str, default: int) -> int:
    """Return a number of 1 or more, no image has more than SIDE_LIMIT squared."""
    text = parameters.get(name, str(default))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:10]) <= SIDE_LIMIT**2:
        raise Refused(BAD_REQUEST, f"{name} must be a whole number from 1 on")
    return int(text)
