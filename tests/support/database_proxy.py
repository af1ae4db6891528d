"""A TCP proxy before a PostgreSQL server, which lets connections fail as networks and servers do."""

import contextlib
import re
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

# What a client sends of a transaction's end (PostgreSQL, frontend/backend protocol: Query, Parse).
COMMIT = re.compile(rb"COMMIT", re.IGNORECASE)


class DatabaseProxy:
    """Hands connections on to `target`: a port of this machine, or a socket.

    `cuts`: how many connections are cut from now on when they send COMMIT, which the server gets or not.
    """

    def __init__(self, target: Path | int) -> None:
        self.target = target
        self.cuts = 0
        self.is_commit_sent = True
        self._goes_on = threading.Event()
        self._goes_on.set()
        self._lock = threading.Lock()
        # Servers of which nothing is handed on any more: the client is cut off.
        self._muted: set[socket.socket] = set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listening: socket.socket | None = None
        self.port = 0
        self.open()

    @classmethod
    def before(cls, url: str) -> "DatabaseProxy":
        """Return a proxy before a server of support.postgresql."""
        return cls(Path(url.rpartition("host=")[2]) / ".s.PGSQL.5432")

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database by way of the proxy."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def open(self) -> None:
        """Take connections, on the same port as before."""
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def close(self) -> None:
        """Refuse connections, and cut those that there are."""
        if self._listening:
            with contextlib.suppress(OSError):
                self._listening.shutdown(socket.SHUT_RDWR)
            self._listening.close()
            self._listening = None
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _close(*pair)

    def hang(self) -> None:
        """Swallow every byte from now on, until `go_on`; connections are still taken."""
        self._goes_on.clear()

    def go_on(self) -> None:
        """End `hang`. What was swallowed is lost: those connections never say anything again."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        self._goes_on.set()
        for pair in pairs:
            _close(*pair)

    def _accept(self, listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            server = self._connected()
            if server is None:
                _close(client)
                continue
            with self._lock:
                self._pairs.append((client, server))
            threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
            threading.Thread(target=self._to_client, args=(server, client), daemon=True).start()

    def _connected(self) -> socket.socket | None:
        try:
            if isinstance(self.target, int):
                return socket.create_connection(("127.0.0.1", self.target))
            server = socket.socket(socket.AF_UNIX)
            server.connect(str(self.target))
        except OSError:
            return None
        return server

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                if not self._goes_on.is_set():
                    continue
                if self._is_to_cut(data):
                    with self._lock:
                        self._muted.add(server)
                    if self.is_commit_sent:
                        server.sendall(data)
                        return  # the other thread cuts, when the server has answered
                    break
                server.sendall(data)
        _close(client, server)

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (data := server.recv(1 << 16)) and server not in self._muted:
                if self._goes_on.is_set():
                    client.sendall(data)
        with self._lock:
            self._muted.discard(server)
        _close(client, server)

    def _is_to_cut(self, data: bytes) -> bool:
        with self._lock:
            if not self.cuts or not COMMIT.search(data):
                return False
            self.cuts -= 1
            return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._goes_on.set()
        self.close()


def _close(*sockets: socket.socket) -> None:
    for one in sockets:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
