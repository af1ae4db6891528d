"""The HTTP server under load: its limits and deadlines, and monitoring beside them.

RFC 9112 Section 9.5: a server may close an idle connection, and has a time-out for it.
"""

import asyncio
import errno
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from scp.daemon.descriptors import HTTP_MAX, HTTP_MIN, Shares, shares
from scp.daemon.health import Health
from scp.daemon.http.application import Application
from scp.daemon.http.monitoring import monitoring_routes
from scp.daemon.http.server import HttpServer
from scp.observing.metrics import Metrics
from scp.settings.sections import HttpSettings
from support.daemon import Daemon, eventually, run

CONNECTIONS = 8
# One of the connections is kept for health and metrics.
MOST = 7
SECONDS = 120.0
LARGE = 64 * 1024 * 1024


class Served:
    """A server, and the requests that wait in it."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.waiting = 0

        def slow(_: Request) -> Response:
            self.waiting += 1
            self.go_on.wait(SECONDS)
            return PlainTextResponse("done")

        def large(_: Request) -> Response:
            return Response(bytes(LARGE))

        routes = [
            *monitoring_routes(lambda: Health("ok", {}), Metrics()),
            Route("/slow", slow),
            Route("/large", large),
        ]
        self.server = HttpServer(
            HttpSettings(port=0), lambda: Application(Starlette(routes=routes)), CONNECTIONS
        )
        self.address = self.server.start()
        assert 200 == self.get("/health/live")  # its thread has begun to accept

    def get(self, path: str) -> int:
        connection = http.client.HTTPConnection(*self.address, timeout=SECONDS)
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    def connect(self, sent: bytes = b"") -> socket.socket:
        connection = socket.create_connection(self.address, timeout=SECONDS)
        connection.sendall(sent)
        return connection


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served()
    yield made
    made.go_on.set()
    made.server.stop()


def is_closed(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1)
    except ConnectionError:
        return True


@pytest.mark.parametrize("sent", [b"", b"GET /health/live HTTP/1.1\r\nHost: x\r\n", b"POST / HTTP/1.1\r\n"])
def test_an_idle_connection_gives_way_to_a_new_one(sent: bytes, served: Served) -> None:
    with ExitStack() as silent:
        connections = [silent.enter_context(served.connect(sent)) for _ in range(CONNECTIONS * 5)]
        assert 200 == served.get("/health/ready")
        assert 200 == served.get("/metrics")
        # Those that came first are gone, as many as there were too many.
        assert all(map(is_closed, connections[: CONNECTIONS * 4]))


@pytest.mark.parametrize("dripping", [b"", b"x"])
def test_a_request_has_a_time_to_be_read(
    dripping: bytes, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where it comes byte by byte, and where a connection has been answered before."""
    monkeypatch.setattr("scp.daemon.http.connections.HEAD_SECONDS", 0.2)

    def is_closed_after_more(connection: socket.socket) -> bool:
        try:
            connection.sendall(dripping)
        except ConnectionError:
            return True
        connection.settimeout(0.01)
        try:
            return not connection.recv(1)
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    with served.connect(b"GET /x") as first:
        assert eventually(lambda: is_closed_after_more(first))
    with served.connect(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n") as second:
        assert second.recv(12) == b"HTTP/1.1 200"
        while b"ok\n" not in second.recv(4096):
            pass
        assert eventually(lambda: is_closed_after_more(second))


def test_health_and_metrics_beside_all_requests_that_may_run(served: Served) -> None:
    """More requests that take their time than there are threads for them, too."""
    with ExitStack() as busy:
        request = b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        connections = [busy.enter_context(served.connect(request)) for _ in range(MOST)]
        assert eventually(lambda: MOST == served.waiting)
        assert 503 == served.get("/slow")
        assert [200, 200, 200] == [served.get(path) for path in ("/health/live", "/health/ready", "/metrics")]
        served.go_on.set()
        assert [b"HTTP/1.1 200"] * MOST == [connection.recv(12) for connection in connections]
    assert 200 == served.get("/slow")


def test_a_peer_that_reads_no_answer_is_aborted(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scp.daemon.http.connections.ANSWER_SECONDS", 0.2)
    with served.connect(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"):
        assert served.server._server
        connections = served.server._server._open_connections
        assert eventually(lambda: bool(connections._open))
        assert eventually(lambda: not connections._open)


def test_an_answer_that_is_read_is_whole(served: Served) -> None:
    assert 200 == served.get("/large")


def test_without_descriptors_it_logs_that_once_and_goes_on(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncio's own accepting wrote 270,000 lines in 20 s (its loop goes on at EMFILE, backlog times)."""
    monkeypatch.setattr("scp.daemon.http.connections.ACCEPT_PAUSE", 0.01)
    real, times = asyncio.SelectorEventLoop.sock_accept, 0

    async def short(self: Any, listening: socket.socket) -> Any:
        nonlocal times
        times += 1
        if times <= 5:
            raise OSError(errno.EMFILE, "Too many open files")
        return await real(self, listening)

    with capture_logs() as logged:
        monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_accept", short)
        served.get("/health/live")  # the one that was waited for already
        assert 200 == served.get("/health/live")
    assert ["http_accept_failed"] == [event["event"] for event in logged]


def test_descriptors_are_kept_apart_for_dicom(start: Callable[..., Daemon]) -> None:
    """64 for all: 60 silent HTTP connections once took what DICOM needed, and SIGTERM was not heard."""
    daemon = start(prefix=("prlimit", "--nofile=64:64"))
    with ExitStack() as silent:
        for _ in range(60):
            silent.enter_context(socket.create_connection(tuple(daemon.http), timeout=SECONDS))
        assert 0 == run("echoscu", daemon.host, str(daemon.port)).returncode
        connection = http.client.HTTPConnection(*daemon.http, timeout=SECONDS)
        connection.request("GET", "/health/ready")
        assert 200 == connection.getresponse().status
        assert 0 == daemon.stop()
    assert len(daemon.lines) < 50
    assert 8 == daemon.named("few_descriptors")[0]["associations"]


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (16, Shares(16, HTTP_MIN, 2)),
        (64, Shares(64, 8, 8)),
        (1024, Shares(1024, HTTP_MAX, 176)),
        (65536, Shares(65536, HTTP_MAX, 16304)),
    ],
)
def test_shares(total: int, expected: Shares) -> None:
    assert expected == shares(total)
    assert expected.http + 4 * expected.associations <= total


def test_what_is_relied_on_of_uvicorn() -> None:
    """Private names: another version of uvicorn may have others."""
    assert {
        "connection_made",
        "data_received",
        "on_response_complete",
        "pause_writing",
        "connection_lost",
    } <= set(vars(H11Protocol))
    assert {"response_complete"} <= set(RequestResponseCycle.__init__.__code__.co_names)
