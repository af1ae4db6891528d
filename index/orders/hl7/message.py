"""HL7 messages: split out of a frame or file, and read by segment and field (HL7 v2.5.1 Chapter 2).

A field is divided only when it is read: the cost of a message grows with its length, and its parts are never
all in memory. A message beyond the limits is rejected before it is divided.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from index.orders.hl7.charsets import decode
from index.orders.hl7.faults import BadMessage, Code

NULL = '""'
"""Two quotation marks: delete the value (Section 2.5.3)."""

# An order has some ten segments, a message a few orders; a report in OBX has more.
MAX_SEGMENTS = 10_000
# Characters of one segment, but for those that have long texts. Names, codes and reasons are much shorter.
MAX_SEGMENT = 64 * 1024
_LONG_TEXTS = ("OBX", "NTE")
# Fields of one segment. The longest of the standard has some hundred.
MAX_FIELDS = 500
# Repetitions in one segment. A master patient index sends some dozen identifiers.
MAX_REPETITIONS = 500
# Components in one segment, and subcomponents: 500 identifiers of four components each.
MAX_COMPONENTS = 2_000

_SIGN = rb"[!-/:-@\[-`{-~]"
_HEADER = re.compile(rb"MSH(" + _SIGN + rb")(" + _SIGN + rb"{1,5})\1")
# Component, repetition, escape and subcomponent characters, for those that MSH-2 lacks (Section 2.5.4).
_DEFAULT_ENCODING = "^~\\&"
_BOM = b"\xef\xbb\xbf"
# The framing characters of MLLP within a message, and line feeds, end a segment (MLLP Release 1).
_TO_CR = bytes.maketrans(b"\x0b\x1c\n", b"\r\r\r")
# Batch and file headers and trailers (Section 2.10.3).
ENVELOPE = (b"FHS", b"BHS", b"BTS", b"FTS")
_CR = ord("\r")
_NAME = re.compile(rb"MSH|[FB][HT]S")
# A header with all delimiters: MSH, the field separator, MSH-2 of four or five signs and the separator again.
_FULL_HEADER = re.compile(rb"MSH(" + _SIGN + rb")(" + _SIGN + rb"{4,5})\1")
_PATH = re.compile(r"([A-Z][A-Z0-9]{2})-(\d{1,4})(?:\.(\d{1,4})(?:\.(\d{1,4}))?)?")
_CHARSET_FIELD = 17
# What stands around a segment's name by mistake. A second PID is one in small letters and behind blanks too.
_NO_NAME = re.compile(r"[^A-Z0-9]")
_NAME_LIMIT = 16  # characters: what is longer is a line of text
_ESCAPES = {"H": "", "N": "", ".br": "\n", ".sp": "\n", ".ce": "\n", ".fi": "", ".nf": ""}


@dataclass(frozen=True, slots=True)
class Path:
    """The path of a value in a message, written OBR-18 or PID-3.4.2."""

    segment: str
    field: int
    component: int = 0
    subcomponent: int = 0

    def __str__(self) -> str:
        parts = [str(part) for part in (self.field, self.component, self.subcomponent) if part]
        return f"{self.segment}-{'.'.join(parts)}"


def parse_path(text: str) -> Path:
    """Parse a path. Raises ValueError, which names what is allowed."""
    match = _PATH.fullmatch(text.strip())
    if not match or not int(match[2]):
        raise ValueError(f"{text!r} is no HL7 path like OBR-18 or PID-3.4")
    return Path(match[1], *(int(part or 0) for part in match.groups()[1:]))


class Segment:
    """A segment. Fields are numbered as in the standard: MSH-1 is the field separator."""

    __slots__ = ("_fields", "_line", "_separator", "name")

    def __init__(self, line: str, separator: str) -> None:
        self.name = _NO_NAME.sub("", line[:_NAME_LIMIT].partition(separator)[0].upper())
        self._line = line
        self._separator = separator
        self._fields: list[str] | None = None

    def field(self, number: int) -> str:
        """Return a field as it is in the message; empty where there is none."""
        if self._fields is None:
            fields = self._line.split(self._separator, MAX_FIELDS)
            self._fields = [fields[0], self._separator, *fields[1:]] if self.name == "MSH" else fields
        return self._fields[number] if number < len(self._fields) else ""


class Message:
    """One message. `charset` is DICOM's name for its character set, `codec` Python's."""

    def __init__(self, content: bytes, charset: str = "", *, header_only: bool = False) -> None:
        """Read a message. Raises BadMessage: AR if it is not a message, AE if it cannot be decoded.

        `charset` overrules MSH-18. `header_only`: read MSH alone, for the sender; no character set is needed.
        """
        content = content.replace(b"\n", b"\r").strip(b"\r")
        header = _HEADER.match(content)
        if not header:
            text = "a message begins with MSH and its delimiters"
            raise BadMessage(Code.SEQUENCE, "MSH", text, reject=True)
        self._field: str = header[1].decode()
        encoding: str = header[2].decode()
        encoding = (encoding + _DEFAULT_ENCODING[len(encoding) :])[: len(_DEFAULT_ENCODING)]
        self._component, self._repetition, self._escape, self._subcomponent = tuple(encoding)
        first = content.split(b"\r", 1)[0][:MAX_SEGMENT]
        if header_only:
            text, self.codec, self.charset = first.decode("ascii", "replace"), "utf-8", ""
        else:
            _reject_second(content, header[0])
            text, self.codec, self.charset = decode(content, self._charsets(first, header[1]), charset)
        self.segments = [Segment(line, self._field) for line in self._lines(text)]
        self._separators: dict[str, str] = {
            "F": self._field,
            "R": self._repetition,
            "S": self._component,
            "T": self._subcomponent,
        }

    def _charsets(self, msh: bytes, separator: bytes) -> list[str]:
        """Return the repetitions of MSH-18."""
        fields = msh.split(separator, _CHARSET_FIELD + 1)
        field = fields[_CHARSET_FIELD] if len(fields) > _CHARSET_FIELD else b""
        return field.decode("ascii", "replace").split(self._repetition)

    def _lines(self, text: str) -> Iterator[str]:
        """Yield the segments that are not empty. Raises BadMessage beyond the limits."""
        lines = text.split("\r", MAX_SEGMENTS)
        if len(lines) > MAX_SEGMENTS:
            raise _too_much("MSH", "segments", MAX_SEGMENTS)
        for line in lines:
            name = line[:3]
            if name not in _LONG_TEXTS:
                self._check(name, line)
            if line.strip():
                yield line

    def _check(self, name: str, line: str) -> None:
        if len(line) > MAX_SEGMENT:
            raise _too_much(name, "characters", MAX_SEGMENT)
        for delimiter, limit, what in (
            (self._field, MAX_FIELDS, "fields"),
            (self._repetition, MAX_REPETITIONS, "repetitions"),
            (self._component, MAX_COMPONENTS, "components"),
            (self._subcomponent, MAX_COMPONENTS, "subcomponents"),
        ):
            if line.count(delimiter) >= limit:
                raise _too_much(name, what, limit)

    def all(self, name: str) -> list[Segment]:
        """Return the segments of a name, in order."""
        return [segment for segment in self.segments if segment.name == name]

    def first(self, name: str) -> Segment | None:
        """Return the first segment of a name, or None."""
        return next((segment for segment in self.segments if segment.name == name), None)

    def value(self, segment: Segment | None, field: int, component: int = 0, subcomponent: int = 0) -> str:
        """Return a value of the first repetition: empty where there is none, NULL to delete it."""
        repetitions = self.repetitions(segment, field)
        return self.part(repetitions[0], component, subcomponent) if repetitions else ""

    def repetitions(self, segment: Segment | None, field: int) -> Sequence[str]:
        """Return the repetitions of a field that are not empty, at most MAX_REPETITIONS."""
        value = segment.field(field) if segment else ""
        return [one for one in value.split(self._repetition, MAX_REPETITIONS)[:MAX_REPETITIONS] if one]

    def part(self, repetition: str, component: int = 0, subcomponent: int = 0) -> str:
        """Return a component of a repetition. 0 is the first, for values that are not divided."""
        found = _nth(_nth(repetition, self._component, component), self._subcomponent, subcomponent)
        return self.unescape(found).strip()

    def unescape(self, text: str) -> str:
        """Resolve escape sequences (Section 2.7). Highlighting and unknown sequences are removed."""
        if self._escape not in text:
            return text
        parts = text.split(self._escape)
        for number in range(1, len(parts) - 1, 2):
            parts[number] = self._resolve(parts[number])
        return "".join(parts)

    def _resolve(self, sequence: str) -> str:
        if sequence == "E":
            return self._escape
        if sequence in self._separators:
            return self._separators[sequence]
        if sequence[:1] == "X":
            try:
                return bytes.fromhex(sequence[1:]).decode(self.codec, "replace")
            except ValueError:
                return ""
        return _ESCAPES.get(sequence, _ESCAPES.get(sequence[:3], ""))


def _nth(text: str, separator: str, number: int) -> str:
    """Return the nth part, counted from 1; 0 is the first."""
    index = max(number, 1) - 1
    parts = text.split(separator, index + 1)
    return parts[index] if index < len(parts) else ""


def _reject_second(content: bytes, header: bytes) -> None:
    """Reject content with a second header: orders after it would be taken for the first patient's."""
    # All four encoding characters together are a header, whatever is before them.
    pattern = header[len(b"MSH") :] if len(header) > len(b"MSH|^~\\&") else header
    if content.find(pattern, len(header)) >= 0 or b"\rMSH" in content:
        text = "another message begins before this one has ended"
        raise BadMessage(Code.SEQUENCE, "MSH", text, number=2, reject=True)


def _too_much(segment: str, what: str, limit: int) -> BadMessage:
    name = segment if segment.isalnum() and segment.isascii() else "MSH"
    return BadMessage(Code.TOO_LONG, name, f"more than {limit} {what}", reject=True)


def messages(content: bytes) -> Iterator[bytes]:
    """Yield the messages of a frame or file, with or without the envelopes of a batch (Section 2.10.3).

    At least one is yielded: Message rejects content that is not a message. A message that ends within a
    segment, where another one begins, is yielded with the header of the other one: it is rejected too.
    """
    content = content.removeprefix(_BOM).translate(_TO_CR)
    found = False
    for part in _parts(content):
        if part.strip() and not part.startswith(ENVELOPE):
            found = True
            yield from _split_at_headers(part)
    if not found:
        yield content


def _parts(content: bytes) -> Iterator[bytes]:
    """Yield each message and envelope segment."""
    start = 0
    for match in _NAME.finditer(content):
        if match.start() and content[match.start() - 1] == _CR:
            yield content[start : match.start()]
            start = match.start()
    yield content[start:]


def _split_at_headers(content: bytes) -> Iterator[bytes]:
    """Yield content cut before each header within a segment, in one pass whatever it holds."""
    first = _FULL_HEADER.match(content)
    if first:
        start, header = 0, first[0]
        for at, following in _headers(content, first):
            yield content[start:at] + header
            start, header = at, following
        content = content[start:]
    if not content.startswith(ENVELOPE):
        yield content


def _headers(content: bytes, first: re.Match[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield where headers begin after the first one, and each header.

    Text does not hold the first one's delimiters: they are a header's, whatever is before them. Other
    delimiters are a header's if MSH is before them, and no sign is there twice: MSH may be initials.
    """
    delimiters = first[0][len(b"MSH") :]
    begin = 0
    for match in re.finditer(_FULL_HEADER.pattern + b"|" + re.escape(delimiters), content[first.end() :]):
        at, header = first.end() + match.start(), match[0]
        if header == delimiters:
            at, header = at - len(b"MSH"), first[0]
        elif header != first[0] and len(set(match[1] + match[2])) < len(match[1] + match[2]):
            continue
        if at > begin:
            yield at, header
            begin = at
