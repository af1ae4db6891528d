"""The messages of one frame or file: several in a row, with or without the envelopes of a batch.

HL7 v2.5.1 Section 2.10.3: FHS and BHS before, BTS and FTS behind, each message between them with its own MSH.
"""

import re
from collections.abc import Iterator

_BOM = b"\xef\xbb\xbf"
# MLLP's own signs part segments where they stand within a message (MLLP Release 1); so does a line feed.
_PARTED = bytes.maketrans(b"\x0b\x1c\n", b"\r\r\r")
_ENVELOPE = (b"FHS", b"BHS", b"BTS", b"FTS")
_CR = ord("\r")
_NAME = re.compile(rb"MSH|[FB][HT]S")
# MSH, the field separator, MSH-2 of four or five signs and the separator again.
_HEADER = re.compile(rb"MSH([!-/:-@\[-`{-~])([!-/:-@\[-`{-~]{4,5})\1")


def messages(content: bytes) -> Iterator[bytes]:
    """Yield each message, one at least. What is no message is yielded too, so that somebody says so.

    A message that another one cuts off within a segment ends with the header of that: it is to be refused.
    """
    content = content.removeprefix(_BOM).translate(_PARTED)
    found = False
    for piece in _pieces(content):
        if piece.strip() and not piece.startswith(_ENVELOPE):
            found = True
            yield from _uncut(piece)
    if not found:
        yield content


def _pieces(content: bytes) -> Iterator[bytes]:
    """Yield what stands from the beginning of one message or envelope to the next."""
    start = 0
    for match in _NAME.finditer(content):
        if match.start() and content[match.start() - 1] == _CR:
            yield content[start : match.start()]
            start = match.start()
    yield content[start:]


def _uncut(content: bytes) -> Iterator[bytes]:
    """Yield a piece cut before each header within a segment, in one pass whatever it holds."""
    first = _HEADER.match(content)
    if first:
        start, header = 0, first[0]
        for at, following in _headers(content, first):
            yield content[start:at] + header
            start, header = at, following
        content = content[start:]
    if not content.startswith(_ENVELOPE):
        yield content


def _headers(content: bytes, first: re.Match[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield where headers begin behind the first one, and each header.

    No text can be the first one's delimiters: they are a header's, whatever stands before them. Others are
    where MSH stands before them, and no sign is there twice: MSH may be somebody's initials.
    """
    delimiters = first[0][len(b"MSH") :]
    begin = 0
    for match in re.finditer(_HEADER.pattern + b"|" + re.escape(delimiters), content[first.end() :]):
        at, header = first.end() + match.start(), match[0]
        if header == delimiters:
            at, header = at - len(b"MSH"), first[0]
        elif header != first[0] and len(set(match[1] + match[2])) < len(match[1] + match[2]):
            continue
        if at > begin:
            yield at, header
            begin = at
