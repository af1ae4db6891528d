"""The same collection as the plain scan's, by pydicom's parser: for what the scan does not know."""

from io import BytesIO
from typing import Any, cast

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator, read_sequence
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from index.attributes import WANTED, Attribute, Kind
from index.elements import (
    DISORDER,
    ITEM_LIMIT,
    SEQUENCE_LIMIT,
    Doubts,
    Element,
    Encoding,
    End,
    Garbled,
    Raw,
    acceptable,
    too_many,
)
from index.frames import read_frames
from index.window import Window

# Bytes that pydicom may read of one data set; it skips unwanted elements of defined length unread.
READ_LIMIT = 4 * 1024 * 1024
_HEADER = 8  # bytes of an element's header that pydicom reads first; none left there is a clean end
_ITEM = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # the tag of an item in either byte order


class _File:
    """A Window as pydicom wants it: a file that ends with an error, not silently, and reads boundedly."""

    def __init__(self, window: Window) -> None:
        self._window = window
        self._left = READ_LIMIT
        self._offset = 0
        self.size = window.size

    def read(self, length: int) -> bytes:
        if length > self._left:
            raise Garbled(f"pydicom would read more than {READ_LIMIT} bytes")
        found = self._window.read(self._offset, length)
        self._left -= len(found)
        if len(found) < length and (found or length != _HEADER or self._offset != self._window.size):
            raise Garbled("it ends within an element")
        self._offset += len(found)
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        self._offset = offset + (self._offset if whence == 1 else 0)
        return self._offset

    def tell(self) -> int:
        return self._offset


def collect(window: Window, encoding: Encoding, raw: Raw, doubts: Doubts) -> Garbled | None:
    """Collect the wanted elements into `raw`; returns what stopped it before its end, or None."""
    file = _File(window)
    end = End(raw, doubts)
    previous = -1

    def stop(tag: BaseTag, _vr: str | None, length: int) -> bool:
        nonlocal previous
        read_frames(window, encoding, Element(int(tag), _vr, file.tell(), length), raw, doubts)
        if end.reached(tag, length, file.tell(), window.size):
            return True
        if tag <= previous:
            doubts[DISORDER] = None
        previous = int(tag)
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
            _keep(element, WANTED, raw, doubts, file.tell())
    except Garbled as fault:
        return fault
    except Exception as fault:  # noqa: BLE001 - pydicom's parser raises whatever it stumbles over
        return Garbled(f"pydicom says {type(fault).__name__}")
    return None


def _keep(element: RawDataElement | DataElement, table: Any, raw: Raw, doubts: Doubts, end: int) -> None:
    """Keep one element by the plain scan's rules. `end` is where it ended; -1 where that is not known."""
    tag = int(element.tag)
    attribute: Attribute = table[tag]
    if (
        isinstance(element, DataElement) and element.VR != "SQ"
    ):  # an item's character set, which pydicom decodes
        terms = element.value or ""
        raw[tag] = (terms if isinstance(terms, str) else "\\".join(terms)).encode("latin_1", "replace")
        return
    if isinstance(element, DataElement):  # a sequence of undefined length, parsed already
        start = element.file_tell or 0
        header = Element(tag, "SQ", start, 0)
        if acceptable(attribute, header, end - start, doubts):
            raw[tag] = _items(element.value, attribute, doubts)
        return
    header = Element(tag, element.VR, element.value_tell, element.length)
    if not acceptable(attribute, header, element.length, doubts):
        return
    value = element.value or b""
    if len(value) < element.length:
        raise Garbled("it ends within an element")
    if attribute.kind is not Kind.SEQUENCE:
        raw[tag] = value
        return
    if value and value[:4] not in _ITEM:  # pydicom does not look
        doubts[f"{attribute.keyword} is left out: an item is broken"] = None
        return
    try:
        sequence = read_sequence(
            cast("Any", BytesIO(value)),
            element.is_implicit_VR,
            element.is_little_endian,
            len(value),
            "latin_1",
        )
        raw[tag] = _items(sequence, attribute, doubts)
    except Exception:  # noqa: BLE001 - as above: one broken sequence is one doubt
        doubts[f"{attribute.keyword} is left out: an item is broken"] = None


def _items(sequence: Sequence, attribute: Attribute, doubts: Doubts) -> list[Raw]:
    if len(sequence) > ITEM_LIMIT:
        doubts[too_many(attribute)] = None
    return [_item(item, attribute, doubts) for item in sequence[:ITEM_LIMIT]]


def _item(item: Dataset, attribute: Attribute, doubts: Doubts) -> Raw:
    raw: Raw = {}
    for tag in item.keys() & attribute.items.keys():
        _keep(item.get_item(tag), attribute.items, raw, doubts, 0)
    return raw
