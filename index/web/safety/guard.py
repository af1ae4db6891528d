"""The guard: it stands before the application, and lets in what may come in."""

import time
from collections.abc import Callable, Container
from dataclasses import dataclass

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.hooks import ACTOR, Actor
from index.reception.received import Received
from index.web.rights import FORBIDDEN, Caller
from index.web.safety.callers import Callers
from index.web.safety.origins import Origins

log = structlog.get_logger(__name__)

# RFC 9110 Section 15.5.20: not for this server.
MISDIRECTED = 421
# Of a path in the log, in characters. A path holds UIDs and ids; what a query asks for is not logged.
_LOGGED_PATH = 300
# No page elsewhere may embed what we serve, and a browser must not guess its type.
_HEADERS = {"X-Content-Type-Options": "nosniff", "Cross-Origin-Resource-Policy": "same-origin"}


@dataclass(frozen=True, slots=True)
class Access:
    """A request that has been answered; `status` 0: it was not. `began` in ms since 1970.

    `received`: the instances that came with it. `is_whole`: the answer was sent to its end.
    """

    caller: str
    address: str
    method: str
    path: str
    query: bytes
    status: int
    began: int
    received: Received | None = None
    is_whole: bool = True


class Guard:
    """Refuses requests for other hosts and changes from foreign pages; says who calls; logs each access.

    Requests for `unguarded` paths go on as they are: monitoring. `on_access` is told of all others.
    """

    def __init__(
        self,
        app: ASGIApp,
        callers: Callers,
        origins: Origins,
        unguarded: Container[str] = (),
        on_access: Callable[[Access], None] = lambda _: None,
    ) -> None:
        self._app = app
        self._callers = callers
        self._origins = origins
        self._unguarded = unguarded
        self._on_access = on_access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in self._unguarded:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        caller = self._callers.identify(scope.get("client"), headers)
        scope.setdefault("state", {})["caller"] = caller
        client = scope.get("client")
        ACTOR.set(Actor(caller.name, client[0] if client else ""))
        access = _Access(scope, caller, send)
        try:
            await self._refuse_or_serve(scope, headers, receive, access.send)
        finally:
            self._on_access(access.log())

    async def _refuse_or_serve(self, scope: Scope, headers: Headers, receive: Receive, send: Send) -> None:
        app = self._app
        bound = (scope.get("server") or ("",))[0]
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._origins.answers_for(hosts[0], bound):
            said = hosts[0][:_LOGGED_PATH] if hosts else "none"
            app = PlainTextResponse(f"Host {said} is not ours; see http.hosts\n", MISDIRECTED)
        elif not self._origins.may_change(scope["method"], headers):
            app = PlainTextResponse("a page of another origin may change nothing here\n", FORBIDDEN)
        await app(scope, receive, send)


class _Access:
    """One request and its answer, for the log: who had what."""

    def __init__(self, scope: Scope, caller: Caller, send: Send) -> None:
        self._scope = scope
        self._caller = caller
        self._send = send
        self._began = time.perf_counter()
        self._at = time.time_ns() // 1_000_000
        self._status = 0
        self._bytes = 0
        self._is_whole = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        else:
            self._bytes += len(message.get("body", b""))
            self._is_whole = not message.get("more_body", False)
        await self._send(message)

    def log(self) -> Access:
        """Log it; return it."""
        client = self._scope.get("client")
        log.info(
            "http_access",
            caller=self._caller.name or None,
            address=client[0] if client else None,
            method=self._scope["method"],
            path=self._scope["path"][:_LOGGED_PATH],
            status=self._status or None,
            bytes=self._bytes,
            seconds=round(time.perf_counter() - self._began, 4),
        )
        return Access(
            self._caller.name,
            client[0] if client else "",
            self._scope["method"],
            self._scope["path"],
            self._scope.get("query_string", b""),
            self._status,
            self._at,
            self._scope["state"].get("received"),
            self._is_whole,
        )
