"""The HTTP server: a thread of its own, on a socket that is bound before the daemon says ready."""

import socket
import threading
from collections.abc import Callable, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from scp.config import HttpSettings
from scp.health import Health
from scp.listener import bind
from scp.metrics import Metrics

# Requests at one time: beyond it 503, so that monitoring gone wild takes no memory from reception.
CONCURRENCY = 64
# For answers that are being written when the daemon stops, in seconds.
GRACE_SECONDS = 5
SERVICE_UNAVAILABLE = 503
# What Prometheus asks for (prometheus.io/docs/instrumenting/exposition_formats).
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def watching(health: Callable[[], Health], metrics: Metrics) -> list[BaseRoute]:
    """Return the routes /health/live, /health/ready and /metrics."""

    def live(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    def ready(_: Request) -> Response:
        found = health()
        status = 200 if found.is_ready else SERVICE_UNAVAILABLE
        return JSONResponse({"status": found.status, "checks": found.checks}, status)

    def scrape(_: Request) -> Response:
        return Response(metrics.text(), media_type=METRICS_TYPE)

    return [Route("/health/live", live), Route("/health/ready", ready), Route("/metrics", scrape)]


class HttpServer:
    """Serves routes in a thread. Raises OSError where its address cannot be bound."""

    def __init__(self, settings: HttpSettings, routes: Sequence[BaseRoute]) -> None:
        self._socket: socket.socket = bind(settings.host, settings.port)
        config = uvicorn.Config(
            Starlette(routes=list(routes)),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=CONCURRENCY,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name="http", daemon=True)

    def start(self) -> tuple[str, int]:
        """Serve; return the address bound."""
        host, port = self._socket.getsockname()[:2]
        self._thread.start()
        return host, port

    def stop(self) -> None:
        """Finish running answers, and end."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join()
        self._socket.close()

    def _run(self) -> None:
        self._server.run(sockets=[self._socket])
