"""Responses of DICOMweb, and the threads that read the index and objects for them."""

import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple, TypeVar

import anyio
import anyio.to_thread
import structlog
from anyio import CapacityLimiter
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from index.errors import IndexFault, Unreadable
from index.web.dicomweb.formats.media_types import BadMediaType, MediaType, accepted

log = structlog.get_logger(__name__)

PARTIAL_CONTENT, NOT_MODIFIED = 206, 304
BAD_REQUEST, NOT_FOUND, NOT_ACCEPTABLE, RANGE_NOT_SATISFIABLE = 400, 404, 406, 416
SERVICE_UNAVAILABLE = 503
# Threads that read for DICOMweb. A thread is held while bytes are read, never while they are sent.
THREADS = 4
# Blocks are sent together up to so many bytes: a thread takes longer to be woken than to read a small object.
TOGETHER = 256 * 1024
# One range of bytes (RFC 9110 Section 14.1.2). Of several, all is sent, as Section 14.2 allows.
_RANGE = re.compile(r"bytes=(?=-?[0-9])([0-9]{0,18})-([0-9]{0,18})")

T = TypeVar("T")


class Refused(Exception):
    """A request is not carried out: the status of its response, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def refusal(error: Refused) -> Response:
    """Return the response to a request that is not carried out."""
    return PlainTextResponse(f"{error}\n", error.status)


@contextmanager
def reading() -> Iterator[None]:
    """Turn what pydicom and decoders raise for damaged bytes, errors of many kinds, into Unreadable."""
    try:
        yield
    except (IndexFault, OSError, Refused):
        raise
    except Exception as error:
        why = next(iter(str(error).splitlines()), "")
        raise Unreadable(f"the object cannot be read: {type(error).__name__} {why}") from error


class Threads:
    """Runs what blocks in threads, so many at one time."""

    def __init__(self, count: int = THREADS) -> None:
        self._limiter = CapacityLimiter(count)

    async def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Return what a function returns that blocks."""
        return await anyio.to_thread.run_sync(partial(function, *arguments), limiter=self._limiter)


class _CutOffError(Exception):
    """The body of a response that has begun cannot be ended."""


class BlocksResponse(StreamingResponse):
    """Streams what an iterator yields that blocks. `close` is called in any case, when the peer is gone too.

    An error of the iterator ends the connection within the body: the peer sees that it is not whole.
    """

    def __init__(
        self,
        threads: Threads,
        blocks: Iterator[bytes],
        media_type: str,
        headers: Mapping[str, str] | None = None,
        status: int = 200,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self._threads = threads
        self._blocks = blocks
        self._close_source = close
        self._fault: Exception | None = None
        self._first: bytes | None = None
        super().__init__(self._read(), status, headers, media_type)

    async def prepare(self) -> None:
        """Read the first bytes: a fault that comes before them has a status of its own."""
        try:
            self._first = await self._threads.run(self._next)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._threads.run(self._close)
            raise

    async def _read(self) -> AsyncIterator[bytes]:
        block = self._first if self._first is not None else await self._threads.run(self._next)
        self._first = None
        while block:
            yield block
            try:
                block = await self._threads.run(self._next)
            except Exception as error:
                log.warning("response_cut_off", reason=str(error) or type(error).__name__)
                raise _CutOffError from error

    def _next(self) -> bytes:
        """Return the next bytes, nothing at the end. What came before a fault is sent first."""
        if self._fault is not None:
            raise self._fault
        some: list[bytes] = []
        size = 0
        try:
            for block in self._blocks:
                some.append(block)
                size += len(block)
                if size >= TOGETHER:
                    break
        except Exception as error:
            if not size:
                raise
            self._fault = error
        return some[0] if len(some) == 1 else b"".join(some)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; to HEAD its headers alone, so that nothing is read."""
        try:
            if scope["method"] == "HEAD":
                start = {"type": "http.response.start", "status": self.status_code}
                await send({**start, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": b""})
            else:
                # Returning before the end of the body closes the connection.
                with contextlib.suppress(_CutOffError):
                    await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await self._threads.run(self._close)

    def _close(self) -> None:
        if close := getattr(self._blocks, "close", None):
            close()
        self._close_source()


class Content(NamedTuple):
    """A body whose size is known: `blocks` yields its bytes between two places; `tag` is its entity tag."""

    size: int
    blocks: Callable[[int, int], Iterator[bytes]]
    tag: str
    close: Callable[[], object]


def content_response(request: Request, threads: Threads, content: Content, media_type: str) -> Response:
    """Return the response with a content, or the range of it that is asked for. Raises Refused."""
    headers = {"etag": content.tag, "accept-ranges": "bytes"}
    start, stop = _span(request, content)
    headers["content-length"] = str(stop - start)
    status = 200
    if stop - start < content.size:
        status = PARTIAL_CONTENT
        headers["content-range"] = f"bytes {start}-{stop - 1}/{content.size}"
    return BlocksResponse(threads, content.blocks(start, stop), media_type, headers, status, content.close)


def _span(request: Request, content: Content) -> tuple[int, int]:
    """Return where the range begins and ends that is asked for; all where none is, or none that is valid."""
    found = _RANGE.fullmatch(request.headers.get("range", ""))
    if not found or request.headers.get("if-range", content.tag) != content.tag:
        return 0, content.size
    first, last = found.groups()
    if not first:
        start, stop = max(0, content.size - int(last or 0)), content.size
    else:
        start, stop = int(first), min(content.size, int(last) + 1 if last else content.size)
    if last and first and int(last) < int(first):
        return 0, content.size
    if start >= stop:
        raise Refused(RANGE_NOT_SATISFIABLE, f"it has {content.size} bytes")
    return start, stop


def is_known(request: Request, tag: str) -> bool:
    """Whether the user agent has what has this entity tag (RFC 9110 Section 13.1.2)."""
    given = {one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")}
    return bool(given & {tag, "*"})


def not_modified(tag: str) -> Response:
    """Return the response where the user agent has it already."""
    return Response(status_code=NOT_MODIFIED, headers={"etag": tag})


def accepted_by(request: Request) -> list[MediaType]:
    """Return the media types that a user agent accepts. Raises Refused."""
    try:
        return accepted(request.headers.getlist("accept"), request.query_params.getlist("accept"))
    except BadMediaType as error:
        raise Refused(BAD_REQUEST, f"Accept: {error}") from error


def warnings(service: str, texts: list[str]) -> dict[str, str]:
    """Return the header Warning (PS3.18 Section 8.3.4.2, RFC 7234 Section 5.5).

    No value of a header ends with a space (RFC 9110 Section 5.5).
    """
    return {"warning": ", ".join(f"299 {service}: {text.strip()}" for text in texts)} if texts else {}
