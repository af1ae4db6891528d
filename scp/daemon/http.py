"""The HTTP server: a thread of its own, on a socket that is bound before the daemon says ready.

uvicorn accepts whatever comes and gives a connection that says nothing all the time in the world. Here
connections have places, and each is under deadlines: who says nothing gives way to the next who comes.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio.to_thread
import structlog
import uvicorn
from anyio import CapacityLimiter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from index import Supervisor
from scp.daemon.descriptors import HTTP_MOST
from scp.daemon.health import Health
from scp.daemon.sockets import bind
from scp.observing.metrics import Metrics
from scp.settings.sections import HttpSettings

log = structlog.get_logger(__name__)

# For the head of a request, from the connection or the last answer on, in seconds.
HEAD_SECONDS = 10.0
# For a peer to take more of an answer that is being written to it, in seconds.
ANSWER_SECONDS = 30.0
# For answers that are being written when the daemon stops, in seconds.
GRACE_SECONDS = 5
# When accept() fails for want of descriptors or memory, how long to wait for some, in seconds.
BREATHER = 1.0
# How often the server gives a sign of life, in seconds.
BEAT_SECONDS = 1
# Of the connections, one in so many is kept for whoever watches the daemon.
WATCHED_PART = 8
# Threads that look at health and metrics, apart from those of all other requests.
WATCHING_THREADS = 4
SERVICE_UNAVAILABLE = 503
# What Prometheus asks for (prometheus.io/docs/instrumenting/exposition_formats).
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"

LIVE, READY, METRICS = "/health/live", "/health/ready", "/metrics"
WATCHING = frozenset((LIVE, READY, METRICS))


def watching(health: Callable[[], Health], metrics: Metrics) -> list[BaseRoute]:
    """Return the routes /health/live, /health/ready and /metrics."""
    threads = CapacityLimiter(WATCHING_THREADS)

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


class HttpServer:
    """Serves routes in a thread. Raises OSError where its address cannot be bound.

    `connections`: how many there may be at one time.
    """

    def __init__(
        self,
        settings: HttpSettings,
        routes: Sequence[BaseRoute],
        connections: int = HTTP_MOST,
        workers: Supervisor | None = None,
    ) -> None:
        self._socket: socket.socket = bind(settings.host, settings.port, "http.")
        self._socket.setblocking(False)
        most = connections - max(1, connections // WATCHED_PART)
        self._app = _Bounded(Starlette(routes=list(routes)), most)
        self._connections = connections
        self._server: _Server | None = None
        self._worker = (workers or Supervisor()).add("http", self._run)

    def start(self) -> tuple[str, int]:
        """Serve; return the address bound."""
        host, port = self._socket.getsockname()[:2]
        self._worker.start()
        return host, port

    def stop(self) -> None:
        """Finish running answers, and end."""
        self._worker.stopping.set()
        if self._server:
            self._server.should_exit = True
        self._worker.stop()
        self._socket.close()

    def _run(self) -> None:
        self._server = _Server(self._app, self._socket, self._connections, self._beat)
        if not self._worker.stopping.is_set():
            self._server.run()

    async def _beat(self) -> None:
        self._worker.beat()


class _Bounded:
    """Answers at most so many requests at one time, and 503 beyond; those that watch the daemon always."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in WATCHING:
            await self._app(scope, receive, send)
        elif self._running >= self._most:
            refusal = PlainTextResponse("too many requests at one time\n", SERVICE_UNAVAILABLE)
            await refusal(scope, receive, send)
        else:
            self._running += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._running -= 1


class _Connection(H11Protocol):
    """uvicorn's connection with deadlines for what the peer has to do."""

    def __init__(self, places: "_Places", *arguments: Any) -> None:
        super().__init__(*arguments)
        self._places = places
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_answered(self) -> bool:
        """Whether a request has been read whose answer is not written yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._places.taken[self] = None
        self._expect(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.is_answered:
            self._expect(None)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Also where the connection is being closed: a peer that takes nothing must not hold it open.
        self._expect(None if self.is_answered else HEAD_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect(ANSWER_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._expect(None if self.is_answered else HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._expect(None)
        self._places.leave(self)

    def cut(self) -> None:
        """End the connection at once, whatever it still has to say."""
        self.transport.abort()

    def _expect(self, seconds: float | None) -> None:
        """Cut the connection in so many seconds, unless told otherwise before; None: not at all."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self.cut)


class _Places:
    """The connections that there are, in the order in which they came. Used by one thread."""

    def __init__(self, number: int) -> None:
        self.taken: dict[_Connection, None] = {}
        self._number = number
        self._left = asyncio.Event()

    async def make_room(self) -> None:
        """Wait for a place; who has said nothing for longest gives up its own at once."""
        while len(self.taken) >= self._number:
            self._left.clear()
            silent = next((one for one in self.taken if not one.is_answered), None)
            if silent is not None:
                silent.cut()
            await self._left.wait()

    def leave(self, connection: _Connection) -> None:
        """Give a place back."""
        self.taken.pop(connection, None)
        self._left.set()


class _Server(uvicorn.Server):
    """uvicorn's server, for which we accept the connections: one at a time, and where there is a place."""

    def __init__(
        self, app: ASGIApp, listening: socket.socket, places: int, beat: Callable[[], Awaitable[None]]
    ) -> None:
        config = uvicorn.Config(
            app,
            http=_Connection,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
            callback_notify=beat,
            timeout_notify=BEAT_SECONDS,
        )
        super().__init__(config)
        self._listening = listening
        self._places = _Places(places)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept; uvicorn itself listens nowhere."""
        await super().startup(sockets or [])
        self._accepting = asyncio.create_task(self._accept())
        self._accepting.add_done_callback(self._accepted)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and finish running answers."""
        self._accepting.cancel()
        await super().shutdown(sockets)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        is_short = False
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listening)
            except ConnectionError:
                continue  # the caller has gone again
            except OSError as error:
                if not is_short:
                    log.error("http_accept_failed", error=str(error))  # noqa: TRY400  the reason says it all
                is_short = True
                await asyncio.sleep(BREATHER)
                continue
            is_short = False
            await self._places.make_room()
            try:
                await loop.connect_accepted_socket(self._connection, accepted)
            except OSError:
                accepted.close()  # the caller has gone again

    def _connection(self) -> _Connection:
        return _Connection(self._places, self.config, self.server_state, self.lifespan.state)

    def _accepted(self, task: asyncio.Task[None]) -> None:
        """End the server with its accepting, whatever ended that: nobody would come any more."""
        if not task.cancelled():
            log.error("http_accepting_failed", exc_info=task.exception())
            self.should_exit = True
