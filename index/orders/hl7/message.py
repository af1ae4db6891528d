"""A message taken apart: segments, and their fields by path, unescaped (HL7 v2.5.1 Chapter 2)."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import hl7  # type: ignore[import-untyped]  # it has no types

from index.orders.hl7.charsets import decode
from index.orders.hl7.faults import BadMessage, Code

NULL = '""'
"""Two quotation marks: the value is to be deleted (Section 2.5.3)."""

_HEADER = re.compile(rb"MSH([^\w\s])([^\w\s]{4,5}|[^\w\s]{1,3})\1")
_PATH = re.compile(r"([A-Z][A-Z0-9]{2})-(\d+)(?:\.(\d+)(?:\.(\d+))?)?")
_CHARSET_FIELD = 17
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


class Message:
    """One message with its delimiters and its character set. `charset` is DICOM's name of that."""

    def __init__(self, content: bytes, charset: str = "", *, header_only: bool = False) -> None:
        """Take a message apart. Raises BadMessage: with AR where it is none, AE where it cannot be decoded.

        `charset` is for a message that names none; `header_only` does without, to know the sender.
        """
        content = content.replace(b"\r\n", b"\r").replace(b"\n", b"\r").strip(b"\r")
        header = _HEADER.match(content)
        if not header:
            raise BadMessage(
                Code.SEQUENCE, "MSH", "a message begins with MSH and its delimiters", reject=True
            )
        fields = content.split(b"\r", 1)[0].split(header[1])
        repetition = header[2][1:2] or b"~"
        named = fields[_CHARSET_FIELD] if len(fields) > _CHARSET_FIELD else b""
        names = [name.decode("ascii", "replace") for name in named.split(repetition)]
        if header_only:
            text, self.codec, self.charset = content.decode("ascii", "replace"), "utf-8", ""
        else:
            text, self.codec, self.charset = decode(content, names, charset)
        try:
            self._message: Any = hl7.parse(text)
        except Exception as error:  # whatever the parser trips over is a malformed message
            raise BadMessage(Code.SEQUENCE, "MSH", f"cannot be taken apart: {error}", reject=True) from error
        self._escape = str(self._message.esc)
        self._separators = {
            letter: str(self._message.separators[n]) for n, letter in ((1, "F"), (2, "R"), (3, "S"), (4, "T"))
        }

    def segments(self) -> Iterator[tuple[str, Any]]:
        """Yield every segment with its name, in order."""
        for segment in self._message:
            yield str(segment[0]), segment

    def first(self, name: str) -> Any:
        """Return the first segment of a name, or None."""
        return next((segment for one, segment in self.segments() if one == name), None)

    def value(self, segment: Any, field: int, component: int = 0, subcomponent: int = 0) -> str:
        """Return a value of a field's first repetition: empty where there is none, NULL where it is to go."""
        repetitions = self.repetitions(segment, field)
        return self.part(repetitions[0], component, subcomponent) if repetitions else ""

    def repetitions(self, segment: Any, field: int) -> Sequence[Any]:
        """Return the repetitions of a field that are not empty."""
        if segment is None or field >= len(segment):
            return []
        return [one for one in segment[field] if str(one)]

    def part(self, repetition: Any, component: int = 0, subcomponent: int = 0) -> str:
        """Return a component of a repetition. 0 is the first, as for what is not divided any further."""
        found = _nth(_nth(repetition, component), subcomponent)
        while not isinstance(found, str):
            found = found[0] if found else ""
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


def _nth(container: Any, number: int) -> Any:
    """Return the nth part, counted from 1. An undivided value is its own first part."""
    index = max(number, 1) - 1
    if isinstance(container, str):
        return container if index == 0 else ""
    if number == 0:
        return container
    return container[index] if index < len(container) else ""
