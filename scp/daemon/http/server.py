"""The server: its socket is bound before the daemon logs ready, its thread accepts.

Its thread imports the server's libraries, so that the daemon is ready sooner: until then a connection waits
in the socket's queue.
"""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from index import Supervisor
from scp.daemon.descriptors import HTTP_MAX
from scp.daemon.sockets import listen
from scp.settings.http import HttpSettings
from scp.wire.tls import server_context

if TYPE_CHECKING:
    from scp.daemon.http.application import Application
    from scp.daemon.http.connections import Server


class HttpServer:
    """Serves the application that `make` returns. Raises OSError where its address cannot be bound.

    `connections`: how many there may be at one time.
    """

    def __init__(
        self,
        settings: HttpSettings,
        make: "Callable[[], Application]",
        connections: int = HTTP_MAX,
        workers: Supervisor | None = None,
    ) -> None:
        self._socket: socket.socket = listen(settings.host, settings.port, "http.")
        self._socket.setblocking(False)
        self._make = make
        self._tls = server_context(settings.tls) if settings.tls else None
        self._connections = connections
        self._server: Server | None = None
        self._worker = (workers or Supervisor()).add("http", self._run)

    def start(self) -> tuple[str, int]:
        """Serve; return the address bound."""
        host, port = self._socket.getsockname()[:2]
        self._worker.start()
        return host, port

    def stop(self) -> None:
        """Finish running answers, and end."""
        self._worker.stopping.set()
        if self._server:
            self._server.stop()
        self._worker.stop()
        self._socket.close()

    def _run(self) -> None:
        from scp.daemon.http.connections import Server

        self._server = Server(self._make(), self._socket, self._connections, self._beat, self._tls)
        if not self._worker.stopping.is_set():
            self._server.run()

    async def _beat(self) -> None:
        self._worker.beat()
