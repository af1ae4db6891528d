"""Responses of DICOMweb, and the threads that read the index and objects for them."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio import CapacityLimiter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from index.web.dicomweb.formats.media_types import BadMediaType, MediaType, accepted

BAD_REQUEST, NOT_FOUND, NOT_ACCEPTABLE = 400, 404, 406
SERVICE_UNAVAILABLE = 503
# Threads that read for DICOMweb. A thread is held while bytes are read, never while they are sent.
THREADS = 4
_END = b""

T = TypeVar("T")


class Refused(Exception):
    """A request is not carried out: the status of its response, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def refusal(error: Refused) -> Response:
    """Return the response to a request that is not carried out."""
    return PlainTextResponse(f"{error}\n", error.status)


class Threads:
    """Runs what blocks in threads, so many at one time."""

    def __init__(self, count: int = THREADS) -> None:
        self._limiter = CapacityLimiter(count)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Return what a function returns that blocks."""
        return await anyio.to_thread.run_sync(partial(function, *arguments), limiter=self._limiter)


class BlocksResponse(StreamingResponse):
    """Streams what an iterator yields that blocks; it is closed in any case, when the peer is gone too.

    An error of the iterator ends the connection within the body: the peer sees that it is not whole.
    """

    def __init__(
        self,
        threads: Threads,
        blocks: Iterator[bytes],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._threads = threads
        self._blocks = blocks
        super().__init__(self._read(), headers=headers, media_type=media_type)

    async def _read(self) -> AsyncIterator[bytes]:
        while block := await self._threads.run(next, self._blocks, _END):
            yield block

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; to HEAD its headers alone, so that nothing is read."""
        try:
            if scope["method"] == "HEAD":
                start = {"type": "http.response.start", "status": self.status_code}
                await send({**start, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b""})
            else:
                await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._threads.run(_close, self._blocks)


def _close(blocks: Iterator[bytes]) -> None:
    close = getattr(blocks, "close", None)
    if close:
        close()


def accepted_by(request: Request) -> list[MediaType]:
    """Return the media types that a user agent accepts. Raises Refused."""
    try:
        return accepted(request.headers.getlist("accept"), request.query_params.getlist("accept"))
    except BadMediaType as error:
        raise Refused(BAD_REQUEST, f"Accept: {error}") from error


def warnings(service: str, texts: list[str]) -> dict[str, str]:
    """Return the header Warning (PS3.18 Section 8.3.4.2, RFC 7234 Section 5.5)."""
    return {"warning": ", ".join(f"299 {service}: {text}" for text in texts)} if texts else {}
