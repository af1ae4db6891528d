"""Read an instance's attributes from the first bytes of its data set, within limits.

The plain scan of `elements.py` reads what it knows; pydicom takes over where it meets something else. Both
collect the same raw values, which `values.py` describes, so both give the same Header.
"""

import threading

from index.attributes import WANTED
from index.elements import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED,
    Doubts,
    Encoding,
    Garbled,
    NotUnderstood,
    Raw,
    identified,
    is_vr,
    scan,
)
from index.errors import Unreadable
from index.frames import read_frames
from index.records import Header
from index.trails import Trails
from index.values import Descriptions, describe
from index.window import Inflater, More, Window

_DEFLATED = "1.2.840.10008.1.2.1.99"
_HEADER = 8  # bytes of an element's header
_STANDARD = "1.2.840.10008."
# PS3.5 Annex A; every other standard syntax is Explicit VR Little Endian.
_ENCODINGS = {
    "1.2.840.10008.1.2": IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.2": EXPLICIT_BIG,
    "1.2.840.10008.1.20": IMPLICIT_LITTLE,  # Papyrus 3, retired
    "1.2.840.113619.5.2": IMPLICIT_LITTLE,  # GE private: implicit, with big endian pixels
}


class _Memory(threading.local):
    """What a thread remembers of the data sets that it has read: an association sends many that are alike."""

    def __init__(self) -> None:
        self.trails = Trails()
        self.descriptions = Descriptions()


_memory = _Memory()


def read_header(
    head: bytes | memoryview,
    transfer_syntax: str,
    *,
    more: More | None = None,
    size: int | None = None,
) -> Header:
    """Read the header of a data set (no preamble, no file meta information) in this transfer syntax (a UID).

    `head` are its first bytes, `more(offset, n)` gives n bytes from an offset on (fewer at the end), `size`
    is its total length in bytes (None: all is in `head`). Missing UIDs are empty. What is odd is a doubt.
    Raises Unreadable where the encoding breaks before the Study, Series and SOP Instance UIDs.
    """
    return _read(_Source(head, transfer_syntax, more, size), by_pydicom=False)


def read_by_pydicom(
    head: bytes | memoryview,
    transfer_syntax: str,
    *,
    more: More | None = None,
    size: int | None = None,
) -> Header:
    """Read as `read_header` does, by pydicom's parser alone: same arguments, same answer, but slow."""
    return _read(_Source(head, transfer_syntax, more, size), by_pydicom=True)


class _Source:
    """A data set to read: its bytes, inflated where need be, its encoding, and what was odd so far."""

    def __init__(self, head: bytes | memoryview, syntax: str, more: More | None, size: int | None) -> None:
        self.doubts: Doubts = {}
        self.inflater: Inflater | None = None
        self.window = Window(bytes(head), more, size)
        if syntax == _DEFLATED:
            self.inflater = Inflater(self.window)
            if self.inflater.more(0, _HEADER):
                self.window = self.inflater.window
            else:  # some senders name this syntax and do not deflate
                self.inflater = None
        self.encoding = self._sniff(_declared(syntax))

    def _sniff(self, declared: Encoding | None) -> Encoding:
        """Tell the encoding by the first element; the declared one where that tells nothing."""
        first = self.window.read(0, _HEADER)
        seen = _seen(first, self.window.size) or declared or EXPLICIT_LITTLE
        if declared not in (None, seen):
            self.doubts[f"The data set is in {seen.name}, not in its transfer syntax"] = None
        return seen

    def finish(self, raw: Raw, fault: Garbled | None) -> Header:
        """Describe what was read up to a fault. Raises Unreadable where that is not enough."""
        if self.inflater is not None and self.inflater.doubt:
            self.doubts[self.inflater.doubt] = None
        if fault is not None:
            if not identified(raw):
                raise Unreadable(f"The data set cannot be read as far as its UIDs: {fault}") from fault
            self.doubts[f"The data set cannot be read to its end: {fault}"] = None
        return describe(raw, self.doubts, little=self.encoding.little, before=_memory.descriptions)


def _declared(syntax: str) -> Encoding | None:
    standard = EXPLICIT_LITTLE if syntax.startswith(_STANDARD) else None
    return _ENCODINGS.get(syntax, standard)


def _seen(first: bytes, size: int) -> Encoding | None:
    """Tell the encoding by a first element's header, if it shows. Its group is below 0100 (hexadecimal)."""
    if is_vr(first[4:6]):
        return EXPLICIT_BIG if first[0] == 0 < first[1] else EXPLICIT_LITTLE
    length = int.from_bytes(first[4:], "little")
    if len(first) == _HEADER and first[1] == 0 and (length == UNDEFINED or length <= size - _HEADER):
        return IMPLICIT_LITTLE
    return None


def _read(source: _Source, *, by_pydicom: bool) -> Header:
    raw: Raw = {}
    fault: Garbled | None = None
    try:
        if not by_pydicom:
            trails = _memory.trails if source.encoding is EXPLICIT_LITTLE else None
            scan(
                source.window,
                source.encoding,
                WANTED,
                raw,
                source.doubts,
                trails=trails,
                frames=read_frames,
            )
    except NotUnderstood as odd:
        fault, by_pydicom = odd, True
    except Garbled as broken:
        fault = broken
    if by_pydicom:
        from index.fallback import collect

        other: Raw = {}
        again = collect(source.window, source.encoding, other, source.doubts)
        if again is None or identified(other) or not identified(raw):
            raw, fault = other, again
    return source.finish(raw, fault)
