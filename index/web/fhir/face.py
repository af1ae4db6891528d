"""FHIR REST as an application: `/fhir/{dstu2,r4,r5}`, every error an OperationOutcome."""

from collections.abc import Callable, Sequence
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route

from index.errors import Contention, NotKept
from index.facade import Index
from index.imagingstudy import VERSIONS
from index.web.fhir.capabilities import capabilities
from index.web.fhir.forms import encoded, form_of
from index.web.fhir.operations import Operations
from index.web.fhir.orders import OrderIntake
from index.web.fhir.outcomes import MEDIA_TYPES, Refused, code_of, outcome
from index.web.fhir.reading import Reading
from index.web.fhir.searching import Searching
from index.web.fhir.subscribing import VERSIONS as SUBSCRIBED
from index.web.fhir.subscribing import Subscribing
from index.web.rights import Right, needs

log = structlog.get_logger(__name__)

PREFIX = "/fhir"


class Fhir:
    """The FHIR face. `versions` are published; `public_url`: where others reach this server."""

    def __init__(self, index: Index, versions: Sequence[str], public_url: str | None = None) -> None:
        self._index = index
        self._versions = versions
        self._public_url = public_url

    def routes(self) -> list[BaseRoute]:
        """Return the routes: one application for each version, and one for what is beside them."""
        served: list[BaseRoute] = [
            Mount(
                f"/{version}",
                _application(version, _Version(self._index, version, self._public_url).routes()),
            )
            for version in VERSIONS
            if version in self._versions
        ]
        if "r4" in self._versions:
            # The base has no slash at its end.
            served.insert(0, _Version(self._index, "r4", self._public_url).base_route("/r4"))
        return [Mount(PREFIX, _application("r4", served))]


class _Version:
    """The routes of one version."""

    def __init__(self, index: Index, fhir: str, public_url: str | None) -> None:
        self._fhir = fhir
        self._public_url = public_url
        self._reading = Reading(index, fhir)
        self._operations = Operations(index, fhir, self.base)
        self._intake = OrderIntake(index.orders)
        self._searching = Searching(index, fhir)
        self._subscriptions = index.subscriptions
        self._subscribing = Subscribing(index, fhir, self.base)

    def base(self, request: Request) -> str:
        """Return the address of this version, as this caller reaches it."""
        root = self._public_url or f"{request.url.scheme}://{request.url.netloc}"
        return f"{root}{PREFIX}/{self._fhir}"

    def routes(self) -> list[BaseRoute]:
        """Return the routes, those with the most parts first."""
        reads: list[tuple[str, Callable[[Request], Response]]] = [
            ("/metadata", self.metadata),
            ("/ImagingStudy/{id}/$bundle", self._operations.bundle),
            ("/Patient/{id}/$everything", self._operations.everything),
            ("/{type}/{id}/_history/{version}", self._reading.vread),
            ("/{type}/{id}/_history", self.history),
            ("/{type}/{id}", self._reading.read),
            ("/{type}", self.search),
        ]
        guard = needs(Right.READ, self._refuse)
        subscribing = self._subscribing.routes(self._refuse) if self._fhir in SUBSCRIBED else []
        return [
            *self._writes(),
            *subscribing,
            Route("/{type}/_search", guard(self.search_by_form), methods=["GET", "POST"]),
            *(Route(path, guard(endpoint)) for path, endpoint in reads),
        ]

    def _writes(self) -> list[BaseRoute]:
        """Return the routes by which orders come in: as R4 only, whose ServiceRequest we read."""
        if self._fhir != "r4":
            return []
        guard = needs(Right.WRITE, self._refuse)
        return [
            self.base_route("/"),
            Route("/ServiceRequest", guard(self._create), methods=["POST"]),
            Route("/ServiceRequest/{id}", guard(self._update), methods=["PUT"]),
        ]

    def base_route(self, path: str) -> BaseRoute:
        """Return the route of transactions."""
        return Route(path, needs(Right.WRITE, self._refuse)(self._transaction), methods=["POST"])

    async def _create(self, request: Request) -> Response:
        return await self._intake.create(request, self.base(request))

    async def _update(self, request: Request) -> Response:
        return await self._intake.update(request, self.base(request))

    async def _transaction(self, request: Request) -> Response:
        return await self._intake.transaction(request, self.base(request))

    def metadata(self, request: Request) -> Response:
        """Return what works, as a CapabilityStatement or Conformance."""
        form = form_of(request.query_params.multi_items(), request.headers, self._fhir)
        content = encoded(self._capabilities(request), pretty=form.pretty)
        return Response(content, media_type=MEDIA_TYPES[self._fhir])

    def _capabilities(self, request: Request) -> dict[str, Any]:
        base = self.base(request)
        return capabilities(self._fhir, base, subscriptions=bool(self._subscriptions.allowed))

    def search(self, request: Request) -> Response:
        """Return a page of a search."""
        return self._searching.get(request, self.base(request))

    async def search_by_form(self, request: Request) -> Response:
        """Return a page of a search whose parameters are a form."""
        return await self._searching.post(request, self.base(request))

    def history(self, request: Request) -> Response:
        """Return the history of a resource."""
        return self._reading.history(request, self.base(request))

    def _refuse(self, status: int, text: str) -> Response:
        return outcome(status, code_of(status), text, self._fhir)


def _application(fhir: str, routes: Sequence[BaseRoute]) -> Starlette:
    """Return an application of its own: so every error below its path is made by its handlers."""
    application = Starlette(routes=routes, exception_handlers=_handlers(fhir))
    application.router.redirect_slashes = False
    return application


def _handlers(fhir: str) -> dict[Any, Callable[[Request, Any], Response]]:
    """Return what makes an OperationOutcome of each error."""

    def refused(_: Request, error: Refused) -> Response:
        return outcome(error.status, error.code, error.text, fhir, error.headers)

    def by_starlette(request: Request, error: HTTPException) -> Response:
        text = f"{request.method} {request.url.path[:200]}: {error.detail}"
        return outcome(error.status_code, code_of(error.status_code), text, fhir, error.headers)

    def not_read(_: Request, error: NotKept) -> Response:
        return outcome(503, "transient", f"{error}; try again", fhir, {"Retry-After": "5"})

    def fault(request: Request, error: Exception) -> Response:
        log.error("fhir_request_failed", path=request.url.path[:200], exc_info=error)
        return outcome(500, "exception", "this request failed; the server's log has why", fhir)

    return {
        Refused: refused,
        HTTPException: by_starlette,
        NotKept: not_read,
        Contention: not_read,
        Exception: fault,
    }
