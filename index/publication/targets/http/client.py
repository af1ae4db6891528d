"""HTTP to one target, within limits of time and size. Redirects to other servers are not followed."""

import contextlib
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import orjson

from index.publication.targets.http.authorization import Authorization, AuthorizationFailed, read
from index.publication.targets.settings import TargetSettings, credential

# Of one answer, in bytes. That to a transaction has some 300 for each resource.
LONGEST_ANSWER = 64 * 1024 * 1024
MOST_REDIRECTS = 3
# Those that keep method and body (RFC 9110 Section 15.4).
_SAME_METHOD = (307, 308)
_REDIRECTS = (301, 302, 303, *_SAME_METHOD)
_UNAUTHORIZED, _PROXY_UNAUTHORIZED = 401, 407

MEDIA_TYPES = {"dstu2": "application/json+fhir", "r4": "application/fhir+json", "r5": "application/fhir+json"}


class NoAnswer(Exception):
    """There was no whole answer. `is_reached`: a connection was there, so the request may be the reason."""

    def __init__(self, reason: str, *, is_reached: bool = False) -> None:
        super().__init__(reason)
        self.is_reached = is_reached


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    # Where a redirect leads that is not followed.
    redirect: str = ""

    @cached_property
    def resource(self) -> dict[str, Any] | None:
        """The resource in its body; None: there is none."""
        with contextlib.suppress(ValueError):
            found = orjson.loads(self.body)
            if isinstance(found, dict) and isinstance(found.get("resourceType"), str):
                return found
        return None

    @property
    def is_page(self) -> bool:
        """Whether it is a web page."""
        return "html" in self.headers.get("content-type", "").lower()


class TargetClient:
    """Requests to one target. Safe to use from many threads."""

    def __init__(self, settings: TargetSettings) -> None:
        self._settings = settings
        self._media_type = MEDIA_TYPES[settings.version]
        self._client: httpx.Client | None = None
        self._authorization = Authorization(settings, self._token_client)

    def request(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """Send a request, to a path below the target's address. Raises NoAnswer."""
        headers = {"Accept": self._media_type, **headers}
        if body:
            headers = {"Content-Type": self._media_type, **headers}
        url = f"{self._settings.url}/{path}" if path else self._settings.url
        answer = self._send(method, url, body, headers)
        if answer.status == _PROXY_UNAUTHORIZED:
            self._forget_proxy()
        if answer.status == _UNAUTHORIZED and self._authorization.refused():
            answer = self._send(method, url, body, headers)
        return answer

    def _forget_proxy(self) -> None:
        """Read how we are known to the proxy anew for the next request."""
        if self._settings.proxy_secret_file:
            self._client = None

    def close(self) -> None:
        """Close its connections."""
        if self._client:
            self._client.close()

    def _send(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        try:
            own = self._authorization.headers()
        except AuthorizationFailed as error:
            raise NoAnswer(str(error)) from error
        with as_no_answer(self._settings.timeout, self._forget_proxy):
            for _ in range(MOST_REDIRECTS):
                answer = self._exchange(method, url, body, {**headers, **own})
                if answer.status not in _REDIRECTS or "location" not in answer.headers:
                    return answer
                to = urljoin(url, answer.headers["location"])
                is_same = method in ("GET", "HEAD") or answer.status in _SAME_METHOD
                if _origin(to) != _origin(url) or not is_same:
                    parts = urlsplit(to)
                    return Answer(
                        answer.status, redirect=f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
                    )
                url = to
        raise NoAnswer("redirects in a circle", is_reached=True)

    def _exchange(self, method: str, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        for is_last in (False, True):
            try:
                with self._http().stream(method, url, content=body or None, headers=headers) as response:
                    return Answer(response.status_code, response.headers, self._read(response))
            except httpx.RemoteProtocolError as error:
                # The server had closed a connection that was kept: all that we send can be sent twice.
                if is_last or "without sending a response" not in str(error):
                    raise
        raise AssertionError

    def _read(self, response: httpx.Response) -> bytes:
        until = time.monotonic() + self._settings.timeout
        content = bytearray()
        for part in response.iter_bytes():
            content += part
            if len(content) > LONGEST_ANSWER:
                raise NoAnswer(f"its answer has more than {LONGEST_ANSWER} bytes", is_reached=True)
            if time.monotonic() > until:
                raise NoAnswer(_late(self._settings.timeout), is_reached=True)
        return bytes(content)

    def _http(self) -> httpx.Client:
        if self._client is None:
            self._client = self._new_client()
        return self._client

    def _token_client(self) -> httpx.Client:
        """Return what tokens are asked for with: the same authorities, certificate and proxy."""
        return self._http()

    def _new_client(self) -> httpx.Client:
        settings = self._settings
        limits = httpx.Limits(max_connections=settings.concurrency + 1, keepalive_expiry=30)
        return httpx.Client(
            verify=_tls(settings) if "https://" in f"{settings.url} {settings.token_url}" else False,
            timeout=httpx.Timeout(settings.timeout, connect=settings.connect_timeout),
            proxy=_proxy(settings),
            limits=limits,
            trust_env=False,
            follow_redirects=False,
        )


def _proxy(settings: TargetSettings) -> httpx.Proxy | None:
    """Return the proxy, and how we are known to it. Raises NoAnswer."""
    if not settings.proxy:
        return None
    try:
        known = read("proxy_secret_file", settings.proxy_secret_file) if settings.proxy_secret_file else ""
    except AuthorizationFailed as error:
        raise NoAnswer(str(error)) from error
    user, _, password = known.partition(":")
    return httpx.Proxy(settings.proxy, auth=(user, password) if known else None)


def _tls(settings: TargetSettings) -> ssl.SSLContext:
    """Return how servers are checked. Raises NoAnswer where a file cannot be used."""
    try:
        context = ssl.create_default_context(cafile=str(credential(settings.ca)) if settings.ca else None)
        if settings.certificate:
            context.load_cert_chain(credential(settings.certificate))
    except (OSError, ValueError) as error:
        name = settings.certificate if "context" in locals() else settings.ca
        raise NoAnswer(f"{name}: cannot be used: {error}") from error
    return context


def _late(seconds: float) -> str:
    return f"no whole answer within {seconds:g} s"


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


def _is_of_tls(error: BaseException | None) -> bool:
    """Whether an error comes from TLS, such as a server that wants a certificate."""
    while error and not isinstance(error, ssl.SSLError):
        error = error.__cause__ or error.__context__
    return error is not None


@contextlib.contextmanager
def as_no_answer(timeout: float, on_proxy: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Turn the errors of the HTTP library into NoAnswer; `on_proxy` is called where the proxy refuses."""
    try:
        yield
    except httpx.ConnectTimeout as error:
        raise NoAnswer("does not accept connections") from error
    except httpx.ConnectError as error:
        raise NoAnswer(f"cannot be reached: {error}") from error
    except httpx.ProxyError as error:
        on_proxy()
        raise NoAnswer(f"the proxy refuses: {error}") from error
    except httpx.TimeoutException as error:
        raise NoAnswer(_late(timeout), is_reached=True) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        if isinstance(error, httpx.NetworkError) and _is_of_tls(error):
            raise NoAnswer(f"TLS fails: {error}: check certificate and ca") from error
        raise NoAnswer(f"no whole answer: {error}", is_reached=True) from error
