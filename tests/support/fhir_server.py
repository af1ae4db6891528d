"""A FHIR server in memory that a test scripts: it does what servers do, and fails as they do."""

import itertools
import json
import re
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Resource = dict[str, Any]
RELEASES = {"dstu2": "1.0.2", "r4": "4.0.1", "r5": "5.0.0"}


@dataclass
class Request:
    """A request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def is_write(self) -> bool:
        return self.method != "GET"


@dataclass
class Response:
    """An answer. `half`: the connection is closed in its middle; `nothing`: before it."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    half: bool = False
    nothing: bool = False

    @property
    def content(self) -> bytes:
        if isinstance(self.body, bytes):
            return self.body
        return b"" if self.body is None else json.dumps(self.body).encode()


def outcome(text: str, code: str = "invalid") -> Resource:
    issue = {"severity": "error", "code": code, "diagnostics": text}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


class FhirServer:
    """Listens on loopback. `script` may answer a request itself; None: the server does.

    `renames`: it gives ids of its own. `transactions`: whether it says so, and takes them.
    """

    def __init__(
        self,
        version: str = "r4",
        *,
        renames: bool = False,
        transactions: bool = True,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.version = version
        self.renames = renames
        self.transactions = transactions
        self.resources: dict[str, Resource] = {}
        self.versions: dict[str, int] = {}
        self.requests: list[Request] = []
        self.script: Callable[[Request], Response | None] = lambda _: None
        self.at_once, self.most_at_once = 0, 0
        self._ids = itertools.count(1)
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/fhir"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def writes(self) -> list[Request]:
        return [one for one in self.requests if one.is_write]

    def of(self, kind: str) -> list[Resource]:
        return [one for key, one in sorted(self.resources.items()) if key.startswith(f"{kind}/")]

    def answer(self, request: Request) -> Response:
        with self._lock:
            self.requests.append(request)
        scripted = self.script(request)
        if scripted is not None:
            return scripted
        return self.itself(request)

    def itself(self, request: Request) -> Response:
        """Do what is asked, and answer as a server does."""
        with self._lock:
            return self._answer(request.method, request.path.removeprefix("/fhir").strip("/"), request)

    def lost(self, request: Request) -> Response:
        """Do what is asked; the answer is lost on its way."""
        self.itself(request)
        return Response(nothing=True)

    def _answer(self, method: str, path: str, request: Request) -> Response:
        if path == "metadata":
            return Response(200, self._capability())
        if method == "POST" and not path:
            return self._transaction(request.json) if self.transactions else Response(405, outcome("no"))
        if method == "GET":
            return self._read(path)
        if method == "DELETE":
            return Response(204 if self.resources.pop(path, None) else 404)
        return self._put(path, request.json, request.headers.get("if-match", ""))

    def _capability(self) -> Resource:
        codes = ["transaction", "batch"] if self.transactions else ["search-system"]
        rest: Resource = {"mode": "server", "interaction": [{"code": code} for code in codes]}
        kind = "CapabilityStatement"
        if self.version == "dstu2":
            kind, rest = "Conformance", {"mode": "server", "transactionMode": "both"}
        return {"resourceType": kind, "fhirVersion": RELEASES[self.version], "rest": [rest]} | {
            "software": {"name": "Scripted", "version": "1"}
        }

    def _read(self, path: str) -> Response:
        if "?" in path:
            found = [{"resource": one} for one in self._found(path)]
            return Response(200, {"resourceType": "Bundle", "type": "searchset", "entry": found})
        found = self.resources.get(path)
        return Response(200, found) if found else Response(404, outcome("unknown", "not-found"))

    def _found(self, path: str) -> list[Resource]:
        kind, _, query = path.partition("?")
        wanted = parse_qs(query)
        found = self.of(kind)
        for value in wanted.get("identifier", ()):
            system, _, number = re.sub(r"\\(.)", r"\1", value).partition("|")
            found = [
                one
                for one in found
                if any(
                    (i.get("system"), i.get("value")) == (system, number) for i in one.get("identifier", ())
                )
            ]
        for value in wanted.get("uid", ()):
            found = [one for one in found if one.get("uid") == value]
        return found

    def _put(self, path: str, resource: Resource, if_match: str) -> Response:
        kind, _, query = path.partition("?")
        if query:
            found = self._found(path)
            if len(found) > 1:
                return Response(412, outcome("several", "multiple-matches"))
            path = f"{kind}/{found[0]['id'] if found else next(self._ids)}"
        elif self.renames and path not in self.resources:
            path = f"{kind.partition('/')[0]}/s{next(self._ids)}"
        if if_match and if_match != f'W/"{self.versions.get(path, 0)}"':
            return Response(412, outcome("version conflict", "conflict"))
        is_new = path not in self.resources
        version = self.versions[path] = self.versions.get(path, 0) + 1
        self.resources[path] = {**resource, "id": path.partition("/")[2]}
        headers = {"Location": f"{self.url}/{path}/_history/{version}", "ETag": f'W/"{version}"'}
        return Response(201 if is_new else 200, None, headers)

    def _transaction(self, bundle: Resource) -> Response:
        before = dict(self.resources), dict(self.versions)
        answers, renamed = [], {}
        for entry in bundle["entry"]:
            request = entry["request"]
            made = self._put(unquote(request["url"]), entry["resource"], request.get("ifMatch", ""))
            if made.status >= 300:
                self.resources, self.versions = before
                return made
            location = made.headers["Location"].split("/fhir/")[1]
            name = "/".join(location.split("/")[:2])
            renamed[entry["fullUrl"]] = renamed[entry["fullUrl"].removeprefix(f"{self.url}/")] = name
            status = f"{made.status} Created"
            answers.append(
                {"response": {"status": status, "location": location, "etag": made.headers["ETag"]}}
            )
        for answer in answers:
            name = "/".join(answer["response"]["location"].split("/")[:2])
            self.resources[name] = _rewritten(self.resources[name], renamed)
        return Response(200, {"resourceType": "Bundle", "type": "transaction-response", "entry": answers})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def handle_one_request(self) -> None:
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

            def answer(self) -> None:
                length = int(self.headers.get("Content-Length", 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                parts = urlsplit(self.path)
                path = f"{parts.path}?{parts.query}" if parts.query else parts.path
                request = Request(self.command, path, headers, self.rfile.read(length))
                with server._lock:
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                try:
                    response = server.answer(request)
                finally:
                    with server._lock:
                        server.at_once -= 1
                self.write(response)

            def write(self, response: Response) -> None:
                if response.nothing:
                    self.close_connection = True
                    return
                content = response.content
                self.send_response(response.status)
                headers = {"Content-Type": "application/fhir+json", **response.headers}
                for name, value in {**headers, "Content-Length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if response.half else content)
                self.close_connection = self.close_connection or response.half

            do_GET = do_PUT = do_POST = do_DELETE = do_CONNECT = answer  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _rewritten(node: Any, renamed: dict[str, str]) -> Any:
    if isinstance(node, list):
        return [_rewritten(one, renamed) for one in node]
    if not isinstance(node, dict):
        return node
    new = {name: _rewritten(value, renamed) for name, value in node.items()}
    if new.get("reference") in renamed:
        new["reference"] = renamed[new["reference"]]
    return new
