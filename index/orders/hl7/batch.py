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
# MSH, the field separator, MSH-2 and the separator again: but for a header, no text can be these delimiters.
_HEADER = re.compile(rb"MSH([!-/:-@\[-`{-~])[!-/:-@\[-`{-~]{4,5}\1")


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
    header = _HEADER.match(content)
    if header:
        delimiters = header[0][len(b"MSH") :]
        while (at := content.find(delimiters, len(header[0])) - len(b"MSH")) > 0:
            yield content[:at] + header[0]
            content = content[at:]
    if not content.startswith(_ENVELOPE):
        yield content
