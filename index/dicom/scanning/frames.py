"""What the frames of a multi-frame object say of their anatomy, each on its own (PS3.3 Section C.7.6.16).

PerFrameFunctionalGroupsSequence has an item for each frame, many MB in all. Of each item only what stands
before and in its FrameAnatomySequence is read, and of those only what differs is kept.
"""

from index.dicom.attributes import FRAME_ANATOMY, PER_FRAME_GROUPS, SHARED_GROUPS
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
    of_item,
    of_sequence,
)
from index.dicom.scanning.scanner import ITEM_LIMIT, SEQUENCE_LIMIT, Issues, Raw, read_items
from index.dicom.scanning.structure import read_element, skip_sequence

# Frames without an anatomy of their own behind which none is looked for: one that has it has it in all.
FRAMES_WITHOUT = 64

_TAG = FRAME_ANATOMY.tag


def read_frames(window: Window, encoding: Encoding, element: Element, raw: Raw, doubts: Issues) -> None:
    """Add the distinct anatomies of the frames, if this element has them, to the shared groups in `raw`.

    A functional group stands among the shared ones or in the frames, never in both (PS3.3 Section
    C.7.6.16.1.1). What cannot be read to its end says nothing, with a doubt: not all frames have been seen.
    """
    shared = raw.get(SHARED_GROUPS.tag, [])
    if element.tag != PER_FRAME_GROUPS.tag or any(_TAG in group for group in shared):
        return
    try:
        groups = _distinct(window, encoding, element, doubts)
    except Garbled as fault:
        doubts[f"The anatomy of single frames is left out: {fault}"] = None
        return
    if groups:
        raw[SHARED_GROUPS.tag] = [*shared, *groups]


def _distinct(window: Window, encoding: Encoding, sequence: Element, doubts: Issues) -> list[Raw]:
    """Walk over the items of the sequence; return each distinct anatomy once, as the group that has it."""
    found: list[Raw] = []
    without = 0
    offset = sequence.start
    encoding = of_sequence(encoding, window.read(offset, HEADER))
    end = window.size if sequence.length == UNDEFINED else sequence.start + sequence.length
    while offset < end and (found or without < FRAMES_WITHOUT):
        window.spend(1)
        tag, _, offset, length = read_element(window, offset, encoding)
        if tag == SEQUENCE_END:
            break
        if tag != ITEM:
            raise Garbled("an item is broken")
        inner = of_item(encoding, window.read(offset, HEADER))
        anatomy, offset = _anatomy(window, inner, offset, None if length == UNDEFINED else offset + length)
        if anatomy is None:
            without += 1
            continue
        group: Raw = {_TAG: _items(window, inner, anatomy, doubts)}
        if group not in found:
            if len(found) == ITEM_LIMIT:
                raise Garbled(f"it has more than {ITEM_LIMIT} values")
            found.append(group)
    return found


def _anatomy(window: Window, encoding: Encoding, offset: int, end: int | None) -> tuple[Element | None, int]:
    """Return the FrameAnatomySequence of an item, its length known, and the offset behind the item."""
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


def _items(window: Window, encoding: Encoding, element: Element, doubts: Issues) -> list[Raw]:
    if element.length > SEQUENCE_LIMIT:
        raise Garbled("it is longer than the limit")
    value = window.read(element.start, element.length)
    if len(value) < element.length:
        raise Garbled("it ends within an element")
    return read_items(value, encoding, FRAME_ANATOMY, doubts)
