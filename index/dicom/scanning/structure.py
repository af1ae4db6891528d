"""Where elements and sequences begin and end (PS3.5 Sections 7.1 and 7.5), also where a VR is invalid."""

import contextlib
from collections.abc import Iterator

from index.dicom.scanning.byte_window import ByteWindow
from index.dicom.scanning.encodings import (
    HEADER,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    BrokenEncoding,
    Element,
    Encoding,
    UnknownEncoding,
    encoding_of_item,
    encoding_of_sequence,
    format_tag,
    is_vr,
)

# Sequences within sequences. Structured reports nest deepest, below 20.
NESTING_LIMIT = 64
# Elements that have to follow for an interpretation of the first to be taken.
_FOLLOWING = 4
# The cost of checking an interpretation, in elements of the budget.
_CHECK_COST = 5
_LONG_HEADER = 12  # bytes of an element's header with a 32-bit length
_DELIMITER = {True: b"\xfe\xff\xdd\xe0\0\0\0\0", False: b"\xff\xfe\xe0\xdd\0\0\0\0"}
# Bytes that are searched for the end of a value of undefined length without items.
_SEARCH_LIMIT = 4 * 1024 * 1024
_SEARCH_STEP = 64 * 1024
# The cost of a step, in elements of the budget.
_SEARCH_COST = 16


def read_element(window: ByteWindow, offset: int, encoding: Encoding) -> Element:
    """Read the header of an element, item or delimiter at this offset.

    Where the VR is invalid, the interpretation is taken that other elements can follow. Raises
    UnknownEncoding where there is none, BrokenEncoding at the end of the data set.
    """
    position = window.load(offset, _LONG_HEADER)
    data = window.data
    if position + HEADER > len(data):
        raise BrokenEncoding("it ends within an element")
    group, number, length = encoding.item.unpack_from(data, position)
    tag = group << 16 | number
    if tag >= ITEM or not encoding.explicit:
        return Element(tag, None, offset + HEADER, length)
    _, _, code, length = encoding.element.unpack_from(data, position)
    vr = encoding.vrs.get(code)
    if vr is None:
        return _interpret(window, offset, encoding, tag)
    if code in encoding.short:
        return Element(tag, vr, offset + HEADER, length)
    if position + _LONG_HEADER > len(data):
        raise BrokenEncoding("it ends within an element")
    return Element(tag, vr, offset + _LONG_HEADER, *encoding.length.unpack_from(data, position + HEADER))


def _interpret(window: ByteWindow, offset: int, encoding: Encoding, tag: int) -> Element:
    """Read an element with an invalid VR: take the first interpretation that other elements can follow.

    Several elements if possible: a value may look like an element.
    """
    for more in (_FOLLOWING, 0):
        for element in _interpretations(window, offset, encoding):
            if _can_be_followed(window, element, encoding, more):
                return element
    raise UnknownEncoding(f"{format_tag(tag)} has no known VR")


def _interpretations(
    window: ByteWindow, offset: int, encoding: Encoding, *, has_vr: bool = False
) -> Iterator[Element]:
    """Yield interpretations of an element: in Implicit VR, or with a 16-bit or 32-bit length behind the VR.

    With a known VR (`has_vr`) there is one only. Future VRs have a 32-bit length (PS3.5 Section 7.1.2).
    """
    if has_vr:
        with contextlib.suppress(BrokenEncoding):  # the data set ends
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


def _can_be_followed(window: ByteWindow, element: Element, encoding: Encoding, more: int) -> bool:
    """Whether an element that may follow stands behind this interpretation, and then `more` of them."""
    window.spend(_CHECK_COST)
    if element.length == UNDEFINED:
        first = window.read(element.start, HEADER)
        return first[:4] in encoding_of_sequence(encoding, first).delimiters
    end = element.start + element.length
    header = window.read(end, HEADER)
    if len(header) < HEADER:
        return not header and end == window.size
    group, number, _ = encoding.item.unpack_from(header)
    tag = group << 16 | number
    if tag >= ITEM:
        return tag in (ITEM, ITEM_END, SEQUENCE_END)
    has_vr = encoding.element.unpack_from(header)[2] in encoding.vrs
    if tag <= element.tag or not (has_vr or _is_known(tag)):
        return False
    return not more or any(
        _can_be_followed(window, following, encoding, more - 1)
        for following in _interpretations(window, end, encoding, has_vr=has_vr)
    )


def _is_known(tag: int) -> bool:
    """Whether this is a private tag, a group length, or a tag of PS3.6."""
    if tag >> 16 & 1 or not tag & 0xFFFF:
        return True
    from pydicom.datadict import dictionary_has_tag, repeater_has_tag

    return dictionary_has_tag(tag) or repeater_has_tag(tag)


def skip_sequence(window: ByteWindow, offset: int, encoding: Encoding, depth: int = 1) -> int:
    """Return the offset behind the items or fragments of a value of undefined length.

    Raises BrokenEncoding where it does not end, nests deeper than NESTING_LIMIT or has too many elements.
    """
    if depth > NESTING_LIMIT:
        raise BrokenEncoding(f"sequences nest deeper than {NESTING_LIMIT}")
    first = window.read(offset, HEADER)
    encoding = encoding_of_sequence(encoding, first)
    if len(first) == HEADER and first[:4] not in encoding.delimiters:
        return _find_end(window, offset, encoding)
    while True:
        window.spend()
        tag, _, offset, length = read_element(window, offset, encoding)
        if tag == SEQUENCE_END:
            return offset
        if tag != ITEM:
            raise UnknownEncoding(f"{format_tag(tag)} stands where an item should")
        offset = _skip_item(window, offset, encoding, depth) if length == UNDEFINED else offset + length


def _skip_item(window: ByteWindow, offset: int, encoding: Encoding, depth: int) -> int:
    """Return the offset behind an item of undefined length, whose own delimiter may be missing."""
    encoding = encoding_of_item(encoding, window.read(offset, HEADER))
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


def _find_end(window: ByteWindow, offset: int, encoding: Encoding) -> int:
    """Return the offset behind a value of undefined length without items, by its delimiter."""
    delimiter = _DELIMITER[encoding.little]
    for at in range(offset, offset + _SEARCH_LIMIT, _SEARCH_STEP):
        window.spend(_SEARCH_COST)
        part = window.read(at, _SEARCH_STEP + len(delimiter) - 1)
        if (found := part.find(delimiter)) >= 0:
            return at + found + len(delimiter)
        if len(part) < _SEARCH_STEP:
            break
    raise UnknownEncoding("a value of undefined length has no items and no delimiter")
