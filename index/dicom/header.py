"""Read an instance's attributes from the first bytes of its data set, within limits.

The plain scan of `elements.py` reads what it knows; pydicom takes over where it meets something else. Both
collect the same raw values, which `values.py` describes, so both give the same Header.
"""

import threading

from index.dicom.attributes import WANTED
from index.dicom.decoding import Descriptions, describe
from index.dicom.part10 import GROUP, PREAMBLE, PREFIX, NotPart10, read_group
from index.dicom.scanning.byte_window import Inflater, More, Window
from index.dicom.scanning.encodings import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    HEADER,
    IMPLICIT_LITTLE,
    Encoding,
    Garbled,
    NotUnderstood,
    is_vr,
    seen,
)
from index.dicom.scanning.frames import read_frames
from index.dicom.scanning.layout_cache import LayoutCache
from index.dicom.scanning.scanner import Issues, Raw, identified, scan
from index.dicom.scanning.structure import read_element
from index.errors import Unreadable
from index.records import Header

# Enough for the header of nearly every instance. An object that is no larger stays in memory until it is
# whole, and may go through the journal (spool.py).
HEAD_SIZE = 64 * 1024
_DEFLATED = "1.2.840.10008.1.2.1.99"
# PS3.5 Section A.5, and PS3.6 Table A-1 for the JPIP Referenced ones.
_ALL_DEFLATED = frozenset({_DEFLATED, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
_STANDARD = "1.2.840.10008."
# PS3.5 Annex A; every other standard syntax is Explicit VR Little Endian.
_ENCODINGS = {
    "1.2.840.10008.1.2": IMPLICIT_LITTLE,
    "1.2.840.10008.1.2.2": EXPLICIT_BIG,
    "1.2.840.10008.1.20": IMPLICIT_LITTLE,  # Papyrus 3, retired
    "1.2.840.113619.5.2": IMPLICIT_LITTLE,  # GE private: implicit, with big endian pixels
}
# The group that nearly all data sets begin with, in either byte order.
_IDENTIFYING = (b"\x08\x00", b"\x00\x08")


class _Memory(threading.local):
    """What a thread remembers of the data sets that it has read: an association sends many that are alike."""

    def __init__(self) -> None:
        self.trails = LayoutCache()
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


def tell_transfer_syntax(head: bytes, more: More, size: int) -> str:
    """Tell the transfer syntax of a data set that nothing names, by its first bytes; arguments as above."""
    source = _Source(head, _DEFLATED, more, size)
    return _DEFLATED if source.inflater else source.encoding.syntax


class _Source:
    """A data set to read: its bytes, inflated where need be, its encoding, and what was odd so far.

    It begins at `start` in its window: files are sent as data sets, or with their meta information.
    """

    def __init__(self, head: bytes | memoryview, syntax: str, more: More | None, size: int | None) -> None:
        self.doubts: Issues = {}
        self.inflater: Inflater | None = None
        self.window = Window(bytes(head), more, size)
        self.start = 0
        if syntax in _ALL_DEFLATED:
            self._inflate()
        first = self.window.read(self.start, HEADER)
        if first[:2] not in _IDENTIFYING:
            inner = self._pass_meta()
            if inner in _ALL_DEFLATED or syntax in _ALL_DEFLATED:
                self._inflate()
            first = self.window.read(self.start, HEADER)
        self.encoding = self._sniff(first, _declared(syntax))

    def _inflate(self) -> None:
        """Go on with the inflated bytes; some senders name a deflated syntax and do not deflate."""
        inflater = Inflater(self.window, self.start)
        first = inflater.more(0, HEADER)
        if len(first) == HEADER and seen(first, inflater.window.size):
            self.inflater, self.window, self.start = inflater, inflater.window, 0

    def _pass_meta(self) -> str:
        """Begin behind preamble and File Meta Information; return the transfer syntax that this names."""
        syntax = ""
        window, before = self.window, self.start
        if window.read(before + len(PREAMBLE), len(PREFIX)) == PREFIX:
            self.start += len(PREAMBLE) + len(PREFIX)
        try:
            while window.read(self.start, 2) in GROUP:
                meta = read_group(window, self.start)
                self.start = meta.offset
                syntax = syntax or meta.transfer_syntax
        except NotPart10:  # what it is then the scan tells
            pass
        if self.start > before:
            self.doubts["The data set begins with File Meta Information"] = None
        return syntax

    def _sniff(self, first: bytes, declared: Encoding | None) -> Encoding:
        """Tell the encoding by the first element; the declared one where that tells nothing."""
        found = seen(first, self.window.size - self.start) or declared or EXPLICIT_LITTLE
        if declared and declared.explicit and not found.explicit and self._goes_on(declared):
            return declared
        if declared not in (None, found):
            self.doubts[f"The data set is in {found.name}, not in its transfer syntax"] = None
        return found

    def _goes_on(self, encoding: Encoding) -> bool:
        """Tell whether it is the first element only that has no VR."""
        try:
            element = read_element(self.window, self.start, encoding)
        except Garbled:
            return False
        following = self.window.read(element.start + element.length, HEADER)
        return is_vr(following[4:6])

    def finish(self, raw: Raw, fault: Garbled | None) -> Header:
        """Describe what was read up to a fault. Raises Unreadable where that is not enough."""
        if self.inflater is not None:
            self.doubts.update(dict.fromkeys(self.inflater.doubts))
        if fault is not None:
            if not identified(raw):
                raise Unreadable(f"The data set cannot be read as far as its UIDs: {fault}") from fault
            self.doubts[f"The data set cannot be read to its end: {fault}"] = None
        return describe(raw, self.doubts, little=self.encoding.little, before=_memory.descriptions)


def _declared(syntax: str) -> Encoding | None:
    standard = EXPLICIT_LITTLE if syntax.startswith(_STANDARD) else None
    return _ENCODINGS.get(syntax, standard)


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
                start=source.start,
                trails=trails,
                frames=read_frames,
            )
    except NotUnderstood as odd:
        fault, by_pydicom = odd, True
    except Garbled as broken:
        fault = broken
    if by_pydicom:
        from index.dicom.scanning.pydicom_scanner import collect

        other: Raw = {}
        again = collect(source.window, source.start, source.encoding, other, source.doubts)
        if again is None or identified(other) or not identified(raw):
            raw, fault = other, again
    return source.finish(raw, fault)
