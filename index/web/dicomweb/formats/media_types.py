"""The media types that a user agent accepts (PS3.18 Section 8.7, RFC 9110 Section 12.5.1)."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

MULTIPART = "multipart/related"
DICOM = "application/dicom"
JSON = "application/dicom+json"
XML = "application/dicom+xml"
OCTETS = "application/octet-stream"
ANY_SYNTAX = "*"

# More media ranges than this are no user agent's.
MOST_RANGES = 64

_PARAMETER = re.compile(r';\s*([\w.+*-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^;,\s]*))')
_RANGE = re.compile(
    r"\s*([\w.+*-]+/[\w.+*-]+)((?:\s*;\s*[\w.+*-]+\s*=\s*(?:\"(?:[^\"\\]|\\.)*\"|[^;,\s]*))*)\s*"
)


class BadMediaType(ValueError):
    """Raised where a media type cannot be read."""


@dataclass(frozen=True, slots=True)
class MediaType:
    """A media type or range, in lower case, and its parameters. `quality` is the weight q."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0

    @property
    def is_multipart(self) -> bool:
        """Whether it is multipart/related."""
        return self.name == MULTIPART

    @property
    def content(self) -> str:
        """The media type of the content: of the parts, where it is multipart/related."""
        return self.parameters.get("type", "*/*").lower() if self.is_multipart else self.name

    @property
    def transfer_syntax(self) -> str:
        """The transfer syntax UID asked for, ANY_SYNTAX for any; empty where it is not named."""
        return self.parameters.get("transfer-syntax", "")

    def covers(self, name: str) -> bool:
        """Whether its content is this media type."""
        main, _, sub = self.content.partition("/")
        other_main, _, other_sub = name.partition("/")
        return main in ("*", other_main) and sub in ("*", other_sub)


def parse_media_type(text: str) -> MediaType:
    """Return a media type of a header. Raises BadMediaType."""
    found = _RANGE.fullmatch(text)
    if not found:
        raise BadMediaType(f"{text[:80]!a} is no media type")
    parameters = {
        name.lower(): re.sub(r"\\(.)", r"\1", quoted) if quoted else plain
        for name, quoted, plain in _PARAMETER.findall(found[2])
    }
    try:
        quality = float(parameters.pop("q", 1))
    except ValueError as error:
        raise BadMediaType(f"{text[:80]!a}: q must be a number") from error
    return MediaType(found[1].lower(), parameters, quality)


def accepted(headers: Iterable[str], parameter: Sequence[str] = ()) -> list[MediaType]:
    """Return what is accepted, the preferred first; nothing given accepts everything.

    `parameter` is the query parameter accept (PS3.18 Section 8.3.3.1), which counts before the header.
    What cannot be read is passed over beside what can: Java sends `*; q=.2` with every request.
    Raises BadMediaType.
    """
    given = [one for text in (parameter or headers) for one in _split(text)]
    if len(given) > MOST_RANGES:
        raise BadMediaType(f"more than {MOST_RANGES} media types")
    ranges, faults = [], []
    for text in given:
        try:
            ranges.append(parse_media_type(text))
        except BadMediaType as error:
            faults.append(error)
    if faults and not ranges:
        raise faults[0]
    wanted = [one for one in ranges or [MediaType("*/*")] if one.quality > 0]
    return sorted(wanted, key=lambda one: -one.quality)


def _split(text: str) -> list[str]:
    """Split a header at commas that are not quoted."""
    parts, start, is_quoted = [], 0, False
    for position, character in enumerate(text):
        if character == '"' and text[position - 1 : position] != "\\":
            is_quoted = not is_quoted
        elif character == "," and not is_quoted:
            parts.append(text[start:position])
            start = position + 1
    return [part for part in (*parts, text[start:]) if part.strip()]


def choose(ranges: Sequence[MediaType], offered: Sequence[str]) -> str | None:
    """Return the offered media type that is preferred; None: none is accepted.

    Of multipart/related its content counts.
    """
    for one in ranges:
        for name in offered:
            if one.covers(name):
                return name
    return None


IMAGE_TYPES: Mapping[str, str] = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.110": "image/jxl",
    "1.2.840.10008.1.2.4.111": "image/jxl",
    "1.2.840.10008.1.2.4.112": "image/jxl",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.4.100": "video/mpeg",
    "1.2.840.10008.1.2.4.101": "video/mpeg",
    **{f"1.2.840.10008.1.2.4.{number}": "video/mp4" for number in range(102, 109)},
}
"""The media type of compressed pixel data, by transfer syntax (PS3.18 Tables 8.7.3-2 and 8.7.3-5)."""
