"""The anatomy of the single frames of a multi-frame object (PS3.3 Section C.7.6.16).

PerFrameFunctionalGroupsSequence has an item for each frame, many MB in all. Each item is read up to its
FrameAnatomySequence only; equal anatomies are kept once.
"""

from index.dicom.attributes import FRAME_ANATOMY, PER_FRAME_GROUPS, SHARED_GROUPS
from index.dicom.scanning.byte_window import ByteWindow
from index.dicom.scanning.encodings import (
    HEADER,
    ITEM,
    ITEM_END,
    SEQUENCE_END,
    UNDEFINED,
    BrokenEncoding,
    Doubts,
    Element,
    Encoding,
    Raw,
    encoding_of_item,
    encoding_of_sequence,
)
from index.dicom.scanning.scanner import ITEM_LIMIT, SEQUENCE_LIMIT, read_items
from index.dicom.scanning.structure import read_element, skip_sequence

# Frames without an anatomy after which the search ends: the functional group is in all frames or in none.
FRAMES_WITHOUT = 64

_TAG = FRAME_ANATOMY.tag


def read_frames(window: ByteWindow, encoding: Encoding, element: Element, raw: Raw, doubts: Doubts) -> None:
    """Add the distinct anatomies of the frames, if this element has them, to the shared groups in `raw`.

    A functional group is a shared one or one of frames, never both (PS3.3 Section C.7.6.16.1.1). A
    sequence that cannot be read to its end is left out with a doubt: some frames may differ.
    """
    shared = raw.get(SHARED_GROUPS.tag, [])
    if element.tag != PER_FRAME_GROUPS.tag or any(_TAG in group for group in shared):
        return
    try:
        groups = _distinct(window, encoding, element, doubts)
    except BrokenEncoding as fault:
        doubts[f"The anatomy of single frames is left out: {fault}"] = None
        return
    if groups:
        raw[SHARED_GROUPS.tag] = [*shared, *groups]


def _distinct(window: ByteWindow, encoding: Encoding, sequence: Element, doubts: Doubts) -> list[Raw]:
    """Return each distinct anatomy of the items once, as the functional group that has it."""
    found: list[Raw] = []
    without = 0
    offset = sequence.start
    encoding = encoding_of_sequence(encoding, window.read(offset, HEADER))
    end = window.size if sequence.length == UNDEFINED else sequence.start + sequence.length
    while offset < end and (found or without < FRAMES_WITHOUT):
        window.spend(1)
        tag, _, offset, length = read_element(window, offset, encoding)
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
            raise BrokenEncoding("an item is broken")
        inner = encoding_of_item(encoding, window.read(offset, HEADER))
        anatomy, offset = _anatomy(window, inner, offset, None if length == UNDEFINED else offset + length)
        if anatomy is None:
            without += 1
            continue
        group: Raw = {_TAG: _items(window, inner, anatomy, doubts)}
        if group not in found:
            if len(found) == ITEM_LIMIT:
                raise BrokenEncoding(f"it has more than {ITEM_LIMIT} values")
            found.append(group)
    return found


def _anatomy(
    window: ByteWindow, encoding: Encoding, offset: int, end: int | None
) -> tuple[Element | None, int]:
    """Return the FrameAnatomySequence of an item, with its length, and the offset behind the item."""
    found = None
    while end is None or offset < end:
        window.spend(1)
        element = read_element(window, offset, encoding)
        if element.tag == ITEM_END:
            return found, element.start
        if end is not None and element.tag > _TAG:
            break
        if element.length == UNDEFINED:
            offset = skip_sequence(window, element.start, encoding)
        else:
            offset = element.start + element.length
        if element.tag == _TAG:
            found = element._replace(length=offset - element.start)
            if end is not None:
                break
    return found, end or offset


def _items(window: ByteWindow, encoding: Encoding, element: Element, doubts: Doubts) -> list[Raw]:
    if element.length > SEQUENCE_LIMIT:
        raise BrokenEncoding("it is longer than the limit")
    value = window.read(element.start, element.length)
    if len(value) < element.length:
        raise BrokenEncoding("it ends within an element")
    return read_items(value, encoding, FRAME_ANATOMY, doubts)
