"""Read an instance's attributes from the first bytes of its data set, within limits.

The plain scan (scanner.py) reads nearly all data sets; pydicom reads the others (pydicom_scanner.py). Both
collect the same raw values, from which decoding.py makes the same Header.
"""

import threading

from index.dicom.attributes import WANTED
from index.dicom.decoding import LevelsCache, decode_header
from index.dicom.part10 import GROUP, PREAMBLE, PREFIX, NotPart10, read_group
from index.dicom.scanning.byte_window import ByteWindow, Inflater, More
from index.dicom.scanning.encodings import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    HEADER,
    IMPLICIT_LITTLE,
    BrokenEncoding,
    Doubts,
    Encoding,
    Raw,
    UnknownEncoding,
    detect_encoding,
    is_vr,
)
from index.dicom.scanning.frames import read_frames
from index.dicom.scanning.layout_cache import LayoutCache
from index.dicom.scanning.scanner import has_uids, scan
from index.dicom.scanning.structure import read_element
from index.errors import Unreadable
from index.records import Header

# Bytes that hold the header of nearly every instance. An object of at most this size stays in memory until it
# is complete, and may be written to the journal.
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
# The first group of nearly all data sets, in either byte order.
_IDENTIFYING = (b"\x08\x00", b"\x00\x08")


class _ThreadCaches(threading.local):
    """The caches of a thread: an association sends many data sets that are alike."""

    def __init__(self) -> None:
        self.layout_cache = LayoutCache()
        self.levels_cache = LevelsCache()


_caches = _ThreadCaches()


def read_header(
    head: bytes | memoryview,
    transfer_syntax: str,
    *,
    more: More | None = None,
    size: int | None = None,
) -> Header:
    """Read the header of a data set (no preamble, no file meta information) in this transfer syntax (a UID).

    `head` holds its first bytes, `more(offset, n)` returns n bytes from an offset on (fewer at the end),
    `size` is its length in bytes (None: `head` is all of it). Missing UIDs are empty; faults are doubts.
    Raises Unreadable where the data set cannot be read as far as its Study, Series and SOP Instance UIDs.
    """
    source = _Source(head, transfer_syntax, more, size)
    raw: Raw = {}
    fault: BrokenEncoding | None = None
    try:
        scan(
            source.window,
            source.encoding,
            WANTED,
            raw,
            source.doubts,
            start=source.start,
            layout_cache=_caches.layout_cache if source.encoding is EXPLICIT_LITTLE else None,
            frames=read_frames,
        )
    except UnknownEncoding as error:
        raw, fault = _read_by_pydicom(source, raw, error)
    except BrokenEncoding as error:
        fault = error
    return source.finish(raw, fault)


def _read_by_pydicom(source: "_Source", raw: Raw, fault: BrokenEncoding) -> tuple[Raw, BrokenEncoding | None]:
    """Return what pydicom reads, and its fault; the given ones where only they have the UIDs."""
    from index.dicom.scanning.pydicom_scanner import collect

    other: Raw = {}
    other_fault = collect(source.window, source.start, source.encoding, other, source.doubts)
    if other_fault is None or has_uids(other) or not has_uids(raw):
        return other, other_fault
    return raw, fault


def detect_transfer_syntax(head: bytes, more: More, size: int) -> str:
    """Return the transfer syntax of a data set by its first bytes; arguments as of `read_header`."""
    source = _Source(head, _DEFLATED, more, size)
    return _DEFLATED if source.inflater else source.encoding.syntax


class _Source:
    """A data set to read: its bytes, inflated if necessary, its encoding, and the doubts so far.

    It begins at `start` in its window: some senders put the meta information of the file before it.
    """

    def __init__(self, head: bytes | memoryview, syntax: str, more: More | None, size: int | None) -> None:
        self.doubts: Doubts = {}
        self.inflater: Inflater | None = None
        self.window = ByteWindow(bytes(head), more, size)
        self.start = 0
        if syntax in _ALL_DEFLATED:
            self._inflate()
        first = self.window.read(self.start, HEADER)
        if first[:2] not in _IDENTIFYING:
            inner = self._skip_meta()
            if inner in _ALL_DEFLATED or syntax in _ALL_DEFLATED:
                self._inflate()
            first = self.window.read(self.start, HEADER)
        self.encoding = self._detect_encoding(first, _declared(syntax))

    def _inflate(self) -> None:
        """Go on with the inflated bytes. Some senders name a deflated syntax and do not deflate."""
        inflater = Inflater(self.window, self.start)
        first = inflater.more(0, HEADER)
        if len(first) == HEADER and detect_encoding(first, inflater.window.size):
            self.inflater, self.window, self.start = inflater, inflater.window, 0

    def _skip_meta(self) -> str:
        """Go behind preamble and File Meta Information; return the transfer syntax that they name."""
        syntax = ""
        window, before = self.window, self.start
        if window.read(before + len(PREAMBLE), len(PREFIX)) == PREFIX:
            self.start += len(PREAMBLE) + len(PREFIX)
        try:
            while window.read(self.start, 2) in GROUP:
                meta = read_group(window, self.start)
                self.start = meta.offset
                syntax = syntax or meta.transfer_syntax
        except NotPart10:  # the scan finds the fault
            pass
        if self.start > before:
            self.doubts["The data set begins with File Meta Information"] = None
        return syntax

    def _detect_encoding(self, first: bytes, declared: Encoding | None) -> Encoding:
        """Return the encoding by the first element, or the declared one where that does not show it."""
        found = detect_encoding(first, self.window.size - self.start) or declared or EXPLICIT_LITTLE
        if declared and declared.explicit and not found.explicit and self._is_followed_by_vr(declared):
            return declared
        if declared not in (None, found):
            self.doubts[f"The data set is in {found.name}, not in its transfer syntax"] = None
        return found

    def _is_followed_by_vr(self, encoding: Encoding) -> bool:
        """Whether only the first element has no VR."""
        try:
            element = read_element(self.window, self.start, encoding)
        except BrokenEncoding:
            return False
        following = self.window.read(element.start + element.length, HEADER)
        return is_vr(following[4:6])

    def finish(self, raw: Raw, fault: BrokenEncoding | None) -> Header:
        """Make the Header of what was read up to a fault. Raises Unreadable where UIDs are missing."""
        if self.inflater is not None:
            self.doubts.update(dict.fromkeys(self.inflater.doubts))
        if fault is not None:
            if not has_uids(raw):
                raise Unreadable(f"The data set cannot be read as far as its UIDs: {fault}") from fault
            self.doubts[f"The data set cannot be read to its end: {fault}"] = None
        return decode_header(raw, self.doubts, little=self.encoding.little, cache=_caches.levels_cache)


def _declared(syntax: str) -> Encoding | None:
    standard = EXPLICIT_LITTLE if syntax.startswith(_STANDARD) else None
    return _ENCODINGS.get(syntax, standard)
