"""To which addresses notifications may be sent: those below a configured prefix, and no others.

Who may create a subscription could otherwise have this machine send requests to any other in the house.
"""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

LONGEST = 2000
"""Characters of an address."""

# RFC 3986 Section 2, without what is read differently by different programs: a backslash, blanks, controls.
_ADDRESS = re.compile(r"https?://[A-Za-z0-9._~:\[\]-]+(/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(\?[^#\s\\<>\"]*)?")
_PORTS = {"http": 80, "https": 443}
# A part of a path that leads elsewhere, also where it is encoded; and an encoded slash.
_WAY_OUT = re.compile(r"(^|/)(\.|%2e){1,2}(/|$)|%2f|%5c|//", re.IGNORECASE)

_Place = tuple[str, str, int | None]


def check_endpoint(address: str) -> None:
    """Raise ValueError where this is no address that notifications can be sent to."""
    if len(address) > LONGEST or not _ADDRESS.fullmatch(address):
        raise ValueError("is no http or https address of a host, a path and perhaps a query")
    place, path = _parts(address)
    if not place[1] or _WAY_OUT.search(path):
        raise ValueError("has a path that may lead elsewhere: no //, ., .., or encoded / in it")


def is_allowed(address: str, prefixes: Iterable[str]) -> bool:
    """Tell whether an address is below one of these: the same host and port, and whole parts of the path."""
    try:
        check_endpoint(address)
        place, path = _parts(address)
    except ValueError:
        return False
    return any(place == other and _is_below(path, below) for other, below in map(_parts, prefixes))


def origin_of(address: str) -> str:
    """Return scheme, host and port of an address, for the log: the rest may be a secret."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _parts(address: str) -> tuple[_Place, str]:
    parts = urlsplit(address)
    return (parts.scheme, (parts.hostname or "").lower(), parts.port or _PORTS.get(parts.scheme)), parts.path


def _is_below(path: str, below: str) -> bool:
    below = below.rstrip("/")
    return path == below or path.startswith(f"{below}/")
