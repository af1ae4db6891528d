"""A message taken apart: segments, and their fields by path, unescaped (HL7 v2.5.1 Chapter 2).

A field is divided when it is asked for: what one message costs grows with its length, and its parts are never
all in memory. Beyond the limits a message is rejected before any of it is divided.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from index.orders.hl7.charsets import decode
from index.orders.hl7.faults import BadMessage, Code

NULL = '""'
"""Two quotation marks: the value is to be deleted (Section 2.5.3)."""

# An order has some ten segments, and a message some orders; reports and documents in OBX have more.
MAX_SEGMENTS = 10_000
# Characters of one segment. Names, codes and reasons are far below; only the two below hold whole texts.
MAX_SEGMENT = 64 * 1024
_TEXTS = ("OBX", "NTE")
# Of one segment. The longest that the standard defines has some hundred fields.
MAX_FIELDS = 500
# Of one segment: identifiers, names, codes. A master patient index lists some dozen identifiers.
MAX_REPETITIONS = 500
# Of one segment, components and subcomponents: 500 identifiers of four components each.
MAX_COMPONENTS = 2_000

_SIGN = rb"[!-/:-@\[-`{-~]"
_HEADER = re.compile(rb"MSH(" + _SIGN + rb")(" + _SIGN + rb"{1,5})\1")
# Component, repetition, escape, subcomponent: where MSH-2 leaves some out (Section 2.5.4).
_USUAL = "^~\\&"
_PATH = re.compile(r"([A-Z][A-Z0-9]{2})-(\d{1,4})(?:\.(\d{1,4})(?:\.(\d{1,4}))?)?")
_CHARSET_FIELD = 17
# What stands around a segment's name by mistake. A second PID is one in small letters and behind blanks too.
_NO_NAME = re.compile(r"[^A-Z0-9]")
_NAME_LIMIT = 16  # characters: what is longer is a line of text
_ESCAPES = {"H": "", "N": "", ".br": "\n", ".sp": "\n", ".ce": "\n", ".fi": "", ".nf": ""}


@dataclass(frozen=True, slots=True)
class Path:
    """A place in a message as it is written in the configuration: OBR-18, PID-3.4.2."""

    segment: str
    field: int
    component: int = 0
    subcomponent: int = 0

    def __str__(self) -> str:
        parts = [str(part) for part in (self.field, self.component, self.subcomponent) if part]
        return f"{self.segment}-{'.'.join(parts)}"


def path(text: str) -> Path:
    """Parse a path. Raises ValueError, saying what is allowed."""
    match = _PATH.fullmatch(text.strip())
    if not match or not int(match[2]):
        raise ValueError(f"{text!r} is no HL7 path like OBR-18 or PID-3.4")
    return Path(match[1], *(int(part or 0) for part in match.groups()[1:]))


class Segment:
    """A segment; its fields count as the standard counts them: MSH-1 is the field separator."""

    __slots__ = ("_fields", "_line", "_separator", "name")

    def __init__(self, line: str, separator: str) -> None:
        self.name = _NO_NAME.sub("", line[:_NAME_LIMIT].partition(separator)[0].upper())
        self._line = line
        self._separator = separator
        self._fields: list[str] | None = None

    def field(self, number: int) -> str:
        """Return a field as it stands in the message; empty where there is none."""
        if self._fields is None:
            fields = self._line.split(self._separator, MAX_FIELDS)
            self._fields = [fields[0], self._separator, *fields[1:]] if self.name == "MSH" else fields
        return self._fields[number] if number < len(self._fields) else ""


class Message:
    """One message with its delimiters and its character set. `charset` is DICOM's name of that."""

    def __init__(self, content: bytes, charset: str = "", *, header_only: bool = False) -> None:
        """Take a message apart. Raises BadMessage: with AR where it is none, AE where it cannot be decoded.

        `charset` is what its sender uses whatever MSH-18 says; `header_only` does without, to know who sends.
        """
        content = content.replace(b"\n", b"\r").strip(b"\r")
        header = _HEADER.match(content)
        if not header:
            raise BadMessage(
                Code.SEQUENCE, "MSH", "a message begins with MSH and its delimiters", reject=True
            )
        self._field: str = header[1].decode()
        encoding: str = header[2].decode()
        signs = list((encoding + _USUAL[len(encoding) :])[: len(_USUAL)])
        self._component, self._repetition = signs[:2]
        self._escape, self._subcomponent = signs[2:]
        first = content.split(b"\r", 1)[0][:MAX_SEGMENT]
        if header_only:
            text, self.codec, self.charset = first.decode("ascii", "replace"), "utf-8", ""
        else:
            _refuse_second(content, header[0])
            text, self.codec, self.charset = decode(content, self._named(first, header[1]), charset)
        self._segments = [Segment(line, self._field) for line in self._lines(text)]
        self._separators: dict[str, str] = {
            "F": self._field,
            "R": self._repetition,
            "S": self._component,
            "T": self._subcomponent,
        }

    def _named(self, first: bytes, separator: bytes) -> list[str]:
        """Return the repetitions of MSH-18."""
        fields = first.split(separator, _CHARSET_FIELD + 1)
        named = fields[_CHARSET_FIELD] if len(fields) > _CHARSET_FIELD else b""
        return named.decode("ascii", "replace").split(self._repetition)

    def _lines(self, text: str) -> Iterator[str]:
        """Yield the segments that are not empty. Raises BadMessage beyond the limits."""
        lines = text.split("\r", MAX_SEGMENTS)
        if len(lines) > MAX_SEGMENTS:
            raise _too_much("MSH", "segments", MAX_SEGMENTS)
        for line in lines:
            name = line[:3]
            if name not in _TEXTS:
                self._check(name, line)
            if line.strip():
                yield line

    def _check(self, name: str, line: str) -> None:
        if len(line) > MAX_SEGMENT:
            raise _too_much(name, "characters", MAX_SEGMENT)
        for sign, most, what in (
            (self._field, MAX_FIELDS, "fields"),
            (self._repetition, MAX_REPETITIONS, "repetitions"),
            (self._component, MAX_COMPONENTS, "components"),
            (self._subcomponent, MAX_COMPONENTS, "subcomponents"),
        ):
            if line.count(sign) >= most:
                raise _too_much(name, what, most)

    def segments(self) -> Iterator[tuple[str, Segment]]:
        """Yield every segment with its name, in order."""
        for segment in self._segments:
            yield segment.name, segment

    def all(self, name: str) -> list[Segment]:
        """Return the segments of a name, in order."""
        return [segment for segment in self._segments if segment.name == name]

    def first(self, name: str) -> Segment | None:
        """Return the first segment of a name, or None."""
        return next(iter(self.all(name)), None)

    def value(self, segment: Segment | None, field: int, component: int = 0, subcomponent: int = 0) -> str:
        """Return a value of a field's first repetition: empty where there is none, NULL where it is to go."""
        repetitions = self.repetitions(segment, field)
        return self.part(repetitions[0], component, subcomponent) if repetitions else ""

    def repetitions(self, segment: Segment | None, field: int) -> Sequence[str]:
        """Return the repetitions of a field that are not empty, as many as a segment may have."""
        value = segment.field(field) if segment else ""
        return [one for one in value.split(self._repetition, MAX_REPETITIONS)[:MAX_REPETITIONS] if one]

    def part(self, repetition: str, component: int = 0, subcomponent: int = 0) -> str:
        """Return a component of a repetition. 0 is the first, as for what is not divided any further."""
        found = _nth(_nth(repetition, self._component, component), self._subcomponent, subcomponent)
        return self.unescape(found).strip()

    def unescape(self, text: str) -> str:
        """Resolve escape sequences (Section 2.7). Highlighting goes; what is unknown goes as well."""
        if self._escape not in text:
            return text
        parts = text.split(self._escape)
        made = [parts[0]]
        for number, part in enumerate(parts[1:], start=1):
            is_sequence = number % 2 == 1 and number < len(parts) - 1
            made.append(self._resolve(part) if is_sequence else part)
        return "".join(made)

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


def _refuse_second(content: bytes, header: bytes) -> None:
    """Refuse what holds the header of a further message, whose orders would be this one's patient's."""
    # With all four encoding characters, its delimiters are a header's whatever stands before them.
    sign = header[len(b"MSH") :] if len(header) > len(b"MSH|^~\\&") else header
    if content.find(sign, len(header)) >= 0 or b"\rMSH" in content:
        raise BadMessage(
            Code.SEQUENCE, "MSH", "another message begins before this one has ended", number=2, reject=True
        )


def _too_much(segment: str, what: str, most: int) -> BadMessage:
    name = segment if segment.isalnum() and segment.isascii() else "MSH"
    return BadMessage(Code.TOO_LONG, name, f"more than {most} {what}", reject=True)
