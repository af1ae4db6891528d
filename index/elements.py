"""The plain scan: one bounded pass over a data set's elements (PS3.5 Section 7), without decoding values.

What it collects is `Raw`: tag -> bytes, or for a sequence the list of its items, each a `Raw` again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from struct import Struct
from typing import Any, NamedTuple

from index.attributes import (
    IDENTITY,
    KIND_OF_VR,
    NUMBER_OF_FRAMES,
    SHARED_GROUPS,
    WANTED,
    Attribute,
    Kind,
    Table,
)
from index.trails import Step, Trails
from index.window import ELEMENT_LIMIT, Window

Raw = dict[int, Any]
Doubts = dict[str, None]  # in order, each once

UNDEFINED = 0xFFFFFFFF  # PS3.5 Section 7.1.1: a length that only a delimiter ends
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
PIXEL_GROUP = 0x7FE00000  # nothing is wanted from here on

# A value longer than this is left out, in bytes: no VR with a 16-bit length can be longer.
VALUE_LIMIT = 65_535
# A wanted sequence longer than this is left out, in bytes: shared functional groups take some 10 kB.
SEQUENCE_LIMIT = 256 * 1024
# Items of one sequence that are kept; real ones have a handful.
ITEM_LIMIT = 64
# Sequences within sequences; structured reports are the deepest in use, and stay below 20.
NESTING_LIMIT = 64
DISORDER = "Elements are out of order"

# The last tags wanted, by whether there are functional groups (a multi-frame object has NumberOfFrames).
_LAST = max(tag for tag in WANTED if tag != SHARED_GROUPS.tag)
_LAST_OF_FRAMES = SHARED_GROUPS.tag
_NO_LAST = 0xFFFFFFFF

_SHORT_VRS = frozenset(KIND_OF_VR) - {"SQ", "UC", "UR", "UT"} | {"AT", "FD", "FL"}
# PS3.5 Table 7.1-1: 2 bytes reserved, 4 bytes of length.
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})


class Garbled(Exception):
    """The encoding is broken from here on; what was collected before stands."""


class NotUnderstood(Garbled):
    """The plain scan does not know this; pydicom may."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are encoded, with the readers of their headers."""

    name: str
    explicit: bool
    little: bool
    element: Struct  # group, element, VR, 16-bit length; or group, element, 32-bit length
    item: Struct  # group, element, 32-bit length: delimiters carry no VR
    length: Struct
    vrs: Mapping[int, str]  # by their letters as a 16-bit number: one unpacking reads the whole header
    short: frozenset[int]  # those with a 16-bit length

    @classmethod
    def of(cls, name: str, *, explicit: bool, little: bool) -> "Encoding":
        """Build the readers for one of the encodings of PS3.5 Annex A."""
        order = "<" if little else ">"
        code = Struct(order + "H")
        vrs = {code.unpack(vr.encode())[0]: vr for vr in _SHORT_VRS | _LONG_VRS}
        short = frozenset(number for number, vr in vrs.items() if vr in _SHORT_VRS)
        element = Struct(order + ("HHHH" if explicit else "HHI"))
        return cls(name, explicit, little, element, Struct(order + "HHI"), Struct(order + "I"), vrs, short)


class Element(NamedTuple):
    """The header of one element: its tag, VR (None where implicit), value's offset and length."""

    tag: int
    vr: str | None
    start: int
    length: int


EXPLICIT_LITTLE = Encoding.of("Explicit VR Little Endian", explicit=True, little=True)
EXPLICIT_BIG = Encoding.of("Explicit VR Big Endian", explicit=True, little=False)
IMPLICIT_LITTLE = Encoding.of("Implicit VR Little Endian", explicit=False, little=True)
_IMPLICIT_BIG = Encoding.of("Implicit VR Big Endian", explicit=False, little=False)


def shown(tag: int) -> str:
    """Write a tag as people do."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def is_vr(code: bytes) -> bool:
    """Tell whether these two bytes can be a VR: two capital letters."""
    return code.isalpha() and code.isupper()


class End:
    """Where the top level of a data set may end: at the last tag wanted, once the identity is known.

    Elements of defined length are still jumped over up to the pixel data: that shows a truncated data set.
    """

    def __init__(self, raw: Raw, doubts: Doubts) -> None:
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
    doubts: Doubts,
    *,
    nested: bool = False,
    trails: Trails | None = None,
    frames: Callable[..., None] | None = None,
) -> int:
    """Collect the wanted elements into `raw`; returns the offset behind the last one looked at.

    `nested`: this is an item, which ends at its delimiter. `trails` are those of explicit data sets that were
    read with the same encoding and table, `frames` reads the frames' groups. Raises Garbled if it is broken.
    """
    end = End(raw, doubts)
    hop = _hop_explicit if encoding.explicit else _hop_implicit
    if trails is not None:
        hop = partial(_follow, trails)
    place, previous, left = 0, -1, ELEMENT_LIMIT
    while True:
        last = _NO_LAST if nested else end.last
        place, previous, left = hop(window.data, place, previous, last, encoding, wanted, raw, left)
        if not left:
            raise Garbled(f"it has more than {ELEMENT_LIMIT} elements")
        offset = window.base + place
        if offset >= window.size or not window.read(offset, 1):
            return _ended(offset, window.size)
        element = _header(window, offset, encoding)
        if nested and element.tag == ITEM_END:
            return element.start
        if element.tag <= previous and not nested:
            doubts[DISORDER] = None
        if frames:
            frames(window, encoding, element, raw, doubts)
        if not nested and end.reached(element.tag, element.length, element.start, window.size):
            return element.start
        previous, left = element.tag, left - 1
        offset = _take(window, encoding, element, wanted.get(element.tag), raw, doubts)
        place = window.load(offset, 1)
        if window.base + place != offset:
            return _ended(offset, window.size)


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
    trails: Trails,
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
    doubts: Doubts,
) -> int:
    """Keep or leave out an element that is not plain; returns the offset behind it."""
    start, length = element.start, element.length
    end = skip_sequence(window, start, encoding) if length == UNDEFINED else start + length
    if attribute is None or not acceptable(attribute, element, end - start, doubts):
        return end
    value = window.read(start, end - start)
    if len(value) < end - start:
        raise Garbled("it ends within an element")
    if attribute.kind is not Kind.SEQUENCE:
        raw[element.tag] = value
        return end
    try:
        raw[element.tag] = read_items(value, encoding, attribute, doubts)
    except NotUnderstood:
        raise
    except Garbled as fault:
        doubts[f"{attribute.keyword} is left out: {fault}"] = None
    return end


def acceptable(attribute: Attribute, element: Element, length: int, doubts: Doubts) -> bool:
    """Tell whether a wanted element of `length` bytes is kept; if not, why."""
    sequence = attribute.kind is Kind.SEQUENCE
    if not attribute.fits(element.vr) or (element.length == UNDEFINED and not sequence):
        doubts[f"{attribute.keyword} is left out: its VR is {element.vr or 'a sequence'}"] = None
    elif length > (SEQUENCE_LIMIT if sequence else VALUE_LIMIT):
        doubts[f"{attribute.keyword} is left out: it is longer than the limit"] = None
    else:
        return True
    return False


def read_items(value: bytes, encoding: Encoding, attribute: Attribute, doubts: Doubts) -> list[Raw]:
    """Read the items of a wanted sequence (PS3.5 Section 7.5). Raises Garbled."""
    items: list[Raw] = []
    place = 0
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
        inner = value[place:] if length == UNDEFINED else value[place : place + length]
        items.append({})
        read = scan(Window(inner), _of_item(encoding, inner), attribute.items, items[-1], doubts, nested=True)
        place += read if length == UNDEFINED else length
    return items


def too_many(attribute: Attribute) -> str:
    """Say that items are left out."""
    return f"{attribute.keyword} has more than {ITEM_LIMIT} items; the first are kept"


def _of_item(encoding: Encoding, first: bytes) -> Encoding:
    """Tell the encoding of an item: UN and careless writers put implicit ones into explicit data sets."""
    if not encoding.explicit or is_vr(first[4:6]):
        return encoding
    return IMPLICIT_LITTLE if encoding.little else _IMPLICIT_BIG


def skip_sequence(window: Window, offset: int, encoding: Encoding, depth: int = 1) -> int:
    """Walk over the items of a sequence or fragments of undefined length; returns the offset behind them.

    Raises Garbled where it does not end, nests deeper than NESTING_LIMIT or has too many elements.
    """
    if depth > NESTING_LIMIT:
        raise Garbled(f"sequences nest deeper than {NESTING_LIMIT}")
    while True:
        _spend(window)
        tag, _, offset, length = _header(window, offset, encoding)
        if tag == SEQUENCE_END:
            return offset
        if tag != ITEM:
            raise NotUnderstood(f"{shown(tag)} stands where an item should")
        offset = _skip_item(window, offset, encoding, depth) if length == UNDEFINED else offset + length


def _skip_item(window: Window, offset: int, encoding: Encoding, depth: int) -> int:
    encoding = _of_item(encoding, window.read(offset, 8))
    while True:
        _spend(window)
        tag, _, offset, length = _header(window, offset, encoding)
        if tag == ITEM_END:
            return offset
        if length == UNDEFINED:
            offset = skip_sequence(window, offset, encoding, depth + 1)
        else:
            offset += length


def _spend(window: Window) -> None:
    window.budget -= 1
    if window.budget < 0:
        raise Garbled(f"its sequences have more than {ELEMENT_LIMIT} elements")


def _header(window: Window, offset: int, encoding: Encoding) -> Element:
    """Read the header of an element, item or delimiter at this offset."""
    place = window.load(offset, 12)
    data = window.data
    if place + 8 > len(data):
        raise Garbled("it ends within an element")
    group, number, length = encoding.item.unpack_from(data, place)
    tag = group << 16 | number
    if tag >= ITEM or not encoding.explicit:
        return Element(tag, None, offset + 8, length)
    _, _, code, length = encoding.element.unpack_from(data, place)
    vr = encoding.vrs.get(code)
    if vr is None:
        raise NotUnderstood(f"{shown(tag)} has no known VR")
    if code in encoding.short:
        return Element(tag, vr, offset + 8, length)
    if place + 12 > len(data):
        raise Garbled("it ends within an element")
    return Element(tag, vr, offset + 12, *encoding.length.unpack_from(data, place + 8))
