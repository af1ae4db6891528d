"""For which host a request comes, and from a page of which origin."""

import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

from index.web.settings import AccessSettings

# Of this machine (RFC 6761 Section 6.3, RFC 4291 Section 2.5.3).
_OWN = ("localhost", "127.0.0.1", "[::1]")
# RFC 9110 Section 9.2.1.
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Origins:
    """The hosts that we answer for, and the origins whose pages may send us what changes something.

    A page elsewhere can make a browser here send requests: by a name that leads to this machine (DNS
    rebinding), or by a form. Reading their answers is what browsers forbid, unless CORS allows it.
    """

    def __init__(self, access: AccessSettings) -> None:
        public = urlsplit(access.public_url or "")
        names = {*_OWN, *access.hosts, socket.gethostname().lower(), socket.getfqdn().lower()}
        self._hosts = names | ({public.hostname} if public.hostname else set())
        self._origins = {*access.cors_origins, f"{public.scheme}://{public.netloc}".lower()}

    def answers_for(self, host: str, bound: str) -> bool:
        """Tell whether a Host header names us; `bound`: the address that the connection came to."""
        name = _without_port(host)
        return name in self._hosts or (bound != "" and name in (bound, f"[{bound}]"))

    def may_change(self, method: str, headers: Mapping[str, str]) -> bool:
        """Tell whether a request may change something, by the page that it comes from, if any."""
        if method in _SAFE_METHODS:
            return True
        origin = headers.get("origin", "").lower()
        if origin:
            return urlsplit(origin).netloc == headers.get("host", "").lower() or origin in self._origins
        return headers.get("sec-fetch-site", "none") in ("none", "same-origin")


def _without_port(host: str) -> str:
    name = host.strip().lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0].rstrip(".")
