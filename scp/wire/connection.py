"""Bytes under deadlines: one socket, one reused buffer, and a way to wake who waits for it."""

import mmap
import os
import select
import socket
import ssl
from math import ceil
from threading import Lock
from time import monotonic

from scp.wire.tls import describe

# What is read at one time. Fits the processor's cache, and spares system calls; any PDU that must be whole
# (all but P-DATA-TF) fits too.
BUFFER_LENGTH = 256 * 1024

# After so many seconds of silence the buffer's memory goes back to the system.
RELEASE_AFTER = 1.0

# TLS wants the other direction now and then (PS3.15 Annex B); plain sockets raise BlockingIOError.
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Closed(Exception):
    """The peer has closed the connection, or it is broken."""


class DeadlineExceeded(Exception):
    """The deadline has passed."""


class Interrupted(Exception):
    """Another thread wants the connection to end at once."""


class Connection:
    """A connection as one thread uses it. Only `wake` and `interrupt` may be called by others.

    Deadlines are times of `time.monotonic`. `received` is what somebody else has read of it already.
    """

    def __init__(self, connection: socket.socket, received: bytes = b"") -> None:
        connection.setblocking(False)
        self._socket = connection
        # Anonymous memory that is not touched costs nothing, and it can be given back.
        self._memory = mmap.mmap(-1, BUFFER_LENGTH)
        self._view = memoryview(self._memory)
        self._start, self._end = 0, len(received)
        self._view[: self._end] = received
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_lock = Lock()
        self._interrupted = False
        # Whether the peer may be waiting for our acknowledgement; what we send carries it.
        self._owes = False
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def secure(self, context: ssl.SSLContext, deadline: float) -> ssl.SSLSocket:
        """Shake hands for TLS, and return the socket for what it says of it. Raises Closed, Late, Cut."""
        try:
            secured = context.wrap_socket(self._socket, server_side=True, do_handshake_on_connect=False)
        except OSError as error:
            raise Closed(describe(error)) from error
        self._socket = secured
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                self._sleep(deadline)
            except ssl.SSLWantWriteError:
                self._await_room(deadline)
            except OSError as error:
                raise Closed(describe(error)) from error
            else:
                return secured

    @property
    def has_data(self) -> bool:
        """Tell whether bytes are waiting in the buffer."""
        return self._end > self._start

    def is_readable(self) -> bool:
        """Tell whether there is something to read at once: bytes, or the end of the connection."""
        return self.has_data or self._receive() is not None

    def wait(self, deadline: float) -> bool:
        """Wait for bytes. Returns False when woken instead. Raises Closed, Late, Cut."""
        while not self.has_data:
            if self._receive() is None and not self._sleep(deadline):
                return False
        return True

    def take(self, count: int, deadline: float) -> memoryview:
        """Return the next `count` bytes, which fit the buffer; valid until the next call."""
        if self._start + count > BUFFER_LENGTH:
            rest = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, len(rest)
            self._view[: self._end] = rest
        while self._end - self._start < count:
            if self._receive() is None:
                self._sleep(deadline)
        return self._consume(count)

    def some(self, most: int, deadline: float) -> memoryview:
        """Return some of the next `most` bytes, at least one; valid until the next call."""
        while not self.has_data:
            if self._receive() is None:
                self._sleep(deadline)
        return self._consume(min(most, self._end - self._start))

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of `data`. Raises Closed, also when the peer takes nothing until the deadline."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
                self._owes = False
            except _LATER:
                self._await_room(deadline)
            except OSError as error:
                raise Closed(str(error)) from error

    def wake(self) -> None:
        """Make the thread that waits look up. Called from any thread."""
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def interrupt(self) -> None:
        """Make the thread that waits, or that will wait, raise Interrupted. Called from any thread."""
        self._interrupted = True
        self.wake()

    def hang_up(self, seconds: float) -> None:
        """Say no more, throw away what still comes until the peer closes, for `seconds` at most, and close.

        Closing at once could take back what was said last, while the peer is still sending.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
            deadline = monotonic() + seconds
            while monotonic() < deadline:
                self._start = self._end = 0
                if self._receive() is None and not self._sleep(deadline):
                    break  # somebody is in a hurry
        except (Closed, DeadlineExceeded, Interrupted, OSError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection and give the buffer's memory back. Further calls do nothing."""
        self._memory.madvise(mmap.MADV_DONTNEED)
        with self._wake_lock:
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1
        self._socket.close()

    def _consume(self, count: int) -> memoryview:
        start = self._start
        self._start += count
        return self._view[start : self._start]

    def _receive(self) -> int | None:
        """Read what is there into the buffer; None when there is nothing yet."""
        if self._start == self._end:
            self._start = self._end = 0
        try:
            count = self._socket.recv_into(self._view[self._end :])
        except _LATER:
            return None
        except OSError as error:
            raise Closed(str(error)) from error
        if not count:
            raise Closed("closed by the peer")
        self._end += count
        self._owes = True
        return count

    def _acknowledge(self) -> None:
        # A sender with Nagle's algorithm on holds back its last segment until it has our acknowledgement,
        # which Linux would delay by 40 ms. The option wears off, so it is set whenever we are to wait.
        if self._owes:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self._owes = False

    def _sleep(self, deadline: float) -> bool:
        """Sleep until there is something to read. Returns False when woken instead."""
        if self._interrupted:
            raise Interrupted
        self._acknowledge()
        left = deadline - monotonic()
        ready = self._poll.poll(max(0, ceil(min(left, RELEASE_AFTER) * 1000)))
        if not ready and left > RELEASE_AFTER:
            if not self.has_data:
                self._memory.madvise(mmap.MADV_DONTNEED)
            left = deadline - monotonic()
            ready = self._poll.poll(max(0, ceil(left * 1000)))
        woken = any(descriptor == self._wake for descriptor, _ in ready)
        if woken:
            os.eventfd_read(self._wake)
        if self._interrupted:
            raise Interrupted
        if not ready:
            raise DeadlineExceeded
        return not woken

    def _await_room(self, deadline: float) -> None:
        room = select.poll()
        room.register(self._socket, select.POLLOUT)
        if self._interrupted or not room.poll(max(0, ceil((deadline - monotonic()) * 1000))):
            raise Closed("the peer takes nothing")
