"""Who may have what over HTTP: hosts, tokens, certificates, proxies, pages elsewhere."""

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from structlog.testing import capture_logs

from index import Right
from index.web.rights import caller_of, needs
from index.web.safety.origins import Origins
from index.web.safety.tokens import Tokens, check_tokens, new_token
from index.web.settings import AccessSettings
from scp.daemon.http.application import guarded
from scp.daemon.http.monitoring import LIVE
from scp.daemon.http.server import HttpServer
from scp.settings.http import HttpSettings
from support.daemon import eventually

SECONDS = 120.0


def routes() -> list[Route]:
    @needs(Right.READ)
    def read(request: Request) -> Response:
        return PlainTextResponse(caller_of(request).name)

    @needs(Right.WRITE)
    async def write(request: Request) -> Response:
        return PlainTextResponse(str(len(await request.body())))

    @needs(Right.OPERATE)
    def operate(_: Request) -> Response:
        return PlainTextResponse("done")

    return [
        Route("/read", read),
        Route("/write", write, methods=["POST"]),
        Route("/operate", operate, methods=["DELETE", "GET"]),
        Route(LIVE, lambda _: PlainTextResponse("ok")),
    ]


class Served:
    def __init__(self, **settings: object) -> None:
        self.settings = HttpSettings(port=0, **settings)
        self.server = HttpServer(self.settings, lambda: guarded(routes(), self.settings))
        self.address = self.server.start()

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, str, dict[str, str]]:
        connection = http.client.HTTPConnection(*self.address, timeout=SECONDS)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        return answer.status, text, {name.lower(): value for name, value in answer.getheaders()}

    def status(self, path: str, method: str = "GET", **headers: str) -> int:
        return self.ask(path, method, **headers)[0]


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    made: list[Served] = []

    def start(**settings: object) -> Served:
        made.append(Served(**settings))
        return made[-1]

    yield start
    for one in made:
        one.server.stop()


@pytest.mark.parametrize(
    ("local", "expected"),
    [("read", (200, 403, 403)), ("all", (200, 200, 200)), ("nothing", (401, 401, 401))],
)
def test_what_a_caller_on_this_machine_may_do(
    serve: Callable[..., Served], local: str, expected: tuple[int, ...]
) -> None:
    served = serve(local=local)
    found = served.status("/read"), served.status("/write", "POST"), served.status("/operate", "DELETE")
    assert expected == found
    assert 200 == served.status(LIVE)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", 200),
        ("localhost:8104", 200),
        ("LOCALHOST.", 200),
        ("[::1]:1", 200),
        ("pacs.example.org", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("10.0.0.1", 421),
    ],
)
def test_only_requests_for_our_hosts_are_answered(
    serve: Callable[..., Served], host: str, expected: int
) -> None:
    """A page elsewhere whose name leads here (DNS rebinding) sends its own name."""
    served = serve(hosts=["pacs.example.org"])
    assert expected == served.status("/read", Host=host)
    assert 200 == served.status(LIVE, Host=host)


def test_the_public_url_names_a_host() -> None:
    origins = Origins(AccessSettings(public_url="https://Pacs.Example.org/imaging"))
    assert origins.answers_for("pacs.example.org", "")
    assert origins.answers_for("10.1.2.3:8104", "10.1.2.3")
    assert not origins.answers_for("10.1.2.4:8104", "10.1.2.3")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "https://viewer.example.org"}, 200),
        ({"Origin": "http://localhost:1", "Host": "localhost:1"}, 200),
        ({"Origin": "http://localhost:2", "Host": "localhost:1"}, 403),
    ],
)
def test_a_page_of_another_origin_changes_nothing(
    serve: Callable[..., Served], headers: dict[str, str], expected: int
) -> None:
    served = serve(local="all", cors_origins=["https://viewer.example.org"])
    assert expected == served.status("/write", "POST", **headers)


def test_cors_is_for_the_origins_configured(serve: Callable[..., Served]) -> None:
    served = serve(cors_origins=["https://viewer.example.org"])
    _, _, headers = served.ask("/read", Origin="https://viewer.example.org")
    assert "https://viewer.example.org" == headers["access-control-allow-origin"]
    _, _, headers = served.ask("/read", Origin="https://evil.example")
    assert "access-control-allow-origin" not in headers
    preflight = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
    assert 200 == served.status("/read", "OPTIONS", Origin="https://viewer.example.org", **preflight)
    assert 400 == served.status("/read", "OPTIONS", Origin="https://evil.example", **preflight)


def test_a_token_has_its_rights_until_it_is_taken_back(serve: Callable[..., Served], tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    reader, line = new_token("reader", (Right.READ,))
    operator, other = new_token("operator", (Right.OPERATE,))
    file.write_text(f"# who has a token\n{line}\n{other}\nnonsense\n")
    served = serve(local="nothing", tokens=file)
    assert (200, "reader") == served.ask("/read", Authorization=f"Bearer {reader}")[:2]
    assert 403 == served.status("/read", Authorization=f"bearer {operator}")
    assert 200 == served.status("/operate", Authorization=f"bearer {operator}")
    for wrong in ("Bearer x", "Bearer", "Basic YTpi", f"Bearer {line}", "Bearer ü"):
        status, _, headers = served.ask("/read", Authorization=wrong.encode().decode("latin-1"))
        assert (401, 'Bearer realm="imagingstudyd"') == (status, headers["www-authenticate"])
    file.write_text(f"{other}\n")
    assert 401 == served.status("/read", Authorization=f"Bearer {reader}")
    file.unlink()
    assert 401 == served.status("/operate", Authorization=f"Bearer {operator}")


def test_a_wrong_token_is_worse_than_none(serve: Callable[..., Served]) -> None:
    assert 401 == serve(local="all").status("/read", Authorization="Bearer x")


def test_faulty_lines_are_named_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    token, line = new_token("a", (Right.READ,))
    file.write_text(f"{line}\n{line}\na:{token}\nb:read,fly:sha256${'0' * 64}\n")
    with pytest.raises(
        ValueError, match=r"tokens:2: a has a line already.*:3: not NAME.*:4: rights 'read,fly'"
    ) as e:
        check_tokens(file)
    assert token not in str(e.value)
    # Where the daemon runs already, the right lines count.
    assert "a" == getattr(Tokens(file).find(token), "name", None)


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Real-IP", "Via"])
def test_what_comes_through_an_unknown_proxy_is_not_local(serve: Callable[..., Served], header: str) -> None:
    assert 401 == serve(local="all").status("/read", **{header: "for=10.0.0.1"})


def test_a_proxy_says_who_calls(serve: Callable[..., Served]) -> None:
    proxy = {"addresses": ["127.0.0.1"], "header": "X-Remote-User", "rights": ["read", "write"]}
    served = serve(proxy=proxy, local="all")
    named = {"X-Remote-User": "anna", "X-Forwarded-For": "10.0.0.1"}
    assert (200, "anna") == served.ask("/read", **named)[:2]
    assert 200 == served.status("/write", "POST", **named)
    assert 403 == served.status("/operate", "DELETE", **named)
    assert 401 == served.status("/read")
    assert 401 == served.status("/read", **{"X-Remote-User": ""})


def test_each_access_is_logged_without_what_it_asked_for(serve: Callable[..., Served]) -> None:
    served = serve()
    with capture_logs() as logs:
        served.ask("/read?PatientName=DOE^JOHN")
        served.ask("/operate", "DELETE")
        assert eventually(lambda: 2 == len([one for one in logs if one["event"] == "http_access"]))
    assert "DOE" not in json.dumps(logs)
    found = [(one["caller"], one["method"], one["path"], one["status"]) for one in logs]
    assert [("local", "GET", "/read", 200), ("local", "DELETE", "/operate", 403)] == found


def test_nothing_is_embedded_or_guessed(serve: Callable[..., Served]) -> None:
    _, _, headers = serve().ask("/read")
    assert ("nosniff", "same-origin") == (
        headers["x-content-type-options"],
        headers["cross-origin-resource-policy"],
    )


def test_content_has_a_time_to_come(serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scp.daemon.http.connections.CONTENT_SECONDS", 0.2)
    served = serve(local="all")
    connection = http.client.HTTPConnection(*served.address, timeout=SECONDS)
    connection.putrequest("POST", "/write")
    connection.putheader("Content-Length", "10")
    connection.endheaders(b"half")
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.getresponse()
    connection.close()


def test_content_that_trickles_is_not_waited_for(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then holds no connection for ever."""
    monkeypatch.setattr("scp.daemon.http.connections.CONTENT_SECONDS", 0.5)
    served = serve(local="all")
    head = b"POST /write HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n"

    with socket.create_connection(served.address) as connection:
        connection.sendall(head)
        connection.settimeout(0.02)

        def is_closed_after_more() -> bool:
            try:
                connection.sendall(b"x")
                return not connection.recv(1)
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        assert eventually(is_closed_after_more)


def test_callers_are_known_by_their_certificates(serve: Callable[..., Served], tmp_path: Path) -> None:
    for name in ("server", "client"):
        made = (
            f"openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN={name}"
        )
        files = ["-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.pem"]
        subprocess.run([*made.split(), *files], check=True, capture_output=True)
    tls = {
        "certificate": tmp_path / "server.pem",
        "key": tmp_path / "server.key",
        "ca": tmp_path / "client.pem",
        "client_certificates": "optional",
    }
    served = serve(tls=tls, local="nothing", certificate_rights=["write", "read"])

    def ask(*certificate: Path) -> tuple[int, str]:
        context = ssl.create_default_context(cafile=str(tmp_path / "server.pem"))
        context.check_hostname = False
        if certificate:
            context.load_cert_chain(*certificate)
        connection = http.client.HTTPSConnection(*served.address, timeout=SECONDS, context=context)
        connection.request("GET", "/read")
        answer = connection.getresponse()
        found = answer.status, answer.read().decode()
        connection.close()
        return found

    assert (200, "commonName=client") == ask(tmp_path / "client.pem", tmp_path / "client.key")
    assert 401 == ask()[0]
    # One that speaks no TLS holds up nobody.
    silent = http.client.HTTPConnection(*served.address, timeout=SECONDS)
    silent.connect()
    assert 401 == ask()[0]
    silent.close()
