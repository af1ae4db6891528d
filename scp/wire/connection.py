"""One socket with deadlines, one reused buffer, and a way to wake the thread that waits for it."""

import mmap
import os
import select
import socket
import ssl
from collections.abc import Callable
from math import ceil
from threading import Lock
from time import monotonic

from scp.wire.tls import describe_tls_error

# The most that is read at one time. It fits the processor's cache, and holds any PDU that must be whole (all
# except P-DATA-TF).
BUFFER_LENGTH = 256 * 1024

# After so many seconds without data the buffer's memory is given back to the system.
RELEASE_AFTER = 1.0

# Raised where an operation would block; TLS may have to write before it reads, and the other way round.
_WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Closed(Exception):
    """Raised when the peer has closed the connection, or it is broken."""


class DeadlineExceeded(Exception):
    """Raised when the deadline has passed."""


class Interrupted(Exception):
    """Raised when another thread has called `interrupt`."""


class Connection:
    """A connection, used by one thread. Other threads may call `wake` and `interrupt`.

    Deadlines are times of `time.monotonic`. `received` is what has been read of it already. `before_wait` is
    called before the thread waits for the peer to send; `is_over`, where it is given, each second while it
    does: once it says so, the wait is interrupted.
    """

    def __init__(
        self,
        connection: socket.socket,
        received: bytes = b"",
        before_wait: Callable[[], None] = lambda: None,
        is_over: Callable[[], bool] | None = None,
    ) -> None:
        connection.setblocking(False)
        self._socket = connection
        # Anonymous memory takes no room until it is used, and it can be given back.
        self._memory = mmap.mmap(-1, BUFFER_LENGTH)
        self._view = memoryview(self._memory)
        self._start, self._end = 0, len(received)
        self._view[: self._end] = received
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._wake_lock = Lock()
        self._interrupted = False
        self._before_wait = before_wait
        self._is_over = is_over
        # Whether the peer may wait for a TCP acknowledgement; what we send carries one.
        self._owes_acknowledgement = False
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def start_tls(
        self, context: ssl.SSLContext, deadline: float, *, server_side: bool = True
    ) -> ssl.SSLSocket:
        """Do the TLS handshake; return the socket. Raises Closed, DeadlineExceeded, Interrupted."""
        try:
            secured = context.wrap_socket(
                self._socket, server_side=server_side, do_handshake_on_connect=False
            )
        except OSError as error:
            raise Closed(describe_tls_error(error)) from error
        self._socket = secured
        while True:
            try:
                secured.do_handshake()
            except ssl.SSLWantReadError:
                self._sleep(deadline)
            except ssl.SSLWantWriteError:
                self._wait_writable(deadline)
            except OSError as error:
                raise Closed(describe_tls_error(error)) from error
            else:
                return secured

    @property
    def has_data(self) -> bool:
        """Whether there are bytes in the buffer."""
        return self._end > self._start

    def is_readable(self) -> bool:
        """Whether bytes, or the end of the connection, can be read without waiting."""
        return self.has_data or self._receive() is not None

    def wait(self, deadline: float) -> bool:
        """Wait for bytes. Returns False when woken. Raises Closed, DeadlineExceeded, Interrupted."""
        while not self.has_data:
            if self._receive() is None and not self._sleep(deadline):
                return False
        return True

    def read_exactly(self, count: int, deadline: float) -> memoryview:
        """Return the next `count` bytes, at most BUFFER_LENGTH; valid until the next call."""
        if self._start + count > BUFFER_LENGTH:
            rest = bytes(self._view[self._start : self._end])
            self._start, self._end = 0, len(rest)
            self._view[: self._end] = rest
        while self._end - self._start < count:
            if self._receive() is None:
                self._sleep(deadline)
        return self._consume(count)

    def read_some(self, most: int, deadline: float) -> memoryview:
        """Return 1 to `most` bytes; valid until the next call."""
        while not self.has_data:
            if self._receive() is None:
                self._sleep(deadline)
        return self._consume(min(most, self._end - self._start))

    def send(self, data: bytes | memoryview, deadline: float) -> None:
        """Send all of `data`. Raises Closed, also when the peer reads nothing until the deadline."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
                self._owes_acknowledgement = False
            except _WOULD_BLOCK:
                self._wait_writable(deadline)
            except OSError as error:
                raise Closed(str(error)) from error

    def wake(self) -> None:
        """Wake the thread that waits. Called from any thread."""
        with self._wake_lock:
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def interrupt(self) -> None:
        """Let the thread that waits, or will wait next, raise Interrupted. Called from any thread."""
        self._interrupted = True
        self.wake()

    def close_gracefully(self, seconds: float) -> None:
        """Send no more, wait at most `seconds` until the peer closes, and close. What comes is dropped.

        Closing at once would reset the connection of a peer that is still sending: it could lose what was
        sent last.
        """
        try:
            self._socket.shutdown(socket.SHUT_WR)
            deadline = monotonic() + seconds
            while monotonic() < deadline:
                self._start = self._end = 0
                if self._receive() is None and not self._sleep(deadline):
                    break  # woken
        except (Closed, DeadlineExceeded, Interrupted, OSError):
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close the connection and free the buffer. Further calls do nothing."""
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
        """Read what has arrived into the buffer; return its length, None when nothing has arrived."""
        if self._start == self._end:
            self._start = self._end = 0
        try:
            count = self._socket.recv_into(self._view[self._end :])
        except _WOULD_BLOCK:
            return None
        except OSError as error:
            raise Closed(str(error)) from error
        if not count:
            raise Closed("closed by the peer")
        self._end += count
        self._owes_acknowledgement = True
        return count

    def _acknowledge(self) -> None:
        # A sender with Nagle's algorithm on holds back its last segment until it is acknowledged, which Linux
        # delays by 40 ms. The kernel resets the option, so it is set before each wait.
        if self._owes_acknowledgement:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
            self._owes_acknowledgement = False

    def _sleep(self, deadline: float) -> bool:
        """Wait until there is something to read. Returns False when woken."""
        self._before_wait()
        if self._interrupted:
            raise Interrupted
        self._acknowledge()
        left = deadline - monotonic()
        ready = self._poll.poll(max(0, ceil(min(left, RELEASE_AFTER) * 1000)))
        if not ready and left > RELEASE_AFTER:
            if not self.has_data:
                self._memory.madvise(mmap.MADV_DONTNEED)
            ready = self._poll_on(deadline)
        woken = any(descriptor == self._wake for descriptor, _ in ready)
        if woken:
            os.eventfd_read(self._wake)
        if self._interrupted:
            raise Interrupted
        if not ready:
            raise DeadlineExceeded
        return not woken

    def _poll_on(self, deadline: float) -> list[tuple[int, int]]:
        """Wait until there is something to read, or until it is over. Raises Interrupted."""
        while True:
            if self._is_over and self._is_over():
                raise Interrupted
            left = deadline - monotonic()
            ready = self._poll.poll(max(0, ceil(min(left, RELEASE_AFTER if self._is_over else left) * 1000)))
            if ready or left <= RELEASE_AFTER or not self._is_over:
                return ready

    def _wait_writable(self, deadline: float) -> None:
        room = select.poll()
        room.register(self._socket, select.POLLOUT)
        if self._interrupted or not room.poll(max(0, ceil((deadline - monotonic()) * 1000))):
            raise Closed("the peer reads nothing")
