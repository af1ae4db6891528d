"""The bytes of a data set, read one window at a time: elements that are not wanted are not read."""

import zlib
from collections.abc import Callable

from index.dicom.scanning.encodings import BrokenEncoding

More = Callable[[int, int], bytes]

# One pread, in bytes: far more than the elements between two large private ones, far less than pixel data.
WINDOW = 16 * 1024
# Bytes that are inflated of a data set at most. A header takes kB; a deflate bomb grows a thousandfold.
INFLATE_LIMIT = 16 * 1024 * 1024
_INFLATE_STEP = 64 * 1024  # bytes of output at a time
# Elements and items that are read of one data set at most: some 0.1 s of work. A CT has 250.
ELEMENT_LIMIT = 100_000
_UNKNOWN = 1 << 62  # bytes; larger than any data set
_RAW_DEFLATE = -zlib.MAX_WBITS  # PS3.5 Section A.5: no zlib header


class ByteWindow:
    """Random access by offset. `data` holds the bytes from `base` on; `size` is the total in bytes.

    `more(offset, n)` returns n bytes, fewer only at the end. It may raise OSError.
    """

    __slots__ = ("_head", "_more", "base", "budget", "data", "size")

    def __init__(self, head: bytes, more: More | None = None, size: int | None = None) -> None:
        self._head = self.data = head
        self._more = more
        self.base = 0
        self.budget = ELEMENT_LIMIT
        self.size = len(head) if size is None else size

    def load(self, offset: int, length: int) -> int:
        """Load up to `length` bytes from `offset` on into `data`; return their position in it."""
        position = offset - self.base
        if position >= 0 and position + length <= len(self.data):
            return position
        if offset + length <= len(self._head) or self._more is None:
            self.base, self.data = 0, self._head
            return min(offset, len(self._head))
        self.base = offset
        wanted = max(0, min(max(length, WINDOW), self.size - offset))
        self.data = self._more(offset, wanted) if wanted else b""
        return 0

    def read(self, offset: int, length: int) -> bytes:
        """Return the bytes from `offset` on, fewer than `length` only at the end."""
        position = self.load(offset, length)
        return self.data[position : position + length]

    def spend(self, elements: int = 1) -> None:
        """Count elements that are read. Raises BrokenEncoding above ELEMENT_LIMIT."""
        self.budget -= elements
        if self.budget < 0:
            raise BrokenEncoding(f"it has more than {ELEMENT_LIMIT} elements")


def _format(start: bytes) -> tuple[int, str]:
    """Return zlib's window bits for a data set by its first two bytes, and a doubt or nothing."""
    if start[0] & 0x0F == zlib.DEFLATED and not int.from_bytes(start, "big") % 31:  # RFC 1950 Section 2.2
        return zlib.MAX_WBITS, "The deflated data set has a zlib header"
    if start == b"\x1f\x8b":  # RFC 1952 Section 2.3.1
        return zlib.MAX_WBITS | 16, "The deflated data set has a gzip header"
    return _RAW_DEFLATE, ""


class Inflater:
    """A deflated data set, inflated as far as it is read, up to INFLATE_LIMIT. `doubts` names its faults."""

    def __init__(self, source: ByteWindow, offset: int = 0) -> None:
        self._source = source
        self._offset = offset
        self._pending = b""
        self._inflated = bytearray()
        window_bits, doubt = _format(source.read(offset, 2).ljust(2, b"\0"))
        self._decompressor = zlib.decompressobj(window_bits)
        self._over = False
        self.doubts = [doubt] if doubt else []
        self.window = ByteWindow(b"", self.more, _UNKNOWN)  # the size is known at the end

    def more(self, offset: int, length: int) -> bytes:
        """Inflate up to `offset` + `length`; return these `length` bytes, fewer at the end."""
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
