"""Templates and files of the page. All that comes from DICOM is text: it is escaped, and made visible."""

import hashlib
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from index.web.rights import Right, caller_of

# Nothing but our own files, no inline script or style, in no frame (W3C Content Security Policy Level 3).
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
# Pages show patients: no cache keeps them, and no other site is told of their addresses.
# Without any referrer a browser would send the Origin null with our own forms (WHATWG Fetch, Origin header).
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
STATIC = "/page"
# The address of a file has the digest of its content: it may be kept for ever.
STATIC_HEADERS = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


class Templates:
    """Renders the templates of the package."""

    def __init__(self) -> None:
        self._static = {
            one.name: one.read_bytes()
            for one in (files(__package__) / "static").iterdir()
            if one.name.rpartition(".")[2] in TYPES
        }
        self._environment = _environment()
        # Compiled templates are shared; the addresses of files are the same in each.
        self._environment.globals["static"] = self._address

    def text(self, template: str, **values: Any) -> str:
        """Return a template as text."""
        return self._environment.get_template(template).render(**values)

    def page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        """Return a whole page."""
        rights = caller_of(request).rights
        html = self.text(template, rights=rights, path=request.url.path, status=status, **values)
        return HTMLResponse(html, status, HEADERS)

    def refusal(self, status: int, why: str) -> Response:
        """Return the page for somebody who may not have what they asked for."""
        html = self.text("error.html", rights=frozenset(), path="", status=status, why=why)
        return HTMLResponse(html, status, HEADERS)

    def static(self, request: Request) -> Response:
        """Return a file of the page."""
        name = request.path_params["name"]
        if name not in self._static:
            return Response("not found\n", 404)
        return Response(self._static[name], headers=STATIC_HEADERS, media_type=TYPES[name.rpartition(".")[2]])

    def _address(self, name: str) -> str:
        digest = hashlib.sha256(self._static[name]).hexdigest()[:12]
        return f"{STATIC}/{name}?v={digest}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "bytes": size,
        "moment": moment,
        "seconds": seconds,
        "person": person,
        "number": number,
        "day": day,
        "visible": visible,
    }
    environment.globals["Right"] = Right
    return environment


def size(value: float) -> str:
    """Return a number of bytes as people read it (IEC 80000-13 has decimal prefixes too)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":  # noqa: PLR2004
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def moment(milliseconds: int | None) -> str:
    """Return a time as date and time of this machine's zone."""
    return f"{_local(milliseconds):%Y-%m-%d %H:%M:%S}" if milliseconds else ""


def _local(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone()


def seconds(value: float) -> str:
    """Return a duration as people read it."""
    minutes, rest = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def number(value: float) -> str:
    """Return a rate with as many digits as it is worth."""
    return f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"  # noqa: PLR2004


def person(value: object) -> str:
    """Return a person's name (PS3.5 Section 6.2.1.1): family name first, other scripts in brackets."""
    groups = [_group(group) for group in str(value or "").split("=")]
    named = [group for group in groups if group]
    return visible(named[0] + (f" ({'; '.join(named[1:])})" if named[1:] else "")) if named else ""


def _group(text: str) -> str:
    family, *others = (part.strip() for part in text.split("^"))
    given = " ".join(part for part in others if part)
    return f"{family}, {given}" if family and given else family or given


def day(value: object) -> str:
    """Return a DA as ISO 8601 has it; another text as it is."""
    text = str(value or "")
    is_date = len(text) == 8 and text.isdecimal()  # noqa: PLR2004  YYYYMMDD
    return f"{text[:4]}-{text[4:6]}-{text[6:]}" if is_date else visible(text)


def visible(value: object, most: int = 0) -> str:
    """Return a value as text in which controls are seen; cut behind so many characters."""
    text = "".join(map(_shown, str(value)))
    return f"{text[:most]}… ({len(text)} characters)" if most and len(text) > most else text


def _shown(character: str) -> str:
    # Joiners are letters' parts in Persian and Indic scripts.
    if character in "\n\u200c\u200d" or not unicodedata.category(character).startswith("C"):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode()


def attribute(attributes: Mapping[str, Any], keyword: str) -> str:
    """Return an attribute's value as text; several values are joined."""
    value = attributes.get(keyword)
    values = value if isinstance(value, list | tuple) else [value]
    return ", ".join(str(one) for one in values if one not in (None, ""))
