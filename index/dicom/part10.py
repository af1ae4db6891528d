"""The DICOM File Meta Information (PS3.10 Section 7.1): ours written, any read."""

import functools
import re
import struct
from dataclasses import dataclass

from index.dicom.scanning.byte_window import Window
from index.dicom.scanning.encodings import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    HEADER,
    UNDEFINED,
    Element,
    Encoding,
    Garbled,
    seen,
)
from index.dicom.scanning.structure import skip_sequence

PREAMBLE = bytes(128)
PREFIX = b"DICM"

# A function of the UIDs alone: the same instance gives the same file, whoever sends it and whenever.
# Derived from a UUID (PS3.5 Section B.2), made once for this product.
IMPLEMENTATION_CLASS_UID = "2.25.241580961294463541236987045126984721361"
IMPLEMENTATION_VERSION_NAME = "IMAGINGSTUDYD_1"

# Its first two bytes in either byte order.
GROUP = (b"\x02\x00", b"\x00\x02")

# What an element takes, compared with those that are skipped: the group is for a few.
_COST = 10
_HEADER = 12  # bytes of an element's header, at most
# Longer values are no UIDs, nor anything else that is asked for here.
VALUE_LIMIT = 256
# An element without a VR that would be so long in Implicit VR, in bytes, has a VR that is none.
_AMBIGUOUS = 0x2020
_UID = re.compile(r"[0-9.]{1,64}")  # PS3.5 Section 9.1

_GROUP_LENGTH = 0x00020000
_MEDIA_STORAGE_SOP_CLASS_UID = 0x00020002
_MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020003
_TRANSFER_SYNTAX_UID = 0x00020010
_IMPLEMENTATION_CLASS_UID = 0x00020012


class NotPart10(ValueError):
    """The bytes are no DICOM file."""


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What a file says of its data set, and at which offset in bytes that begins.

    UIDs that are not there, or are none, are empty.
    """

    transfer_syntax: str
    offset: int
    sop_class_uid: str = ""
    sop_instance_uid: str = ""


def _ui(element: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value


# A site's instances are of few SOP Classes and transfer syntaxes.
@functools.lru_cache(maxsize=256)
def _around(sop_class_uid: str, transfer_syntax: str) -> tuple[bytes, bytes]:
    """Return what stands before and behind the SOP Instance UID."""
    version = IMPLEMENTATION_VERSION_NAME.encode("ascii")
    version += b" " * (len(version) % 2)
    before = struct.pack("<HH2s2xI2s", 2, 1, b"OB", 2, b"\0\1") + _ui(0x0002, sop_class_uid)
    behind = _ui(0x0010, transfer_syntax) + _ui(0x0012, IMPLEMENTATION_CLASS_UID)
    return before, behind + struct.pack("<HH2sH", 2, 0x0013, b"SH", len(version)) + version


def encode_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str) -> bytes:
    """Return preamble, prefix and File Meta Information (PS3.10 Table 7.1-1)."""
    before, behind = _around(sop_class_uid, transfer_syntax)
    group = b"".join((before, _ui(0x0003, sop_instance_uid), behind))
    return PREAMBLE + PREFIX + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(group)) + group


def read_meta(window: Window) -> FileMeta:
    """Read the File Meta Information of a file, of which `window` has all.

    Files without preamble, and bare data sets that begin with group 0008, are taken too: old archives
    hold them. Raises NotPart10 where it is neither, OSError where it cannot be read.
    """
    start = window.read(0, len(PREAMBLE) + len(PREFIX))
    if start[len(PREAMBLE) :] == PREFIX:
        return read_group(window, len(start))
    if start[: len(PREFIX)] == PREFIX:
        return read_group(window, len(PREFIX))
    if start[:2] in GROUP:
        return read_group(window, 0)
    encoding = seen(start[:HEADER], window.size)
    if start[:2] == b"\x08\x00" or (start[:2] == b"\x00\x08" and encoding is EXPLICIT_BIG):
        return FileMeta("", 0)
    raise NotPart10("no DICM prefix at byte 128, and no data set at byte 0")


class _Group:
    """What has been read of a group 0002."""

    def __init__(self) -> None:
        self.values: dict[int, bytes] = {}
        self.previous = 0
        self._end: int | None = None

    def add(self, window: Window, element: Element, encoding: Encoding) -> None:
        """Take an element; of one that stands twice the first counts."""
        if element.length <= VALUE_LIMIT:
            self.values.setdefault(element.tag, window.read(element.start, element.length))
        if element.tag == _GROUP_LENGTH and self._end is None:
            value = self.values.get(element.tag, b"")
            length = int.from_bytes(value, "little" if encoding.little else "big")
            self._end = element.start + element.length + length
        self.previous = element.tag

    def ends(self, offset: int, header: bytes, encoding: Encoding) -> bool:
        """Tell whether the group ends here, although what follows is of group 0002.

        Such an element belongs to the data set. Where the group length leads here, it is believed; but for a
        foreign file's that is too short, so that the next element goes on in ascending order. Where it leads
        nowhere, the group ends before what has been there already.
        """
        if offset == self._end:
            is_ours = self.text(_IMPLEMENTATION_CLASS_UID) == IMPLEMENTATION_CLASS_UID
            return is_ours or not self._goes_on(header, offset, encoding)
        if _TRANSFER_SYNTAX_UID not in self.values or (self._end is not None and offset < self._end):
            return False
        return _element(header, offset, encoding).tag in self.values

    def _goes_on(self, header: bytes, offset: int, encoding: Encoding) -> bool:
        try:
            following = _element(header, offset, encoding)
        except Garbled:
            return False
        return following.vr is not None and following.tag > self.previous

    def text(self, tag: int) -> str:
        """Return a UID; nothing where it is none."""
        uid = self.values.get(tag, b"").strip(b"\0 ").decode("latin_1")
        return uid if _UID.fullmatch(uid) else ""


def read_group(window: Window, offset: int) -> FileMeta:
    """Read the elements of group 0002 that stand from this offset on. Raises NotPart10, OSError.

    They are to be in Explicit VR Little Endian; other encodings are read too.
    """
    group = _Group()
    try:
        while (header := window.read(offset, _HEADER))[:2] in GROUP:
            encoding = EXPLICIT_LITTLE if header[:2] == GROUP[0] else EXPLICIT_BIG
            if group.ends(offset, header, encoding):
                break
            element = _element(header, offset, encoding)
            window.spend(_COST)
            group.add(window, element, encoding)
            offset = element.start + element.length
            if element.length == UNDEFINED:
                offset = skip_sequence(window, element.start, encoding)
    except Garbled as fault:
        raise NotPart10(f"File Meta Information is broken: {fault}") from fault
    if offset > window.size:
        raise NotPart10("File Meta Information is truncated")
    uids = (_TRANSFER_SYNTAX_UID, _MEDIA_STORAGE_SOP_CLASS_UID, _MEDIA_STORAGE_SOP_INSTANCE_UID)
    syntax, sop_class, instance = map(group.text, uids)
    return FileMeta(syntax, offset, sop_class, instance)


def _element(header: bytes, offset: int, encoding: Encoding) -> Element:
    """Read the header of an element; one without a VR is in Implicit VR where that makes it short enough."""
    if len(header) < HEADER:
        raise Garbled("it ends within an element")
    group, number, code, length = encoding.element.unpack_from(header)
    tag, vr = group << 16 | number, encoding.vrs.get(code)
    if code in encoding.short:
        return Element(tag, vr, offset + HEADER, length)
    if vr is None:
        implicit = encoding.item.unpack_from(header)[2]
        is_short = implicit < _AMBIGUOUS or implicit == UNDEFINED
        return Element(tag, None, offset + HEADER, implicit if is_short else length)
    if len(header) < _HEADER:
        raise Garbled("it ends within an element")
    return Element(tag, vr, offset + _HEADER, *encoding.length.unpack_from(header, HEADER))
