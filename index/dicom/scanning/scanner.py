"""The plain scan: one bounded pass over the elements of a data set (PS3.5 Section 7).

The values are collected as `Raw`, not decoded.
"""

from collections.abc import Callable
from functools import partial

from index.dicom.attributes import (
    IDENTITY,
    NUMBER_OF_FRAMES,
    SHARED_GROUPS,
    WANTED,
    Attribute,
    Kind,
    Table,
)
from index.dicom.scanning.byte_window import ELEMENT_LIMIT, ByteWindow
from index.dicom.scanning.encodings import (
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    BrokenEncoding,
    Doubts,
    Element,
    Encoding,
    Raw,
    UnknownEncoding,
    encoding_of_item,
    encoding_of_sequence,
)
from index.dicom.scanning.layout_cache import LayoutCache, Step
from index.dicom.scanning.structure import read_element, skip_sequence

PIXEL_GROUP = 0x7FE00000  # no tag is wanted from here on

# A longer value is left out, in bytes: no VR with a 16-bit length can have more.
VALUE_LIMIT = 65_535
# A longer sequence is left out, in bytes: shared functional groups take some 10 kB.
SEQUENCE_LIMIT = 256 * 1024
# Items of one sequence that are kept. Usual sequences have fewer than ten.
ITEM_LIMIT = 64
# The cost of an element that is read by itself, in elements that are skipped together.
_SPECIAL_COST = 5
DISORDER = "Elements are out of order"
NO_VR = "Elements have no VR, or an unknown one"

# The last tag wanted, without and with functional groups (multi-frame objects have NumberOfFrames).
_LAST = max(tag for tag in WANTED if tag != SHARED_GROUPS.tag)
_LAST_OF_FRAMES = SHARED_GROUPS.tag
_NO_LAST = 0xFFFFFFFF


class HeaderEnd:
    """Where the scan of a data set may end: behind the last tag wanted, once the UIDs have been read.

    Elements of defined length are skipped up to the pixel data: this finds truncated data sets.
    """

    def __init__(self, raw: Raw, doubts: Doubts) -> None:
        self._raw = raw
        self._doubts = doubts
        self.last = _LAST

    def reached(self, tag: int, length: int, start: int, size: int) -> bool:
        """Whether to stop before this element, whose value starts at `start`."""
        if self.last == _LAST and NUMBER_OF_FRAMES.tag in self._raw:
            self.last = _LAST_OF_FRAMES
        if tag <= self.last or (tag < PIXEL_GROUP and length != UNDEFINED) or not has_uids(self._raw):
            return False
        if length != UNDEFINED and start + length > size:
            self._doubts["The data set is truncated"] = None
        return True


def has_uids(raw: Raw) -> bool:
    """Whether the Study, Series and SOP Instance UIDs have been read."""
    return raw.keys() >= IDENTITY


def scan(
    window: ByteWindow,
    encoding: Encoding,
    wanted: Table,
    raw: Raw,
    doubts: Doubts,
    *,
    start: int = 0,
    nested: bool = False,
    is_open: bool = False,
    layout_cache: LayoutCache | None = None,
    frames: Callable[..., None] = lambda *_: None,
) -> int:
    """Collect the wanted elements from `start` on into `raw`; return the offset behind the last one read.

    Of an element that occurs twice the first with a value is kept. `nested`: this is an item. It ends at its
    delimiter; where that is missing and its length is undefined (`is_open`), at the next item or the end of
    the sequence. `layout_cache` is for the same encoding and table; `frames` reads the groups of frames.
    Raises BrokenEncoding.
    """
    end = HeaderEnd(raw, doubts)
    explicit = encoding.explicit
    skip_plain = _skip_explicit if explicit else _skip_implicit
    if layout_cache is not None:
        skip_plain = partial(_skip_by_layout, layout_cache)
    position, previous, left = window.load(start, 1) if start else 0, -1, ELEMENT_LIMIT
    while True:
        last = _NO_LAST if nested else end.last
        position, previous, left = skip_plain(
            window.data, position, previous, last, encoding, wanted, raw, left
        )
        if left <= 0:
            raise BrokenEncoding(f"it has more than {ELEMENT_LIMIT} elements")
        offset = window.base + position
        if offset >= window.size or not window.read(offset, 1):
            return _check_end(offset, window.size)
        element = read_element(window, offset, encoding)
        if nested and (element.tag == ITEM_END or (is_open and element.tag >= ITEM)):
            return element.start if element.tag == ITEM_END else offset
        frames(window, encoding, element, raw, doubts)
        if not nested and end.reached(element.tag, element.length, element.start, window.size):
            return element.start
        tag, left = element.tag, left - _SPECIAL_COST
        if tag <= previous or (explicit and element.vr is None):
            check_order_and_vr(tag, element.vr, encoding, -1 if nested else previous, doubts)
        if previous < tag < ITEM:
            previous = tag
        offset = _read_special(window, encoding, element, wanted.get(tag), raw, doubts)
        position = window.load(offset, 1)
        if window.base + position != offset:
            return _check_end(offset, window.size)


def _check_end(offset: int, size: int) -> int:
    """Return the offset. Raises BrokenEncoding where the data set does not end there."""
    if offset != size:
        raise BrokenEncoding("it ends within an element")
    return offset


def check_order_and_vr(tag: int, vr: str | None, encoding: Encoding, previous: int, doubts: Doubts) -> None:
    """Add a doubt where an element is not in order behind the tag `previous`, or has no VR."""
    if tag <= previous:
        doubts[DISORDER] = None
    if vr is None and encoding.explicit and tag < ITEM:
        doubts[NO_VR] = None


def _skip_explicit(
    data: bytes,
    position: int,
    previous: int,
    last: int,
    encoding: Encoding,
    wanted: Table,
    raw: Raw,
    left: int,
) -> tuple[int, int, int]:
    """Skip elements that are not wanted and keep plain values, up to the first special element.

    Return its position (or the end of `data`), the tag before it, and how many elements are left to read.
    """
    vrs, short = encoding.vrs, encoding.short
    unpack, unpack_length = encoding.element.unpack_from, encoding.length.unpack_from
    size = len(data)
    limit, long_limit = size - 8, size - 12
    for left in range(left, 0, -1):  # noqa: B020, PLR1704 - counts the budget down
        if position > limit:
            return position, previous, left
        group, element, vr, length = unpack(data, position)
        tag = group << 16 | element
        if not previous < tag <= last:
            return position, previous, left
        if vr in short:
            end = position + 8 + length
            if tag in wanted:
                if end > size or vrs[vr] != wanted[tag].vr:
                    return position, previous, left
                raw[tag] = data[position + 8 : end]
        elif vr in vrs and tag not in wanted and position <= long_limit:
            (length,) = unpack_length(data, position + 8)
            if length == UNDEFINED:
                return position, previous, left
            end = position + 12 + length
        else:
            return position, previous, left
        position, previous = end, tag
    return position, previous, 0


def _skip_by_layout(
    layout_cache: LayoutCache,
    data: bytes,
    position: int,
    previous: int,
    last: int,
    encoding: Encoding,
    wanted: Table,
    raw: Raw,
    left: int,
) -> tuple[int, int, int]:
    """Do what `_skip_explicit` does by known layouts."""

    def step(position: int, previous: int, last: int) -> Step | None:
        after, tag, special = _skip_explicit(data, position, previous, last, encoding, wanted, raw, 1)
        if special:
            return None
        code = encoding.element.unpack_from(data, position)[2]
        return Step(position, tag, 8 if code in encoding.short else 12, after - position, tag in wanted)

    return layout_cache.follow(data, position, previous, last, left, raw, step)


def _skip_implicit(
    data: bytes,
    position: int,
    previous: int,
    last: int,
    encoding: Encoding,
    wanted: Table,
    raw: Raw,
    left: int,
) -> tuple[int, int, int]:
    """Do what `_skip_explicit` does in Implicit VR."""
    unpack = encoding.element.unpack_from
    size = len(data)
    limit = size - 8
    for left in range(left, 0, -1):  # noqa: B020, PLR1704 - counts the budget down
        if position > limit:
            return position, previous, left
        group, element, length = unpack(data, position)
        tag = group << 16 | element
        if length == UNDEFINED or not previous < tag <= last:
            return position, previous, left
        end = position + 8 + length
        if tag in wanted:
            if end > size or length > VALUE_LIMIT or wanted[tag].items:
                return position, previous, left
            raw[tag] = data[position + 8 : end]
        position, previous = end, tag
    return position, previous, 0


def _read_special(
    window: ByteWindow,
    encoding: Encoding,
    element: Element,
    attribute: Attribute | None,
    raw: Raw,
    doubts: Doubts,
) -> int:
    """Keep or leave out an element that is not plain; return the offset behind it."""
    start, length = element.start, element.length
    end = skip_sequence(window, start, encoding) if length == UNDEFINED else start + length
    if attribute is None or not should_keep(attribute, element, end - start, raw, doubts):
        return end
    value = window.read(start, end - start)
    if len(value) < end - start:
        raise BrokenEncoding("it ends within an element")
    if attribute.kind is not Kind.SEQUENCE:
        raw[element.tag] = as_written(value, attribute, element.vr, little=encoding.little)
        return end
    try:
        raw[element.tag] = read_items(value, encoding, attribute, doubts)
    except UnknownEncoding:
        raise
    except BrokenEncoding as fault:
        doubts[f"{attribute.keyword} is left out: {fault}"] = None
    return end


def as_written(value: bytes, attribute: Attribute, vr: str | None, *, little: bool) -> bytes:
    """Return a value in the byte order of its data set: VR UN is little endian (PS3.5 Section 6.2.2)."""
    return value[::-1] if vr == "UN" and attribute.kind is Kind.NUMBER and not little else value


def should_keep(attribute: Attribute, element: Element, length: int, raw: Raw, doubts: Doubts) -> bool:
    """Whether to keep a wanted element of `length` bytes beside those in `raw`; if not, add a doubt."""
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


def read_items(value: bytes, encoding: Encoding, attribute: Attribute, doubts: Doubts) -> list[Raw]:
    """Read the items of a wanted sequence (PS3.5 Section 7.5). Raises BrokenEncoding."""
    items: list[Raw] = []
    position = 0
    encoding = encoding_of_sequence(encoding, value)
    while position < len(value):
        if position + 8 > len(value):
            raise BrokenEncoding("an item is broken")
        group, number, length = encoding.item.unpack_from(value, position)
        position += 8
        if (tag := group << 16 | number) == SEQUENCE_END:
            break
        if tag != ITEM or (length != UNDEFINED and position + length > len(value)):
            raise BrokenEncoding("an item is broken")
        if len(items) == ITEM_LIMIT:
            doubts[too_many_items(attribute)] = None
            break
        is_open = length == UNDEFINED
        inner = value[position:] if is_open else value[position : position + length]
        items.append({})
        inside = encoding_of_item(encoding, inner) if encoding.explicit else encoding
        read = scan(
            ByteWindow(inner), inside, attribute.items, items[-1], doubts, nested=True, is_open=is_open
        )
        position += read if is_open else length
    return items


def too_many_items(attribute: Attribute) -> str:
    """Return the doubt that items are left out."""
    return f"{attribute.keyword} has more than {ITEM_LIMIT} items; the first are kept"
