"""The HL7 listener: messages over MLLP, each answered before the next (HL7 MLLP Release 1).

A thread for each connection: a hospital has a handful of them, which stay open for days.
"""

import contextlib
import ipaddress
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

import structlog

from index.errors import DatabaseFault
from index.orders.hl7.acknowledging import refuse
from index.orders.hl7.batch import messages
from index.orders.hl7.faults import BadMessage, Code
from index.supervisor import Supervisor

log = structlog.get_logger(__name__)

START, END = b"\x0b", b"\x1c\r"
# The first byte of END ends a message where its second follows, a line feed instead, or the next message: all
# of that is sent. Elsewhere it is a character of the text.
_END = re.compile(rb"\x1c(?=[\r\n\x0b])")
# Orders are some kB; 16 MiB leave room for embedded documents, and cost no more than that each.
MAX_MESSAGE = 16 * 1024 * 1024
# Interface engines hold a connection for each feed.
MAX_CONNECTIONS = 32
# From a message's first byte to its last, and for the answer to be taken.
MESSAGE_SECONDS = 30.0
# After an end without its second byte: so long it may be on its way.
END_SECONDS = 0.5
# Feeds are silent at night.
IDLE_SECONDS = 24 * 3600.0
_CHUNK = 64 * 1024
# A timeout of nothing would be none.
_LEAST_SECONDS = 0.001
_BACKLOG = 32

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Handle = Callable[[bytes], tuple[str, bytes]]


class Closed(Exception):
    """The connection is over: the text says why, empty where the peer closed it between messages."""


class Silent(Closed):
    """Nothing came in time."""


class TooLarge(Exception):
    """A message has ended that is larger than the limit; `head` is how it began."""

    def __init__(self, head: bytes) -> None:
        super().__init__(f"a message is larger than {MAX_MESSAGE} bytes")
        self.head = head


class Frames:
    """Cuts the bytes of a connection into frames. Bytes between frames are passed over, and said once.

    A start within a frame starts anew: what was cut off before it is never answered, and comes again.
    """

    def __init__(
        self, connection: socket.socket, idle: float = IDLE_SECONDS, message: float = MESSAGE_SECONDS
    ) -> None:
        self._connection = connection
        self._idle = idle
        self._message = message
        self._buffer = bytearray()
        self._has_said = False

    def next(self) -> bytes:
        """Return the content of the next frame. Raises Closed, TooLarge."""
        while (start := self._buffer.find(START)) < 0:
            self._pass_over(len(self._buffer))
            if not self._read(self._idle):
                raise Closed("")
        self._pass_over(start)
        del self._buffer[:1]
        deadline = time.monotonic() + self._message
        searched = 0
        while (end := self._end(searched)) < 0:
            searched = max(0, len(self._buffer) - 1)
            if len(self._buffer) > MAX_MESSAGE:
                self._refuse(deadline)
            if self._buffer.endswith(END[:1]):
                if self._is_all():
                    end = len(self._buffer) - 1
                    break
            elif not self._read(max(0.0, deadline - time.monotonic())):
                raise Closed("the connection ended within a message")
        content = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return content

    def _end(self, searched: int) -> int:
        """Return where the message ends, as far as it has come; what a new start cuts off is dropped."""
        while True:
            found = _END.search(self._buffer, searched)
            restart = self._buffer.find(START, searched, found.start() if found else len(self._buffer))
            if restart < 0:
                return found.start() if found else -1
            log.warning("hl7_message_cut_off", bytes=restart)
            del self._buffer[: restart + 1]
            searched = 0

    def _refuse(self, deadline: float) -> NoReturn:
        """Pass over a message that is too large, so that its sender reads the answer to it."""
        head = bytes(self._buffer[:_CHUNK])
        while True:
            found = _END.search(self._buffer)
            if self._buffer.find(START, 0, found.start() if found else len(self._buffer)) >= 0:
                raise Closed("a message that is too large is cut off by another one")
            if found:
                del self._buffer[: found.end()]
                raise TooLarge(head)
            del self._buffer[:-1]
            if not self._read(max(0.0, deadline - time.monotonic())):
                raise Closed("the connection ended within a message that is too large")

    def _is_all(self) -> bool:
        """Whether nothing follows an end without its second byte."""
        try:
            return not self._read(END_SECONDS)
        except Silent:
            return True

    def _pass_over(self, count: int) -> None:
        if not self._has_said and self._buffer[:count].strip():
            self._has_said = True
            log.warning("hl7_bytes_passed_over", bytes=count)
        del self._buffer[:count]

    def _read(self, seconds: float) -> bool:
        self._connection.settimeout(max(seconds, _LEAST_SECONDS))
        try:
            chunk = self._connection.recv(_CHUNK)
        except TimeoutError:
            raise Silent(f"silent for {seconds:.0f} s") from None
        except OSError as error:
            raise Closed(str(error.strerror)) from error
        self._buffer += chunk
        return bool(chunk)


class Listener:
    """Listens for HL7 messages and answers each with what `handle` returns, in a frame of its own."""

    def __init__(
        self,
        host: str,
        port: int,
        networks: Sequence[Network],
        handle: Handle,
        on_fatal: Callable[[DatabaseFault], None] = lambda _: None,
        workers: Supervisor | None = None,
    ) -> None:
        self._networks = networks
        self._handle = handle
        self._on_fatal = on_fatal
        self._connections: dict[socket.socket, threading.Thread] = {}
        self._lock = threading.Lock()
        self._worker = (workers or Supervisor()).add("hl7", self._accept)
        self._stopping = self._worker.stopping
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        self.address: tuple[str, int] = self._socket.getsockname()[:2]

    def start(self) -> None:
        """Begin to accept connections."""
        self._worker.start()

    def stop(self) -> None:
        """Accept no more, let running messages finish, and close every connection."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with self._lock:
            running = dict(self._connections)
        for connection in running:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RD)
        for thread in running.values():
            thread.join(MESSAGE_SECONDS)
        self._worker.stop(MESSAGE_SECONDS)

    def _accept(self) -> None:
        while True:
            try:
                with self._worker.waiting():
                    connection, address = self._socket.accept()
            except OSError as error:
                if self._stopping.is_set():
                    return
                # No descriptor free, or the peer is gone already: the next one may do better.
                log.warning("hl7_accept_failed", error=str(error.strerror))
                time.sleep(0.1)
                continue
            try:
                self._admit(connection, address[0])
            except Exception as error:  # noqa: BLE001  no thread to be had, or whatever one caller brings up
                log.warning("hl7_refused", address=address[0], reason=str(error))
                self._forget(connection)

    def _admit(self, connection: socket.socket, address: str) -> None:
        reason = self._refusal(address)
        if reason:
            log.warning("hl7_refused", address=address, reason=reason)
            connection.close()
            return
        thread = threading.Thread(target=self._serve, args=(connection, address), name="hl7", daemon=True)
        with self._lock:
            self._connections[connection] = thread
        thread.start()

    def _forget(self, connection: socket.socket) -> None:
        connection.close()
        with self._lock:
            self._connections.pop(connection, None)

    def _refusal(self, address: str) -> str:
        peer = ipaddress.ip_address(address.split("%", maxsplit=1)[0])
        mapped = getattr(peer, "ipv4_mapped", None) or peer
        if not any(mapped in network for network in self._networks if network.version == mapped.version):
            return "not of an allowed network ([worklist] hl7_networks)"
        with self._lock:
            return "too many connections" if len(self._connections) >= MAX_CONNECTIONS else ""

    def _serve(self, connection: socket.socket, address: str) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            frames = Frames(connection)
            while True:
                for answer in self._answers(frames, address):
                    connection.settimeout(MESSAGE_SECONDS)
                    connection.sendall(START + answer + END)
        except Closed as error:
            if str(error) and not self._stopping.is_set():
                log.warning("hl7_connection_closed", address=address, reason=str(error))
        except OSError as error:
            log.warning("hl7_connection_closed", address=address, reason=str(error))
        except DatabaseFault as fault:
            self._on_fatal(fault)
        finally:
            self._forget(connection)

    def _answers(self, frames: Frames, address: str) -> Iterator[bytes]:
        """Yield the answer to each message of the next frame. Raises Closed."""
        try:
            content = frames.next()
        except TooLarge as error:
            log.warning("hl7_refused", address=address, reason=str(error))
            yield refuse(error.head, BadMessage(Code.TOO_LONG, "MSH", str(error), reject=True))
            return
        for message in messages(content):
            yield self._handle(message)[1]
