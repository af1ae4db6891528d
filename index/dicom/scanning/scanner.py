"""The plain scan: one bounded pass over a data set's elements (PS3.5 Section 7), without decoding values.

What it collects is `Raw`: tag -> bytes, or for a sequence the list of its items, each a `Raw` again.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from index.dicom.attributes import (
    IDENTITY,
    NUMBER_OF_FRAMES,
    SHARED_GROUPS,
    WANTED,
    Attribute,
    Kind,
    Table,
)
from index.dicom.scanning.byte_window import ELEMENT_LIMIT, Window
from index.dicom.scanning.encodings import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    Encoding,
    Garbled,
    NotUnderstood,
    of_item,
    of_sequence,
)
from index.dicom.scanning.layout_cache import LayoutCache, Step
from index.dicom.scanning.structure import read_element, skip_sequence

Raw = dict[int, Any]
Issues = dict[str, None]  # in order, each once

PIXEL_GROUP = 0x7FE00000  # nothing is wanted from here on

# A value longer than this is left out, in bytes: no VR with a 16-bit length can be longer.
VALUE_LIMIT = 65_535
# A wanted sequence longer than this is left out, in bytes: shared functional groups take some 10 kB.
SEQUENCE_LIMIT = 256 * 1024
# Items of one sequence that are kept; real ones have a handful.
ITEM_LIMIT = 64
# What an element takes that is read by itself, compared with those that are jumped over.
_SPECIAL = 5
DISORDER = "Elements are out of order"
NO_VR = "Elements have no VR, or one that is none"

# The last tags wanted, by whether there are functional groups (a multi-frame object has NumberOfFrames).
_LAST = max(tag for tag in WANTED if tag != SHARED_GROUPS.tag)
_LAST_OF_FRAMES = SHARED_GROUPS.tag
_NO_LAST = 0xFFFFFFFF


class End:
    """Where the top level of a data set may end: at the last tag wanted, once the identity is known.

    Elements of defined length are still jumped over up to the pixel data: that shows a truncated data set.
    """

    def __init__(self, raw: Raw, doubts: Issues) -> None:
        self._raw = raw
        self._doubts = doubts
        self.last = _LAST

    def reached(self, tag: int, length: int, start: int, size: int) -> bool:
        """Tell whether to stop before this element, whose value starts at `start`."""
        if self.last == _LAST and NUMBER_OF_FRAMES.tag in self._raw:
            self.last = _LAST_OF_FRAMES
        if tag <= self.last or (tag < PIXEL_GROUP and length != UNDEFINED) or not identified(self._raw):
            return False
        if length != UNDEFINED and start + length > size:
            self._doubts["The data set is truncated"] = None
        return True


def identified(raw: Raw) -> bool:
    """Tell whether the Study, Series and SOP Instance UIDs have been read."""
    return raw.keys() >= IDENTITY


def scan(
    window: Window,
    encoding: Encoding,
    wanted: Table,
    raw: Raw,
    doubts: Issues,
    *,
    start: int = 0,
    nested: bool = False,
    is_open: bool = False,
    trails: LayoutCache | None = None,
    frames: Callable[..., None] = lambda *_: None,
) -> int:
    """Collect the wanted elements from `start` on into `raw`; returns the offset behind the last one seen.

    Of an element that stands twice the first with a value is kept.
    `nested`: this is an item, which ends at its delimiter, or where that is missing and the item's length
    `is_open`, at the next item or the sequence's end. `trails` are those of explicit data sets that were read
    with the same encoding and table, `frames` reads the groups of frames. Raises Garbled where it is broken.
    """
    end = End(raw, doubts)
    explicit = encoding.explicit
    hop = _hop_explicit if explicit else _hop_implicit
    if trails is not None:
        hop = partial(_follow, trails)
    place, previous, left = window.load(start, 1) if start else 0, -1, ELEMENT_LIMIT
    while True:
        last = _NO_LAST if nested else end.last
        place, previous, left = hop(window.data, place, previous, last, encoding, wanted, raw, left)
        if left <= 0:
            raise Garbled(f"it has more than {ELEMENT_LIMIT} elements")
        offset = window.base + place
        if offset >= window.size or not window.read(offset, 1):
            return _ended(offset, window.size)
        element = read_element(window, offset, encoding)
        if nested and (element.tag == ITEM_END or (is_open and element.tag >= ITEM)):
            return element.start if element.tag == ITEM_END else offset
        frames(window, encoding, element, raw, doubts)
        if not nested and end.reached(element.tag, element.length, element.start, window.size):
            return element.start
        tag, left = element.tag, left - _SPECIAL
        if tag <= previous or (explicit and element.vr is None):
            note(tag, element.vr, encoding, -1 if nested else previous, doubts)
        if previous < tag < ITEM:
            previous = tag
        offset = _take(window, encoding, element, wanted.get(tag), raw, doubts)
        place = window.load(offset, 1)
        if window.base + place != offset:
            return _ended(offset, window.size)


def note(tag: int, vr: str | None, encoding: Encoding, previous: int, doubts: Issues) -> None:
    """Say what is odd about an element behind the tag `previous`."""
    if tag <= previous:
        doubts[DISORDER] = None
    if vr is None and encoding.explicit and tag < ITEM:
        doubts[NO_VR] = None


def _hop_explicit(
    data: bytes, place: int, previous: int, last: int, encoding: Encoding, wanted: Table, raw: Raw, left: int
) -> tuple[int, int, int]:
    """Jump over what is not wanted and take plain values, as long as nothing is special.

    Returns the place of what is (or where `data` ends), the tag before it, how many elements are left to see.
    """
    vrs, short = encoding.vrs, encoding.short
    unpack, unpack_length = encoding.element.unpack_from, encoding.length.unpack_from
    size = len(data)
    limit, long_limit = size - 8, size - 12
    for left in range(left, 0, -1):  # noqa: B020, PLR1704 - counts the budget down
        if place > limit:
            return place, previous, left
        group, element, vr, length = unpack(data, place)
        tag = group << 16 | element
        if not previous < tag <= last:
            return place, previous, left
        if vr in short:
            end = place + 8 + length
            if tag in wanted:
                if end > size or vrs[vr] != wanted[tag].vr:
                    return place, previous, left
                raw[tag] = data[place + 8 : end]
        elif vr in vrs and tag not in wanted and place <= long_limit:
            (length,) = unpack_length(data, place + 8)
            if length == UNDEFINED:
                return place, previous, left
            end = place + 12 + length
        else:
            return place, previous, left
        place, previous = end, tag
    return place, previous, 0


def _follow(
    trails: LayoutCache,
    data: bytes,
    place: int,
    previous: int,
    last: int,
    encoding: Encoding,
    wanted: Table,
    raw: Raw,
    left: int,
) -> tuple[int, int, int]:
    """Do what `_hop_explicit` does along trails."""

    def step(place: int, previous: int, last: int) -> Step | None:
        after, tag, special = _hop_explicit(data, place, previous, last, encoding, wanted, raw, 1)
        if special:
            return None
        code = encoding.element.unpack_from(data, place)[2]
        return Step(place, tag, 8 if code in encoding.short else 12, after - place, tag in wanted)

    return trails.follow(data, place, previous, last, left, raw, step)


def _hop_implicit(
    data: bytes, place: int, previous: int, last: int, encoding: Encoding, wanted: Table, raw: Raw, left: int
) -> tuple[int, int, int]:
    """Do the same where elements carry no VR."""
    unpack = encoding.element.unpack_from
    size = len(data)
    limit = size - 8
    for left in range(left, 0, -1):  # noqa: B020, PLR1704 - counts the budget down
        if place > limit:
            return place, previous, left
        group, element, length = unpack(data, place)
        tag = group << 16 | element
        if length == UNDEFINED or not previous < tag <= last:
            return place, previous, left
        end = place + 8 + length
        if tag in wanted:
            if end > size or length > VALUE_LIMIT or wanted[tag].items:
                return place, previous, left
            raw[tag] = data[place + 8 : end]
        place, previous = end, tag
    return place, previous, 0


def _ended(offset: int, size: int) -> int:
    """Accept an end at the end only."""
    if offset != size:
        raise Garbled("it ends within an element")
    return offset


def _take(
    window: Window,
    encoding: Encoding,
    element: Element,
    attribute: Attribute | None,
    raw: Raw,
    doubts: Issues,
) -> int:
    """Keep or leave out an element that is not plain; returns the offset behind it."""
    start, length = element.start, element.length
    end = skip_sequence(window, start, encoding) if length == UNDEFINED else start + length
    if attribute is None or not acceptable(attribute, element, end - start, raw, doubts):
        return end
    value = window.read(start, end - start)
    if len(value) < end - start:
        raise Garbled("it ends within an element")
    if attribute.kind is not Kind.SEQUENCE:
        raw[element.tag] = as_written(value, attribute, element.vr, little=encoding.little)
        return end
    try:
        raw[element.tag] = read_items(value, encoding, attribute, doubts)
    except NotUnderstood:
        raise
    except Garbled as fault:
        doubts[f"{attribute.keyword} is left out: {fault}"] = None
    return end


def as_written(value: bytes, attribute: Attribute, vr: str | None, *, little: bool) -> bytes:
    """Return a value in its data set's byte order: of VR UN it is little endian (PS3.5 Section 6.2.2)."""
    return value[::-1] if vr == "UN" and attribute.kind is Kind.NUMBER and not little else value


def acceptable(attribute: Attribute, element: Element, length: int, raw: Raw, doubts: Issues) -> bool:
    """Tell whether a wanted element of `length` bytes is kept beside those in `raw`; if not, why."""
    sequence = attribute.kind is Kind.SEQUENCE
    if raw.get(attribute.tag):
        doubts[f"{attribute.keyword} stands there twice; the first is kept"] = None
    elif not attribute.fits(element.vr) or (element.length == UNDEFINED and not sequence):
        doubts[f"{attribute.keyword} is left out: its VR is {element.vr or 'a sequence'}"] = None
    elif length > (SEQUENCE_LIMIT if sequence else VALUE_LIMIT):
        doubts[f"{attribute.keyword} is left out: it is longer than the limit"] = None
    else:
        return True
    return False


def read_items(value: bytes, encoding: Encoding, attribute: Attribute, doubts: Issues) -> list[Raw]:
    """Read the items of a wanted sequence (PS3.5 Section 7.5). Raises Garbled."""
    items: list[Raw] = []
    place = 0
    encoding = of_sequence(encoding, value)
    while place < len(value):
        if place + 8 > len(value):
            raise Garbled("an item is broken")
        group, number, length = encoding.item.unpack_from(value, place)
        place += 8
        if (tag := group << 16 | number) == SEQUENCE_END:
            break
        if tag != ITEM or (length != UNDEFINED and place + length > len(value)):
            raise Garbled("an item is broken")
        if len(items) == ITEM_LIMIT:
            doubts[too_many(attribute)] = None
            break
        is_open = length == UNDEFINED
        inner = value[place:] if is_open else value[place : place + length]
        items.append({})
        inside = of_item(encoding, inner) if encoding.explicit else encoding
        read = scan(Window(inner), inside, attribute.items, items[-1], doubts, nested=True, is_open=is_open)
        place += read if is_open else length
    return items


def too_many(attribute: Attribute) -> str:
    """Say that items are left out."""
    return f"{attribute.keyword} has more than {ITEM_LIMIT} items; the first are kept"
