"""A proxy before an HTTP server that fails as it is told: each request has a connection of its own."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum


class Failure(Enum):
    """What the proxy does with a request."""

    NONE = "none"
    UNAVAILABLE = "503"
    FORBIDDEN = "403"
    HANG = "hang"
    # The server gets the request, and its answer is lost.
    CUT_ANSWER = "cut answer"


_ANSWERS = {Failure.UNAVAILABLE: b"503 Slow Down", Failure.FORBIDDEN: b"403 Forbidden"}


class FailingServer:
    """The proxy. `failure` may be changed at any time; `only`: which requests fail, by first line."""

    def __init__(self, server: str) -> None:
        host, port = server.removeprefix("http://").split(":")
        self._server = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.failure = Failure.NONE
        self.only: Callable[[str], bool] = lambda _: True
        # The first lines of the requests.
        self.requests: list[str] = []
        self._over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End; what hangs is let go."""
        self._over.set()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            head, body = _read_request(connection)
            if not head:
                return
            line = head.split(b"\r\n")[0].decode()
            self.requests.append(line)
            failure = self.failure if self.only(line) else Failure.NONE
            if failure in _ANSWERS:
                head = b"HTTP/1.1 %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                connection.sendall(head % _ANSWERS[failure])
            elif failure is Failure.HANG:
                while self.failure is Failure.HANG and not self._over.wait(0.05):
                    pass
            else:
                answer = self._ask(head, body)
                if failure is Failure.NONE:
                    connection.sendall(answer)

    def _ask(self, head: bytes, body: bytes) -> bytes:
        with socket.create_connection(self._server) as server:
            server.sendall(head + b"\r\nConnection: close\r\n\r\n" + body)
            answer = b"".join(iter(lambda: server.recv(1 << 20), b""))
        begin, _, rest = answer.partition(b"\r\n\r\n")
        lines = [line for line in begin.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join([*lines, b"Connection: close", b"", rest])


def _read_request(connection: socket.socket) -> tuple[bytes, bytes]:
    """Return the head, without its last line end, and the body."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            return b"", b""
        received += more
    head, _, body = received.partition(b"\r\n\r\n")
    headers = {
        name.lower(): value for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
    }
    size = int(headers.get(b"content-length", b"0"))
    parts = [body]
    while sum(map(len, parts)) < size:
        parts.append(connection.recv(1 << 20))
    kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join(kept), b"".join(parts)


@contextmanager
def failing(server: str) -> Iterator[FailingServer]:
    """Run such a proxy before the server at an address."""
    proxy = FailingServer(server)
    try:
        yield proxy
    finally:
        proxy.close()
