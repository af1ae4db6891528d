"""A data set's bytes, a window of them at a time, so that what nobody wants is never read."""

import zlib
from collections.abc import Callable

from index.dicom.scanning.encodings import Garbled

More = Callable[[int, int], bytes]

# One pread, in bytes: far more than the elements between two large private ones, far less than pixel data.
WINDOW = 16 * 1024
# Bytes that a deflated data set may grow to before we stop. Headers are kB; a bomb grows a thousandfold.
INFLATE_LIMIT = 16 * 1024 * 1024
_INFLATE_STEP = 64 * 1024  # bytes of output at a time
# Elements and items that one data set may make us look at: some 0.1 s of work. A CT has 250.
ELEMENT_LIMIT = 100_000
_UNKNOWN = 1 << 62  # bytes; more than any data set has
_RAW_DEFLATE = -zlib.MAX_WBITS  # PS3.5 Section A.5: no zlib header


class Window:
    """Random access by offset. `data` holds the bytes from `base` on; `size` is the total, in bytes.

    Reads forward mostly. `more(offset, n)` gives n bytes, fewer only at the end; it may raise OSError.
    """

    __slots__ = ("_head", "_more", "base", "budget", "data", "size")

    def __init__(self, head: bytes, more: More | None = None, size: int | None = None) -> None:
        self._head = self.data = head
        self._more = more
        self.base = 0
        self.budget = ELEMENT_LIMIT
        self.size = len(head) if size is None else size

    def load(self, offset: int, length: int) -> int:
        """Bring `length` bytes from `offset` on into `data`, as far as they exist; returns their place."""
        place = offset - self.base
        if place >= 0 and place + length <= len(self.data):
            return place
        if offset + length <= len(self._head) or self._more is None:
            self.base, self.data = 0, self._head
            return min(offset, len(self._head))
        self.base = offset
        wanted = max(0, min(max(length, WINDOW), self.size - offset))
        self.data = self._more(offset, wanted) if wanted else b""
        return 0

    def read(self, offset: int, length: int) -> bytes:
        """Give the bytes from `offset` on, fewer than `length` only at the end."""
        place = self.load(offset, length)
        return self.data[place : place + length]

    def spend(self, elements: int = 1) -> None:
        """Count elements that are looked at. Raises Garbled where they are too many."""
        self.budget -= elements
        if self.budget < 0:
            raise Garbled(f"it has more than {ELEMENT_LIMIT} elements")


def _format(start: bytes) -> tuple[int, str]:
    """Tell by its first two bytes how a data set is deflated, for zlib, and what is odd about that."""
    if start[0] & 0x0F == zlib.DEFLATED and not int.from_bytes(start, "big") % 31:  # RFC 1950 Section 2.2
        return zlib.MAX_WBITS, "The deflated data set has a zlib header"
    if start == b"\x1f\x8b":  # RFC 1952 Section 2.3.1
        return zlib.MAX_WBITS | 16, "The deflated data set has a gzip header"
    return _RAW_DEFLATE, ""


class Inflater:
    """The inflated bytes of a deflated data set, as far as they are asked for and INFLATE_LIMIT allows.

    `doubts` are what was odd so far.
    """

    def __init__(self, source: Window, offset: int = 0) -> None:
        self._source = source
        self._offset = offset
        self._pending = b""
        self._inflated = bytearray()
        form, odd = _format(source.read(offset, 2).ljust(2, b"\0"))
        self._decompressor = zlib.decompressobj(form)
        self._over = False
        self.doubts = [odd] if odd else []
        self.window = Window(b"", self.more, _UNKNOWN)  # the total shows at the end

    def more(self, offset: int, length: int) -> bytes:
        """Inflate up to `offset` + `length` and give those bytes; fewer at the end."""
        while not self._over and len(self._inflated) < offset + length:
            self._step()
        return bytes(self._inflated[offset : offset + length])

    def _step(self) -> None:
        if not self._pending:
            self._pending = self._source.read(self._offset, WINDOW)
            self._offset += len(self._pending)
        if not self._pending:
            self._stop("The deflated data set is cut short")
            return
        try:
            self._inflated += self._decompressor.decompress(self._pending, _INFLATE_STEP)
        except zlib.error:
            self._stop("The deflated data set is damaged")
            return
        self._pending = self._decompressor.unconsumed_tail
        if self._decompressor.eof:
            self._stop("")
        elif len(self._inflated) >= INFLATE_LIMIT:
            self._stop(f"The deflated data set inflates to more than {INFLATE_LIMIT} bytes")

    def _stop(self, doubt: str) -> None:
        self._over = True
        if doubt:
            self.doubts.append(doubt)
        self.window.size = len(self._inflated)
