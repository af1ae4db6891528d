"""The one application: monitoring, and the faces of the index behind the guard."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from index import Access, Index, LiveState
from scp.daemon.health import Health
from scp.daemon.http.monitoring import PATHS, monitoring_routes
from scp.observing.audit.http import http_events
from scp.observing.metrics import Metrics
from scp.settings.http import HttpSettings
from scp.settings.sections import Configuration
from scp.wire.status import C_STORE, status_of

# What a viewer's page may see of an answer (RFC 9110; WHATWG Fetch "CORS non-safelisted").
_EXPOSED = (
    "ETag",
    "Accept-Ranges",
    "Content-Range",
    "Last-Modified",
    "Location",
    "Content-Location",
    "Link",
    "Warning",
    "X-Total-Count",
)
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE")
_ASKED = ("Authorization", "Content-Type", "If-Match", "If-None-Match", "Prefer", "Range", "Last-Event-ID")


@dataclass(frozen=True, slots=True)
class Application:
    """What the server serves. `subjects`: of the certificates of its connections, by the peer's address."""

    app: ASGIApp
    subjects: dict[tuple[str, int], str] = field(default_factory=dict)


def make_application(
    index: Index,
    configuration: Configuration,
    health: Callable[[], Health],
    metrics: Metrics,
    live: LiveState | None = None,
) -> Application:
    """Return the application of a daemon; `live`: what its page is told."""
    routes = [*monitoring_routes(health, metrics), *faces(index, configuration, live)]
    audit = metrics.audit

    def on_access(access: Access) -> None:
        if audit:
            audit.put_all(http_events(audit.source, access))

    return guarded(routes, configuration.http, on_access)


def faces(index: Index, configuration: Configuration, live: LiveState | None = None) -> list[BaseRoute]:
    """Return the routes of FHIR, the change feed, DICOMweb and the page."""
    from index import FeedService, Fhir, Page

    return [
        *Fhir(index, configuration.fhir.versions, configuration.http.public_url).routes(),
        *FeedService(index).routes(),
        *dicomweb(index, configuration),
        *Page(index, live, tuple(configuration.fhir.versions)).routes(),
    ]


def dicomweb(index: Index, configuration: Configuration) -> list[BaseRoute]:
    """Return the routes of DICOMweb; what it stores fails with the statuses of C-STORE."""
    from index import DicomWeb, DicomWebSettings

    settings = DicomWebSettings(configuration.dicom.aet, configuration.http.public_url or "")
    return DicomWeb(index, settings, partial(status_of, statuses=C_STORE)).routes()


def guarded(
    routes: Sequence[BaseRoute],
    settings: HttpSettings,
    on_access: Callable[[Access], None] = lambda _: None,
) -> Application:
    """Return an application of these routes behind the guard, which lets monitoring pass."""
    from index import Callers, Guard, Origins

    subjects: dict[tuple[str, int], str] = {}
    app: ASGIApp = Starlette(routes=list(routes))
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=_METHODS,
            allow_headers=_ASKED,
            expose_headers=_EXPOSED,
        )
    callers = Callers(settings, subjects.get)
    return Application(Guard(app, callers, Origins(settings), PATHS, on_access), subjects)
