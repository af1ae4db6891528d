"""Where elements and sequences begin and end (PS3.5 Sections 7.1 and 7.5), also where a VR is none."""

import contextlib
from collections.abc import Iterator

from index.dicom.scanning.byte_window import Window
from index.dicom.scanning.encodings import (
    HEADER,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    Element,
    Encoding,
    Garbled,
    NotUnderstood,
    is_vr,
    of_item,
    of_sequence,
    shown,
)

# Sequences within sequences; structured reports are the deepest in use, and stay below 20.
NESTING_LIMIT = 64
# Elements that should follow each other before a reading of the first is believed.
_CHAIN = 4
# What it costs to look where a reading leads, in elements of the budget.
_LOOK = 5
_LONG_HEADER = 12  # bytes of an element's header with a 32-bit length
_DELIMITER = {True: b"\xfe\xff\xdd\xe0\0\0\0\0", False: b"\xff\xfe\xe0\xdd\0\0\0\0"}
# Bytes in which the end of a value of undefined length without items is searched.
_SEARCH_LIMIT = 4 * 1024 * 1024
_SEARCH_STEP = 64 * 1024
# What a step costs, in elements of the budget.
_SEARCH = 16


def read_element(window: Window, offset: int, encoding: Encoding) -> Element:
    """Read the header of an element, item or delimiter at this offset.

    Where the VR is none the reading stands that leads on; NotUnderstood where none does, Garbled at the end.
    """
    place = window.load(offset, _LONG_HEADER)
    data = window.data
    if place + HEADER > len(data):
        raise Garbled("it ends within an element")
    group, number, length = encoding.item.unpack_from(data, place)
    tag = group << 16 | number
    if tag >= ITEM or not encoding.explicit:
        return Element(tag, None, offset + HEADER, length)
    _, _, code, length = encoding.element.unpack_from(data, place)
    vr = encoding.vrs.get(code)
    if vr is None:
        return _guess(window, offset, encoding, tag)
    if code in encoding.short:
        return Element(tag, vr, offset + HEADER, length)
    if place + _LONG_HEADER > len(data):
        raise Garbled("it ends within an element")
    return Element(tag, vr, offset + _LONG_HEADER, *encoding.length.unpack_from(data, place + HEADER))


def _guess(window: Window, offset: int, encoding: Encoding, tag: int) -> Element:
    """Read an element in whose VR's place stands none: the first reading that leads on is taken.

    If possible, one that leads on and on: a value may look like an element.
    """
    for more in (_CHAIN, 0):
        for element in _readings(window, offset, encoding):
            if _leads_on(window, element, encoding, more):
                return element
    raise NotUnderstood(f"{shown(tag)} has no known VR")


def _readings(window: Window, offset: int, encoding: Encoding, *, has_vr: bool = False) -> Iterator[Element]:
    """Yield how an element may be meant: in Implicit VR, or with a 16-bit or a 32-bit length behind the VR.

    One that `has_vr` tells. VRs to come have two capital letters and a 32-bit length (PS3.5 Section 7.1.2).
    """
    if has_vr:
        with contextlib.suppress(Garbled):  # the data set ends
            yield read_element(window, offset, encoding)
        return
    header = window.read(offset, _LONG_HEADER)
    if len(header) < HEADER:
        return
    group, number, implicit = encoding.item.unpack_from(header)
    tag = group << 16 | number
    short = Element(tag, None, offset + HEADER, encoding.element.unpack_from(header)[3])
    plain = Element(tag, None, offset + HEADER, implicit)
    long = []
    if len(header) == _LONG_HEADER and not any(header[6:8]):
        long = [Element(tag, None, offset + _LONG_HEADER, *encoding.length.unpack_from(header, HEADER))]
    yield from (*long, short, plain) if is_vr(header[4:6]) else (plain, short, *long)


def _leads_on(window: Window, element: Element, encoding: Encoding, more: int) -> bool:
    """Tell whether behind an element, read like this, stands one that may follow it, and so many `more`."""
    window.spend(_LOOK)
    if element.length == UNDEFINED:
        first = window.read(element.start, HEADER)
        return first[:4] in of_sequence(encoding, first).delimiters
    end = element.start + element.length
    header = window.read(end, HEADER)
    if len(header) < HEADER:
        return not header and end == window.size
    tag = _tag(encoding, header)
    if tag >= ITEM:
        return tag in (ITEM, ITEM_END, SEQUENCE_END)
    has_vr = encoding.element.unpack_from(header)[2] in encoding.vrs
    if tag <= element.tag or not (has_vr or _is_known(tag)):
        return False
    return not more or any(
        _leads_on(window, following, encoding, more - 1)
        for following in _readings(window, end, encoding, has_vr=has_vr)
    )


def _tag(encoding: Encoding, header: bytes) -> int:
    group, number = encoding.item.unpack_from(header)[:2]
    return int(group << 16 | number)


def _is_known(tag: int) -> bool:
    """Tell whether this is a private tag, a group length, or one of PS3.6."""
    if tag >> 16 & 1 or not tag & 0xFFFF:
        return True
    from pydicom.datadict import dictionary_has_tag, repeater_has_tag

    return dictionary_has_tag(tag) or repeater_has_tag(tag)


def skip_sequence(window: Window, offset: int, encoding: Encoding, depth: int = 1) -> int:
    """Walk over the items of a sequence or fragments of undefined length; returns the offset behind them.

    Raises Garbled where it does not end, nests deeper than NESTING_LIMIT or has too many elements.
    """
    if depth > NESTING_LIMIT:
        raise Garbled(f"sequences nest deeper than {NESTING_LIMIT}")
    first = window.read(offset, HEADER)
    encoding = of_sequence(encoding, first)
    if len(first) == HEADER and first[:4] not in encoding.delimiters:
        return _find_end(window, offset, encoding)
    while True:
        window.spend()
        tag, _, offset, length = read_element(window, offset, encoding)
        if tag == SEQUENCE_END:
            return offset
        if tag != ITEM:
            raise NotUnderstood(f"{shown(tag)} stands where an item should")
        offset = _skip_item(window, offset, encoding, depth) if length == UNDEFINED else offset + length


def _skip_item(window: Window, offset: int, encoding: Encoding, depth: int) -> int:
    """Walk over an item of undefined length. Some lack their delimiter; what ends the sequence ends them."""
    encoding = of_item(encoding, window.read(offset, HEADER))
    while True:
        window.spend()
        begin = offset
        tag, _, offset, length = read_element(window, offset, encoding)
        if tag >= ITEM:
            return offset if tag == ITEM_END else begin
        if length == UNDEFINED:
            offset = skip_sequence(window, offset, encoding, depth + 1)
        else:
            offset += length


def _find_end(window: Window, offset: int, encoding: Encoding) -> int:
    """Search the delimiter of a value of undefined length that has no items."""
    delimiter = _DELIMITER[encoding.little]
    for at in range(offset, offset + _SEARCH_LIMIT, _SEARCH_STEP):
        window.spend(_SEARCH)
        part = window.read(at, _SEARCH_STEP + len(delimiter) - 1)
        if (found := part.find(delimiter)) >= 0:
            return at + found + len(delimiter)
        if len(part) < _SEARCH_STEP:
            break
    raise NotUnderstood("a value of undefined length has no items and no delimiter")
