"""The messages of one frame or file: several in a row, with or without the envelopes of a batch.

HL7 v2.5.1 Section 2.10.3: FHS and BHS before, BTS and FTS behind, each message between them with its own MSH.
"""

import re
from collections.abc import Iterator

_BOM = b"\xef\xbb\xbf"
# MLLP's own signs: between messages they part segments (MLLP Release 1).
_FRAMING = re.compile(rb"[\x0b\x1c]")
_ENVELOPE = (b"FHS", b"BHS", b"BTS", b"FTS")
_BEGINS = re.compile(rb"(?:\A|(?<=[\r\n]))(?:MSH|FHS|BHS|BTS|FTS)")
# MSH, the field separator, MSH-2 and the separator again: what no text within a message can be.
_HEADER = re.compile(rb"MSH([!-/:-@\[-`{-~])[!-/:-@\[-`{-~]{4,5}\1")


def messages(content: bytes) -> Iterator[bytes]:
    """Yield each message, one at least. What is no message is yielded too, so that somebody says so.

    A message that another one cuts off within a segment ends with the header of that: it is to be refused.
    """
    content = _FRAMING.sub(b"\r", content.removeprefix(_BOM))
    start = 0
    for match in _BEGINS.finditer(content):
        yield from _piece(content[start : match.start()])
        start = match.start()
    yield from _piece(content[start:], only=start == 0)


def _piece(content: bytes, *, only: bool = False) -> Iterator[bytes]:
    """Yield what stands between two beginnings, without envelopes; nothing at all only where it is `only`."""
    if not only and (not content.strip() or content.startswith(_ENVELOPE)):
        return
    header = _HEADER.match(content)
    sign = header[0] if header else b""
    while sign and (at := content.find(sign, 1)) > 0:
        yield content[:at] + sign
        content = content[at:]
    yield content
