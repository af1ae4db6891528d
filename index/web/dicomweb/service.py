"""The resources of DICOMweb (PS3.18 Section 10.1) below one prefix, each with its methods."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from index.dicom.transcoding import NotTranscodable
from index.errors import DatabaseFault, IndexFault, NotFound, NotKept
from index.query.information_models import Level
from index.query.retrieve_keys import RetrieveKeys
from index.web.dicomweb.formats.frames import NotDecodable
from index.web.dicomweb.rendered import RenderedService
from index.web.dicomweb.responses import (
    NOT_ACCEPTABLE,
    NOT_FOUND,
    SERVICE_UNAVAILABLE,
    BlocksResponse,
    Refused,
    Threads,
    refusal,
)
from index.web.dicomweb.retrieve import ObjectService
from index.web.dicomweb.retrieve_frames import FrameService
from index.web.dicomweb.search import NO_CONTENT, SearchService
from index.web.dicomweb.selecting import select, uids_of
from index.web.dicomweb.store import CONFLICT, StoreService
from index.web.dicomweb.upload import Reception
from index.web.dicomweb.wado_uri import WadoUriService
from index.web.rights import Right, needs

if TYPE_CHECKING:
    from index.maintenance.deletion import Deleted
    from index.query.queries import Queries
    from index.query.retrieval import Retrieval

log = structlog.get_logger(__name__)

PREFIX = "/dicom-web"
_STUDY = "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"
_FRAMES = _INSTANCE + "/frames/{frames}"
_SERIES_DEPTH = 2

Endpoint = Callable[[Request], Awaitable[Response]]
# The status of a failure by its type; the first that matches decides.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (NotFound, NOT_FOUND),
    (NotDecodable, NOT_ACCEPTABLE),
    (NotTranscodable, NOT_ACCEPTABLE),
    (NotKept, SERVICE_UNAVAILABLE),
    (DatabaseFault, SERVICE_UNAVAILABLE),
    # The object is damaged: there is nothing to be sent.
    (IndexFault, NOT_FOUND),
    (OSError, SERVICE_UNAVAILABLE),
)


@dataclass(frozen=True, slots=True)
class DicomWebSettings:
    """What DICOMweb says of itself. `public_url`: where others reach the daemon; empty: as they called it."""

    retrieve_aet: str
    public_url: str = ""


class Parts(Reception, Protocol):
    """What DICOMweb needs of the index."""

    queries: "Queries"
    retrieval: "Retrieval"

    def delete(self, uid: str) -> "Deleted":
        """Delete a study, series or instance."""


class DicomWeb:
    """DICOMweb over an index; `routes` are to be mounted.

    To search and retrieve needs READ, to store WRITE, to delete OPERATE.
    """

    def __init__(
        self, index: Parts, settings: DicomWebSettings, status_of: Callable[[Exception], int]
    ) -> None:
        """`status_of` gives the DIMSE status of a failure to store."""
        self._settings = settings
        self._index = index
        queries, retrieval = index.queries, index.retrieval
        threads = self._threads = Threads()
        # Threads of their own: searches and uploads must not wait for those who read objects.
        self._search = SearchService(queries, settings.retrieve_aet, Threads())
        self._objects = ObjectService(retrieval, threads, self.base_url)
        self._frames = FrameService(retrieval, threads)
        self._rendered = RenderedService(retrieval, threads)
        self._wado_uri = WadoUriService(retrieval, self._objects, threads)
        self._store = StoreService(index, Threads(), self.base_url, status_of)

    def base_url(self, request: Request) -> str:
        """Return the URL below which the resources stand."""
        if self._settings.public_url:
            return self._settings.public_url.rstrip("/") + PREFIX
        return f"{request.url.scheme}://{_netloc(request)}{PREFIX}"

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        objects, frames = self._objects, self._frames
        searches: dict[str, Level] = {
            "/studies": Level.STUDY,
            "/series": Level.SERIES,
            "/instances": Level.IMAGE,
            f"{_STUDY}/series": Level.SERIES,
            f"{_STUDY}/instances": Level.IMAGE,
            f"{_SERIES}/instances": Level.IMAGE,
        }
        gets: dict[str, Endpoint] = {
            path: self._search.endpoint(level, self.base_url) for path, level in searches.items()
        }
        for path in (_STUDY, _SERIES, _INSTANCE):
            gets[path] = objects.objects
            gets[f"{path}/metadata"] = objects.metadata
        gets[_FRAMES] = frames.frames
        gets[_INSTANCE + "/bulkdata/{path:path}"] = frames.bulk_data
        gets.update(dict.fromkeys((f"{_INSTANCE}/rendered", f"{_FRAMES}/rendered"), self._rendered.rendered))
        for path in (_STUDY, _SERIES, _INSTANCE, _FRAMES):
            gets[f"{path}/thumbnail"] = self._rendered.thumbnail
        gets.update(dict.fromkeys(("", "/", "/wado"), self._wado_uri.retrieve))
        return [
            *_routes(gets, "GET", Right.READ),
            *_routes(dict.fromkeys(("/studies", _STUDY), self._store.store), "POST", Right.WRITE),
            *_routes(dict.fromkeys((_STUDY, _SERIES, _INSTANCE), self._delete), "DELETE", Right.OPERATE),
        ]

    async def _delete(self, request: Request) -> Response:
        await self._threads.run(self._delete_now, uids_of(request.path_params))
        return Response(status_code=NO_CONTENT)

    def _delete_now(self, uids: Sequence[str]) -> None:
        retrieval = self._index.retrieval
        total = select(retrieval, uids).total
        # The command takes a UID alone: it must not mean more than the path does.
        if retrieval.find_uid(uids[-1]).total != total or (
            len(uids) == _SERIES_DEPTH and retrieval.find(RetrieveKeys(series=(uids[-1],))).total != total
        ):
            raise Refused(CONFLICT, f"{uids[-1]} stands in other places too; see `imagingstudyd delete`")
        self._index.delete(uids[-1])


def _netloc(request: Request) -> str:
    """Return host and port as the user agent called them.

    Some, such as dicomweb-client, leave the port out of the header Host. It is known where they name the
    address of our socket: a proxy that hides the port would name its own host.
    """
    url, (host, port) = request.url, request.scope.get("server") or ("", None)
    is_ours = url.hostname in (host, "localhost") and port not in (None, 80, 443)
    return f"{url.netloc}:{port}" if is_ours and url.port is None else url.netloc


def _routes(endpoints: Mapping[str, Endpoint], method: str, right: Right) -> list[BaseRoute]:
    allowed = needs(right)
    return [Route(PREFIX + path, allowed(_guarded(one)), methods=[method]) for path, one in endpoints.items()]


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint that answers failures with their status."""

    async def answer(request: Request) -> Response:
        try:
            response = await endpoint(request)
            if isinstance(response, BlocksResponse) and request.method != "HEAD":
                await response.prepare()
        except Refused as error:
            return refusal(error)
        except (IndexFault, OSError) as error:
            status = next(status for kind, status in _STATUSES if isinstance(error, kind))
            log.warning("dicomweb_failed", path=request.url.path, status=status, reason=str(error))
            # Paths of our files are not for others.
            text = (
                str(error) if isinstance(error, IndexFault) and status != SERVICE_UNAVAILABLE else "try later"
            )
            return refusal(Refused(status, text))
        else:
            return response

    return answer
