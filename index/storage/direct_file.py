"""A large file, written past the page cache.

An image is written once, and read when somebody looks at it: copying it into the cache first would cost more
than all else that is done with it, and push out what others read. Linux writes aligned memory straight to the
disk (open(2), O_DIRECT); where a file system does not, the same writes go through the cache.
"""

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
from threading import Lock

from index.storage.durable import FILE_MODE

# Memory, offset and length are multiples of this; it is one of every disk's block sizes.
BLOCK = 4096
# What is written at one time, and so the memory of each object that arrives.
CHUNK = 1024 * 1024
# An end that is shorter goes through the cache, together with the last, broken block.
LEAST = 64 * 1024
# Buffers that are kept for the next object; each fresh one costs 256 page faults.
KEPT = 8


class _Buffers:
    """Aligned memory, used over and over."""

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []
        self._lock = Lock()

    def take(self) -> mmap.mmap:
        with self._lock:
            return self._free.pop() if self._free else mmap.mmap(-1, CHUNK)

    def give(self, buffer: mmap.mmap) -> None:
        with self._lock:
            if len(self._free) < KEPT:
                self._free.append(buffer)
                return
        buffer.close()


_buffers = _Buffers()


class DirectFile:
    """A file, new or empty, that is written from its start to its end. End it with `close` or `abandon`.

    `sha1` is of what is written so far; after `close` of all of it.
    """

    def __init__(self, path: str) -> None:
        """Open it, and create it where it is not there. Raises OSError."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, FILE_MODE)
        self._direct = True
        try:
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, os.O_DIRECT)
        except OSError:
            self._direct = False
        self._buffer: mmap.mmap | None = _buffers.take()
        self._filled = 0
        self.sha1 = hashlib.sha1(usedforsecurity=False)

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Append. Raises OSError."""
        rest = memoryview(content)
        while rest and self._buffer is not None:
            end = min(self._filled + len(rest), CHUNK)
            count = end - self._filled
            self._buffer[self._filled : end] = rest[:count]
            self._filled, rest = end, rest[count:]
            if end == CHUNK:
                self._write_out(CHUNK)

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes from an offset, fewer at the end; nothing can be appended any more. Raises OSError."""
        self._finish()
        return os.pread(self._descriptor, size, offset)

    def close(self, *, sync: bool) -> None:
        """Write what is left, sync the content where asked for, and close. Raises OSError."""
        self._finish()
        if sync:
            os.fdatasync(self._descriptor)
        self.abandon()

    def abandon(self) -> None:
        """Close, whatever is written. Does no harm when called again."""
        if self._buffer is not None:
            _buffers.give(self._buffer)
            self._buffer = None
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def _finish(self) -> None:
        if self._buffer is None:
            return
        if self._filled >= LEAST:
            self._write_out(self._filled // BLOCK * BLOCK)
        self._leave_direct()
        self._write_out(self._filled)
        _buffers.give(self._buffer)
        self._buffer = None

    def _write_out(self, count: int) -> None:
        """Write the buffer's first `count` bytes, and move what is behind them to its start."""
        assert self._buffer is not None  # noqa: S101  for the type checker
        with memoryview(self._buffer) as view:
            rest = view[:count]
            self.sha1.update(rest)
            while rest:
                rest = rest[self._write_some(rest) :]
            view[: self._filled - count] = bytes(view[count : self._filled])
        self._filled -= count

    def _write_some(self, content: memoryview) -> int:
        try:
            count = os.write(self._descriptor, content)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise
            count = 0  # larger blocks than ours
        if count % BLOCK or not count:
            self._leave_direct()
        return count

    def _leave_direct(self) -> None:
        if self._direct:
            self._direct = False
            fcntl.fcntl(self._descriptor, fcntl.F_SETFL, 0)
