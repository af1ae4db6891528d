"""multipart/related bodies (RFC 2387, RFC 2046 Section 5.1): written part by part, read as they come."""

import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

# Bytes of the headers of one part.
HEADERS_LIMIT = 8192
# Characters of a boundary. RFC 2046 Section 5.1.1 allows 70, Orthanc's have 73.
BOUNDARY_LIMIT = 256


class BadMultipart(ValueError):
    """Raised where a body is not multipart, or ends within a part."""


class Part(NamedTuple):
    """A part begins: its headers, by lower-case name."""

    headers: Mapping[str, str]


class PartEnd(NamedTuple):
    """A part has ended."""


Event = Part | bytes | PartEnd


def new_boundary() -> str:
    """Return a boundary that no content has."""
    return secrets.token_hex(16)


def content_type(kind: str, boundary: str) -> str:
    """Return the Content-Type of a body whose parts are of this media type."""
    return f'multipart/related; type="{kind}"; boundary={boundary}'


def part_head(boundary: str, headers: Mapping[str, str]) -> bytes:
    """Return what stands before the content of a part."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"\r\n--{boundary}\r\n{lines}\r\n".encode("latin_1", "replace")


def closing(boundary: str) -> bytes:
    """Return the end of a body."""
    return f"\r\n--{boundary}--\r\n".encode()


def multipart(boundary: str, parts: Iterable[tuple[Mapping[str, str], Iterable[bytes]]]) -> Iterator[bytes]:
    """Yield a body of these parts."""
    for headers, content in parts:
        yield part_head(boundary, headers)
        yield from content
    yield closing(boundary)


class MultipartReader:
    """Reads a body as it comes: `feed` yields where parts begin and end, and their content between.

    No more of the body is kept than a boundary is long, or the headers of a part.
    """

    def __init__(self, boundary: str) -> None:
        """Raises BadMultipart where the boundary is not valid."""
        if not 0 < len(boundary) <= BOUNDARY_LIMIT or not boundary.isascii():
            raise BadMultipart(f"the boundary must have 1 to {BOUNDARY_LIMIT} ASCII characters")
        self._delimiter = b"\r\n--" + boundary.encode()
        # The first delimiter may stand at the very beginning.
        self._buffer = bytearray(b"\r\n")
        self._state = "preamble"

    @property
    def is_complete(self) -> bool:
        """Whether the closing delimiter has been read."""
        return self._state == "epilogue"

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield what the next bytes of the body tell. Raises BadMultipart."""
        self._buffer += data
        while True:
            if self._state in ("preamble", "content"):
                position = self._buffer.find(self._delimiter)
                if position < 0:
                    yield from self._content(max(0, len(self._buffer) - len(self._delimiter) + 1))
                    return
                yield from self._content(position)
                if self._state == "content":
                    yield PartEnd()
                del self._buffer[: len(self._delimiter)]
                self._state = "delimiter"
            elif self._state == "delimiter":
                if not self._begin():
                    return
            elif self._state == "headers":
                part = self._headers()
                if part is None:
                    return
                yield part
            else:
                self._buffer.clear()
                return

    def _content(self, length: int) -> Iterator[bytes]:
        """Take so many bytes off the buffer; yield them where they are of a part."""
        content = bytes(self._buffer[:length])
        del self._buffer[:length]
        if content and self._state == "content":
            yield content

    def _begin(self) -> bool:
        """Read the rest of a delimiter's line; return False where more bytes are needed."""
        if self._buffer.startswith(b"--"):
            self._state = "epilogue"
            return True
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > HEADERS_LIMIT:
                raise BadMultipart("a boundary is not followed by a new line")
            return False
        if self._buffer[:end].strip():
            raise BadMultipart("a boundary is not followed by a new line")
        # The line end stays: headers, or their absence, end with an empty line.
        del self._buffer[:end]
        self._state = "headers"
        return True

    def _headers(self) -> Part | None:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > HEADERS_LIMIT:
                raise BadMultipart(f"the headers of a part have more than {HEADERS_LIMIT} bytes")
            return None
        if end > HEADERS_LIMIT:
            raise BadMultipart(f"the headers of a part have more than {HEADERS_LIMIT} bytes")
        lines = bytes(self._buffer[:end]).decode("latin_1").split("\r\n")
        # The line end before a delimiter belongs to it, also where the content is empty.
        del self._buffer[: end + 4]
        self._state = "content"
        pairs = (line.partition(":") for line in lines if line.strip())
        return Part({name.strip().lower(): value.strip() for name, _, value in pairs})

    def end(self) -> None:
        """End the body. Raises BadMultipart where it ends too early."""
        if not self.is_complete:
            raise BadMultipart("the body ends before its closing boundary")
