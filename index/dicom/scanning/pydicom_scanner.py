"""Collect the wanted elements by pydicom's parser, where the plain scan cannot read the data set."""

from io import BytesIO
from typing import Any, cast

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator, read_sequence
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from index.dicom.attributes import WANTED, Attribute, Kind
from index.dicom.scanning.byte_window import ByteWindow
from index.dicom.scanning.encodings import HEADER, ITEM, BrokenEncoding, Doubts, Element, Encoding, Raw
from index.dicom.scanning.frames import read_frames
from index.dicom.scanning.scanner import (
    ITEM_LIMIT,
    SEQUENCE_LIMIT,
    HeaderEnd,
    as_written,
    check_order_and_vr,
    should_keep,
    too_many_items,
)

# Bytes that pydicom may read of one data set. It skips unwanted elements of defined length unread.
READ_LIMIT = 4 * 1024 * 1024
# Calls of read, one or two for each element: some 0.2 s of work. A CT has 250 elements.
READS = 20_000
_ITEM = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # the tag of an item in either byte order


class _Limits:
    """How much pydicom may still read of one data set."""

    def __init__(self) -> None:
        self._bytes, self._reads = READ_LIMIT, READS

    def spend(self, length: int) -> None:
        """Count a read. Raises BrokenEncoding above READ_LIMIT and READS."""
        self._bytes -= length
        self._reads -= 1
        if self._bytes < 0:
            raise BrokenEncoding(f"pydicom would read more than {READ_LIMIT} bytes")
        if self._reads < 0:
            raise BrokenEncoding(f"pydicom would read more than {READS} times")


class _File:
    """A ByteWindow as a file for pydicom, read within limits. Raises BrokenEncoding at an early end."""

    def __init__(self, window: ByteWindow, limits: _Limits, offset: int = 0) -> None:
        self._window = window
        self._offset = offset
        self.limits = limits

    def read(self, length: int) -> bytes:
        self.limits.spend(length)
        found = self._window.read(self._offset, length)
        # A data set may end where a header could begin.
        if len(found) < length and (found or length != HEADER or self._offset != self._window.size):
            raise BrokenEncoding("it ends within an element")
        self._offset += len(found)
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        self._offset = offset + (self._offset if whence == 1 else 0)
        return self._offset

    def tell(self) -> int:
        return self._offset


class _Value(BytesIO):
    """The value of a sequence, read within limits."""

    def __init__(self, value: bytes, limits: _Limits) -> None:
        super().__init__(value)
        self._limits = limits

    def read(self, length: int | None = -1) -> bytes:
        found = super().read(length)
        self._limits.spend(len(found))
        return found


def collect(
    window: ByteWindow, start: int, encoding: Encoding, raw: Raw, doubts: Doubts
) -> BrokenEncoding | None:
    """Collect the wanted elements from `start` on into `raw`; return the fault that ended it, or None."""
    file = _File(window, _Limits(), start)
    end = HeaderEnd(raw, doubts)
    previous = -1

    def stop(tag: BaseTag, vr: str | None, length: int) -> bool:
        nonlocal previous
        read_frames(window, encoding, Element(int(tag), vr, file.tell(), length), raw, doubts)
        if end.reached(tag, length, file.tell(), window.size):
            return True
        check_order_and_vr(tag, vr, encoding, previous, doubts)
        if tag < ITEM:
            previous = max(previous, int(tag))
        return False

    try:
        elements = data_element_generator(
            cast("Any", file),
            not encoding.explicit,
            encoding.little,
            stop_when=stop,
            defer_size=SEQUENCE_LIMIT,
            specific_tags=[BaseTag(tag) for tag in WANTED],
        )
        for element in elements:
            _keep(element, WANTED, raw, doubts, file.limits, file.tell())
    except BrokenEncoding as fault:
        return fault
    except Exception as fault:  # noqa: BLE001 - pydicom's parser raises many kinds
        return BrokenEncoding(f"pydicom says {type(fault).__name__}")
    return None


def _keep(
    element: RawDataElement | DataElement,
    table: Any,
    raw: Raw,
    doubts: Doubts,
    limits: _Limits,
    end: int = 0,
) -> None:
    """Keep one element by the rules of the plain scan. `end` is the offset behind it, or 0 if unknown."""
    tag = int(element.tag)
    attribute: Attribute = table[tag]
    # pydicom decodes the character set of an item, and parses sequences of undefined length.
    if isinstance(element, DataElement) and element.VR != "SQ":
        terms = element.value or ""
        raw[tag] = (terms if isinstance(terms, str) else "\\".join(terms)).encode("latin_1", "replace")
        return
    if isinstance(element, DataElement):
        start = element.file_tell or 0
        header = Element(tag, "SQ", start, 0)
        if should_keep(attribute, header, end - start, raw, doubts):
            raw[tag] = _items(element.value, attribute, doubts, limits)
        return
    header = Element(tag, element.VR, element.value_tell, element.length)
    if not should_keep(attribute, header, element.length, raw, doubts):
        return
    value = element.value or b""
    if len(value) < element.length:
        raise BrokenEncoding("it ends within an element")
    if attribute.kind is not Kind.SEQUENCE:
        raw[tag] = as_written(value, attribute, element.VR, little=element.is_little_endian)
        return
    if value and value[:4] not in _ITEM:  # pydicom does not check it
        doubts[f"{attribute.keyword} is left out: an item is broken"] = None
        return
    implicit, little = element.is_implicit_VR, element.is_little_endian
    try:
        file = cast("Any", _Value(value, limits))
        sequence = read_sequence(file, implicit, little, len(value), "latin_1")
        raw[tag] = _items(sequence, attribute, doubts, limits)
    except Exception:  # noqa: BLE001 - as above
        doubts[f"{attribute.keyword} is left out: an item is broken"] = None


def _items(sequence: Sequence, attribute: Attribute, doubts: Doubts, limits: _Limits) -> list[Raw]:
    if len(sequence) > ITEM_LIMIT:
        doubts[too_many_items(attribute)] = None
    return [_item(item, attribute, doubts, limits) for item in sequence[:ITEM_LIMIT]]


def _item(item: Dataset, attribute: Attribute, doubts: Doubts, limits: _Limits) -> Raw:
    raw: Raw = {}
    for tag in item.keys() & attribute.items.keys():
        _keep(item.get_item(tag), attribute.items, raw, doubts, limits)
    return raw
