"""HTTP routes for monitoring: health and metrics."""

from collections.abc import Callable

import anyio.to_thread
from anyio import CapacityLimiter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from scp.daemon.health import Health
from scp.observing.metrics import Metrics

# Threads that read health and metrics, apart from those of all other requests.
THREADS = 4
SERVICE_UNAVAILABLE = 503
# What Prometheus asks for (prometheus.io/docs/instrumenting/exposition_formats).
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LIVE, READY, METRICS = "/health/live", "/health/ready", "/metrics"
PATHS = frozenset((LIVE, READY, METRICS))


def monitoring_routes(health: Callable[[], Health], metrics: Metrics) -> list[BaseRoute]:
    """Return the routes /health/live, /health/ready and /metrics."""
    threads = CapacityLimiter(THREADS)

    async def live(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        found = await anyio.to_thread.run_sync(health, limiter=threads)
        status = 200 if found.is_ready else SERVICE_UNAVAILABLE
        return JSONResponse({"status": found.status, "checks": found.checks}, status)

    async def scrape(_: Request) -> Response:
        return Response(
            await anyio.to_thread.run_sync(metrics.text, limiter=threads), media_type=METRICS_TYPE
        )

    return [Route(LIVE, live), Route(READY, ready), Route(METRICS, scrape)]
