"""Forms: where they come from, that each is sent once, and what is in them."""

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from urllib.parse import parse_qsl

from starlette.requests import Request

from index.errors import IndexFault

# The longest form, in bytes, and the most fields: an order has some twenty short ones.
MAX_BYTES = 64 * 1024
MAX_FIELDS = 100
# Forms that are remembered as sent; far more than operators send while one page is open.
MAX_SENT = 10_000
TOKEN = "token"  # noqa: S105  a field's name


class BadForm(IndexFault):
    """A form that is not taken: from elsewhere, sent before, or not readable."""


class Forms:
    """Makes the tokens of forms and takes each once. Safe to use from many threads.

    Another site can neither read a token nor make one: our pages alone have it (OWASP, synchronizer token).
    """

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)
        self._sent: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def token(self, path: str) -> str:
        """Return a new token for a form that is sent to this path."""
        nonce = secrets.token_hex(16)
        return f"{nonce}.{self._signed(nonce, path)}"

    async def read(self, request: Request) -> dict[str, str]:
        """Return the fields of a form of ours. Raises BadForm."""
        _check_origin(request)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BYTES:
                raise BadForm(f"a form of more than {MAX_BYTES} bytes is not read")
        try:
            fields = dict(
                parse_qsl(
                    body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict"
                )
            )
        except ValueError as error:
            raise BadForm(f"the form cannot be read: {error}") from error
        self._take(fields.pop(TOKEN, ""), request.url.path)
        return {name: value.replace("\0", "").strip() for name, value in fields.items()}

    def _take(self, token: str, path: str) -> None:
        nonce, _, signature = token.partition(".")
        if not hmac.compare_digest(signature.encode(), self._signed(nonce, path).encode()):
            raise BadForm("the form is not one of this daemon's pages, or it has been restarted since")
        with self._lock:
            if nonce in self._sent:
                raise BadForm("this form has been sent already; what it asked for was done once")
            self._sent[nonce] = None
            while len(self._sent) > MAX_SENT:
                self._sent.popitem(last=False)

    def _signed(self, nonce: str, path: str) -> str:
        return hmac.new(self._secret, f"{nonce} {path}".encode(), hashlib.sha256).hexdigest()


def _check_origin(request: Request) -> None:
    """Refuse what a page of another origin sends (W3C Fetch Metadata; RFC 6454). Raises BadForm."""
    site = request.headers.get("sec-fetch-site")
    origin = request.headers.get("origin")
    if site not in (None, "same-origin"):
        raise BadForm("the form comes from another site")
    if site is None and origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise BadForm(f"the form comes from {origin}")
