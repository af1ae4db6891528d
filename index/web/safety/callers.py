"""Who calls: by token, by certificate, by what a reverse proxy says, or from this machine."""

import ipaddress
from collections.abc import Callable

from starlette.datastructures import Headers

from index.web.rights import ALL_RIGHTS, Caller, Right
from index.web.safety.tokens import Tokens
from index.web.settings import AccessSettings

# What a caller on this machine may do, by http.local.
_LOCAL = {"read": frozenset((Right.READ,)), "all": ALL_RIGHTS, "nothing": frozenset[Right]()}
# A request with one of these has come through a proxy, from another machine (RFC 7239, RFC 9110).
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")
# The longest name that a proxy may give, in characters.
_LONGEST_NAME = 128

Subject = Callable[[tuple[str, int]], str | None]


class Callers:
    """Finds out who calls. `subject` returns the subject of the certificate that came from an address."""

    def __init__(self, access: AccessSettings, subject: Subject = lambda _: None) -> None:
        self._access = access
        self._subject = subject
        self._tokens = Tokens(access.tokens) if access.tokens else None

    def identify(self, client: tuple[str, int] | None, headers: Headers) -> Caller:
        """Return who sends a request. What a caller says of itself counts before where it calls from."""
        if authorization := headers.get("authorization"):
            return self._by_token(authorization)
        if client and (subject := self._subject(client)):
            return Caller(subject, frozenset(self._access.certificate_rights))
        address = _address(client)
        if (proxy := self._access.proxy) and any(address in network for network in proxy.addresses):
            names = headers.getlist(proxy.header)
            if len(names) == 1 and 0 < len(names[0]) <= _LONGEST_NAME:
                return Caller(names[0], frozenset(proxy.rights))
            return Caller("", why_unknown=f"the proxy has not said in {proxy.header} who calls")
        return self._by_address(address, headers)

    def _by_token(self, authorization: str) -> Caller:
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            return Caller("", why_unknown="Authorization: allowed is Bearer with a token")
        found = self._tokens.find(token.strip()) if self._tokens else None
        return found or Caller("", why_unknown="the token is not known here")

    def _by_address(self, address: ipaddress.IPv4Address | ipaddress.IPv6Address, headers: Headers) -> Caller:
        if self._access.trust_network:
            return Caller("network", _LOCAL[self._access.local])
        if not address.is_loopback:
            return Caller("", why_unknown="a token is needed: Authorization: Bearer TOKEN")
        if any(name in headers for name in _FORWARDED):
            return Caller("", why_unknown="came through a proxy that [http.proxy] does not name")
        rights = _LOCAL[self._access.local]
        return Caller("local", rights, "" if rights else "a token is needed: Authorization: Bearer TOKEN")


def _address(client: tuple[str, int] | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the address of a client; one that nobody has, where it is not known."""
    found = ipaddress.ip_address(client[0].partition("%")[0] if client else "0.0.0.0")  # noqa: S104
    mapped = getattr(found, "ipv4_mapped", None)
    return mapped or found
