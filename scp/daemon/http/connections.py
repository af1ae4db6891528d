"""uvicorn with a limit of connections and with deadlines for peers.

uvicorn itself accepts every connection, and waits for ever for its first request and for a peer to read an
answer. Here the connection that has been idle for longest is closed for a new one, and monitoring is always
answered.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import structlog
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from scp.daemon.http.application import Application
from scp.daemon.http.monitoring import PATHS, SERVICE_UNAVAILABLE
from scp.wire.tls import certificate_subject

log = structlog.get_logger(__name__)

# For the head of a request, from the connection or the last answer on, in seconds.
HEAD_SECONDS = 10.0
# For so much more of a request's content, or its end, while we wait for it: one who sends a byte now and then
# must not hold a connection for ever. In seconds, some more than the index has for its own answer (408).
CONTENT_SECONDS = 40.0
CONTENT_BYTES = 16 * 1024
# For a peer to take more of an answer that is being written to it, in seconds.
ANSWER_SECONDS = 30.0
# For answers that are being written when the daemon stops, in seconds.
GRACE_SECONDS = 5
# When accept() fails because descriptors or memory have run out, how long to wait for some, in seconds.
ACCEPT_PAUSE = 1.0
# How often an idle server gives a sign of life, in seconds.
BEAT_SECONDS = 30
# How long one Date is used, in seconds (RFC 9110 Section 6.6.1). It is made when a request comes: the Date of
# an answer that takes longer is older.
DATE_SECONDS = 1.0
# One connection in so many is kept for monitoring.
MONITORING_PART = 8


class _RequestLimit:
    """Answers 503 where more than `most` requests run at one time; monitoring is always answered."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in PATHS:
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
    """uvicorn's connection with deadlines for the peer."""

    def __init__(
        self, open_connections: "_OpenConnections", set_date: Callable[[], None], *arguments: Any
    ) -> None:
        super().__init__(*arguments)
        self._open_connections = open_connections
        self._set_date = set_date
        self._timer: asyncio.TimerHandle | None = None
        # The request whose content is awaited, and how much of it has come since the deadline was set.
        self._awaited: object = None
        self._came = 0

    @property
    def subject(self) -> str | None:
        """The subject of the certificate that the peer has sent."""
        return certificate_subject(self.transport.get_extra_info("peercert"))

    @property
    def is_answering(self) -> bool:
        """Whether a request has been read whose answer is not written yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._open_connections.add(self)
        self._set_deadline(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        self._set_date()
        super().data_received(data)
        self._came += len(data)
        if self.is_answering and (
            self._came >= CONTENT_BYTES or not self.cycle.more_body or self._awaited is not self.cycle
        ):
            self._await_content()

    def _await_content(self) -> None:
        """Set a deadline for more content, where more is to come."""
        self._awaited, self._came = self.cycle, 0
        self._set_deadline(CONTENT_SECONDS if self.cycle.more_body else None, self._content_is_late)

    def _content_is_late(self) -> None:
        if self.flow.read_paused:  # the peer cannot send more before the application has taken this
            self._await_content()
        else:
            self.abort()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # Also where the connection is being closed: a peer that reads nothing must not hold it open.
        self._set_deadline(None if self.is_answering else HEAD_SECONDS)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._set_deadline(ANSWER_SECONDS)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.is_answering:
            self._await_content()
        else:
            self._set_deadline(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._set_deadline(None)
        self._open_connections.remove(self)

    def abort(self) -> None:
        """Close the connection at once, without what is still to be written."""
        self.transport.abort()

    def _set_deadline(self, seconds: float | None, then: Callable[[], None] | None = None) -> None:
        """Abort in so many seconds, or do `then`, unless another is set before; None: no deadline."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, then or self.abort)


class _OpenConnections:
    """The open connections, in the order in which they came. Used by one thread."""

    def __init__(self, most: int, subjects: dict[tuple[str, int], str]) -> None:
        self._open: dict[_Connection, None] = {}
        self._most = most
        self._subjects = subjects
        self._removed = asyncio.Event()

    async def make_room(self) -> None:
        """Wait until one more may be opened; the one that has been idle for longest is closed at once."""
        while len(self._open) >= self._most:
            self._removed.clear()
            idle = next((connection for connection in self._open if not connection.is_answering), None)
            if idle is not None:
                idle.abort()
            await self._removed.wait()

    def add(self, connection: _Connection) -> None:
        """Count a connection, and note the subject of its certificate."""
        self._open[connection] = None
        if connection.client and connection.subject:
            self._subjects[connection.client] = connection.subject

    def remove(self, connection: _Connection) -> None:
        """Count a connection no more."""
        self._open.pop(connection, None)
        if connection.client and connection.subject:
            self._subjects.pop(connection.client, None)
        self._removed.set()


class Server(uvicorn.Server):
    """uvicorn's server. It accepts one connection at a time, where there is room for one more."""

    def __init__(
        self,
        application: Application,
        listening: socket.socket,
        connections: int,
        beat: Callable[[], Awaitable[None]],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        most = connections - max(1, connections // MONITORING_PART)
        config = uvicorn.Config(
            _RequestLimit(application.app, most),
            http=_Connection,
            ws="none",
            log_config=None,
            access_log=False,
            lifespan="off",
            # It would take the word of whoever sends X-Forwarded-For from this machine.
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(config)
        self._beat = beat
        self._date_until = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._exiting = asyncio.Event()
        self._listening = listening
        self._open_connections = _OpenConnections(connections, application.subjects)
        self._tls = tls
        # Connections that have been accepted, and are not open yet.
        self._opening: set[asyncio.Task[None]] = set()
        self._may_open = asyncio.Semaphore(connections)

    def stop(self) -> None:
        """Finish running answers, and end. Called from any thread."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._exiting.set)

    async def main_loop(self) -> None:
        """Wait until it is to end; uvicorn's own loop wakes ten times a second."""
        self._loop = asyncio.get_running_loop()
        while not self.should_exit:
            await self._beat()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._exiting.wait(), BEAT_SECONDS)

    def _set_date(self) -> None:
        now = time.monotonic()
        if now >= self._date_until:
            self._date_until = now + DATE_SECONDS
            date = formatdate(usegmt=True).encode()
            self.server_state.default_headers = [(b"date", date), *self.config.encoded_headers]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept; uvicorn itself listens nowhere."""
        await super().startup(sockets or [])
        self._accepting = asyncio.create_task(self._accept())
        self._accepting.add_done_callback(self._on_accepting_ended)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more, and finish running answers."""
        self._accepting.cancel()
        await super().shutdown(sockets)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        is_failing = False
        while True:
            try:
                accepted, _ = await loop.sock_accept(self._listening)
            except ConnectionError:
                continue  # the caller has closed it
            except OSError as error:
                if not is_failing:
                    log.error("http_accept_failed", error=str(error))  # noqa: TRY400  the reason says it all
                is_failing = True
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            is_failing = False
            await self._open_connections.make_room()
            await self._may_open.acquire()
            opening = asyncio.create_task(self._open(accepted))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, accepted: socket.socket) -> None:
        """Open a connection; its TLS handshake holds up no other."""
        seconds = HEAD_SECONDS if self._tls else None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connection, accepted, ssl=self._tls, ssl_handshake_timeout=seconds
            )
        except OSError:  # the caller has closed it, or speaks no TLS
            accepted.close()
        finally:
            self._may_open.release()

    def _connection(self) -> _Connection:
        return _Connection(
            self._open_connections, self._set_date, self.config, self.server_state, self.lifespan.state
        )

    def _on_accepting_ended(self, task: asyncio.Task[None]) -> None:
        """End the server when it accepts no more, so that its thread is started again."""
        if not task.cancelled():
            log.error("http_accepting_failed", exc_info=task.exception())
            self.stop()
