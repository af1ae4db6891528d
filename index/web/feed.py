"""The change feed over HTTP: `/changes?since=N&wait=S`, as JSON lines or as server-sent events."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, Protocol

import anyio.to_thread
import orjson
from anyio import CapacityLimiter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from index.errors import ChangesPruned, DatabaseFault, NotKept
from index.web.rights import Right, needs

if TYPE_CHECKING:
    from index.publication.feed import Entry

PATH = "/changes"
JSON_LINES, EVENTS = "application/x-ndjson", "text/event-stream"
BAD_REQUEST, GONE, SERVICE_UNAVAILABLE = 400, 410, 503

# Entries that are read and sent at one time.
PAGE = 500
# How long a request may wait for an entry, in seconds: less than proxies let a connection be silent.
LONGEST_WAIT = 60
# How often the feed is looked at while somebody waits, in seconds; one look is for all who wait.
LOOK_SECONDS = 0.25
# After how many silent seconds a line tells the reader of an event stream that all is well.
HEARTBEAT_SECONDS = 15.0
# Requests for the feed at one time.
READERS = 64
# Threads that read for them.
THREADS = 2
_LARGEST_NUMBER = 2**63 - 1


class Changes(Protocol):
    """What the feed needs of the index."""

    def changes(self, since: int = 0) -> "Iterator[Entry]":
        """Yield the entries behind a number."""

    def last_change(self) -> int:
        """Return the number of the last entry."""


class _Asked(NamedTuple):
    """What a request asks for: entries after `since`; to wait so long for the first, in seconds."""

    since: int
    wait: float


class Watch:
    """Tells those who wait that the feed has grown. It looks only while somebody waits."""

    def __init__(self, last_change: Callable[[], int], limiter: CapacityLimiter) -> None:
        self._last_change = last_change
        self._limiter = limiter
        self._last = 0
        self._waiting = 0
        self._grown = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def wait(self, since: int, seconds: float) -> bool:
        """Return whether there is an entry behind a number, at once or within so many seconds."""
        until = time.monotonic() + seconds
        self._waiting += 1
        try:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._look())
            while self._last <= since:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._grown.wait(), max(0.0, until - time.monotonic()))
                    continue
                return self._last > since
            return True
        finally:
            self._waiting -= 1

    async def _look(self) -> None:
        while self._waiting:
            # Where the database is away, the next look comes soon.
            with contextlib.suppress(NotKept, DatabaseFault):
                found = await anyio.to_thread.run_sync(self._last_change, limiter=self._limiter)
                if found != self._last:
                    self._last = found
                    self._grown.set()
                    self._grown = asyncio.Event()
            await asyncio.sleep(LOOK_SECONDS)


class FeedService:
    """Serves the change feed."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self._limiter = CapacityLimiter(THREADS)
        self._watch = Watch(changes.last_change, self._limiter)
        self._readers = 0

    def routes(self) -> list[BaseRoute]:
        """Return the route."""
        return [Route(PATH, needs(Right.READ, _refusal)(self._serve), methods=["GET"])]

    async def _serve(self, request: Request) -> Response:
        is_stream = EVENTS in request.headers.get("accept", "")
        media_type = EVENTS if is_stream else JSON_LINES
        if request.method == "HEAD":
            return Response(media_type=media_type)
        if self._readers >= READERS:
            return _refusal(SERVICE_UNAVAILABLE, f"{READERS} readers of the feed are served; try again")
        try:
            asked = _asked(request)
            if not is_stream and asked.wait:
                with self._counted():
                    await self._watch.wait(asked.since, asked.wait)
            first = await self._page(asked.since)
        except ValueError as error:
            return _refusal(BAD_REQUEST, str(error))
        except ChangesPruned as error:
            return _refusal(GONE, str(error))
        except (NotKept, DatabaseFault) as error:
            return _refusal(SERVICE_UNAVAILABLE, str(error))
        content = self._events(first, asked.since) if is_stream else self._lines(first)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(self._sent(content), headers=headers, media_type=media_type)

    async def _sent(self, content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        with self._counted():
            async for part in content:
                yield part

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    async def _page(self, since: int) -> "list[Entry]":
        def read() -> "list[Entry]":
            return list(islice(self._changes.changes(since), PAGE))

        return await anyio.to_thread.run_sync(read, limiter=self._limiter)

    async def _lines(self, page: "list[Entry]") -> AsyncIterator[bytes]:
        """Yield what there is, a line for each entry."""
        while page:
            yield b"".join(orjson.dumps(entry.row(), option=orjson.OPT_APPEND_NEWLINE) for entry in page)
            page = await self._page(page[-1].seq) if len(page) == PAGE else []

    async def _events(self, page: "list[Entry]", since: int) -> AsyncIterator[bytes]:
        """Yield what there is and what comes, as events of which the id is the number, until the reader goes.

        WHATWG HTML Section 9.2: a reader that connects again sends the last id. A reader so slow that what it
        wants is deleted meanwhile is told so by the event `pruned`.
        """
        while True:
            if page:
                since = page[-1].seq
                yield b"".join(b"id: %d\ndata: %b\n\n" % (one.seq, orjson.dumps(one.row())) for one in page)
            elif not await self._watch.wait(since, HEARTBEAT_SECONDS):
                yield b": nothing new\n\n"
                continue
            try:
                page = await self._page(since)
            except ChangesPruned as error:
                yield b"event: pruned\ndata: %b\n\n" % orjson.dumps({"error": str(error)})
                return
            except (NotKept, DatabaseFault):
                return  # the reader connects again


def _asked(request: Request) -> _Asked:
    """Return what a request asks for. Raises ValueError that names the parameter and what is allowed."""
    given = request.query_params
    if unknown := set(given) - {"since", "wait"}:
        raise ValueError(f"{min(unknown)[:100]!r}: no such parameter; allowed are since and wait")
    last_id = request.headers.get("last-event-id")
    since = _number("since", given.get("since", "0"), _LARGEST_NUMBER)
    if last_id:
        since = _number("Last-Event-ID", last_id, _LARGEST_NUMBER)
    return _Asked(since, _number("wait", given.get("wait", "0"), LONGEST_WAIT))


def _number(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(most)) and int(text) <= most):
        raise ValueError(f"{name} {text[:100]!r}: allowed is a whole number from 0 to {most}")
    return int(text)


def _refusal(status: int, why: str) -> Response:
    return JSONResponse({"error": why}, status)
