"""The DICOM File Meta Information (PS3.10 Section 7.1): written for our files, read from any file."""

import struct
from dataclasses import dataclass

from index.dicom.scanning.byte_window import ByteWindow
from index.dicom.scanning.encodings import (
    AMBIGUOUS,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    HEADER,
    UNDEFINED,
    BrokenEncoding,
    Element,
    Encoding,
    detect_encoding,
)
from index.dicom.scanning.structure import skip_sequence
from index.dicom.uids import UID

PREAMBLE = bytes(128)
PREFIX = b"DICM"

# Fixed, so that the same instance always gives the same file. Derived from a UUID (PS3.5 Section B.2).
IMPLEMENTATION_CLASS_UID = "2.25.241580961294463541236987045126984721361"
_IMPLEMENTATION_VERSION_NAME = b"IMAGINGSTUDYD_1 "  # padded to an even length

# The first two bytes of group 0002 in either byte order.
GROUP = (b"\x02\x00", b"\x00\x02")

# The cost of an element, in elements of the budget: the group has few.
_COST = 10
_HEADER = 12  # bytes of an element's header, at most
# Longer values are not read, in bytes: UIDs and the group length are shorter.
VALUE_LIMIT = 256

_GROUP_LENGTH = 0x00020000
_MEDIA_STORAGE_SOP_CLASS_UID = 0x00020002
_MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020003
_TRANSFER_SYNTAX_UID = 0x00020010
_IMPLEMENTATION_CLASS_UID = 0x00020012


class NotPart10(ValueError):
    """The bytes are not a DICOM file."""


@dataclass(frozen=True, slots=True)
class FileMeta:
    """A file's meta information; `offset` is that of its data set. Missing or invalid UIDs are empty."""

    transfer_syntax: str
    offset: int
    sop_class_uid: str = ""
    sop_instance_uid: str = ""


def _ui(element: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HH2sH", 2, element, b"UI", len(value)) + value


_VERSION = struct.pack("<HH2s2xI2s", 2, 0x0001, b"OB", 2, b"\0\1")
_IMPLEMENTATION = _ui(0x0012, IMPLEMENTATION_CLASS_UID) + struct.pack(
    "<HH2sH16s", 2, 0x0013, b"SH", len(_IMPLEMENTATION_VERSION_NAME), _IMPLEMENTATION_VERSION_NAME
)


def encode_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str) -> bytes:
    """Return preamble, prefix and File Meta Information (PS3.10 Table 7.1-1)."""
    uids = _ui(0x0002, sop_class_uid) + _ui(0x0003, sop_instance_uid) + _ui(0x0010, transfer_syntax)
    group = _VERSION + uids + _IMPLEMENTATION
    return PREAMBLE + PREFIX + struct.pack("<HH2sHI", 2, 0, b"UL", 4, len(group)) + group


def read_meta(window: ByteWindow) -> FileMeta:
    """Read the File Meta Information of the file that `window` reads.

    Files without preamble, and data sets without meta information that begin with group 0008, are taken too:
    old archives hold them. Raises NotPart10, OSError.
    """
    start = window.read(0, len(PREAMBLE) + len(PREFIX))
    if start[len(PREAMBLE) :] == PREFIX:
        return read_group(window, len(start))
    if start[: len(PREFIX)] == PREFIX:
        return read_group(window, len(PREFIX))
    if start[:2] in GROUP:
        return read_group(window, 0)
    encoding = detect_encoding(start[:HEADER], window.size)
    if start[:2] == b"\x08\x00" or (start[:2] == b"\x00\x08" and encoding is EXPLICIT_BIG):
        return FileMeta("", 0)
    raise NotPart10("no DICM prefix at byte 128, and no data set at byte 0")


class _Group:
    """The elements of group 0002 that have been read."""

    def __init__(self) -> None:
        self.values: dict[int, bytes] = {}
        self.previous = 0
        self._end: int | None = None

    def add(self, window: ByteWindow, element: Element, encoding: Encoding) -> None:
        """Add an element; of one that occurs twice the first counts."""
        if element.length <= VALUE_LIMIT:
            self.values.setdefault(element.tag, window.read(element.start, element.length))
        if element.tag == _GROUP_LENGTH and self._end is None:
            value = self.values.get(element.tag, b"")
            length = int.from_bytes(value, "little" if encoding.little else "big")
            self._end = element.start + element.length + length
        self.previous = element.tag

    def ends(self, offset: int, header: bytes, encoding: Encoding) -> bool:
        """Whether the group ends here, although the next element is of group 0002 too.

        That element then belongs to the data set. The group ends at its group length; but in other programs'
        files this may be too short: then the next element has a higher tag. Where no element ends at the
        group length, the group ends before an element that occurs a second time.
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
        except BrokenEncoding:
            return False
        return following.vr is not None and following.tag > self.previous

    def text(self, tag: int) -> str:
        """Return a UID, or nothing where it is not valid."""
        uid = self.values.get(tag, b"").strip(b"\0 ").decode("latin_1")
        return uid if UID.fullmatch(uid) else ""


def read_group(window: ByteWindow, offset: int) -> FileMeta:
    """Read the elements of group 0002 from this offset on. Raises NotPart10, OSError.

    The standard asks for Explicit VR Little Endian; other encodings are read too.
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
    except BrokenEncoding as fault:
        raise NotPart10(f"File Meta Information is broken: {fault}") from fault
    if offset > window.size:
        raise NotPart10("File Meta Information is truncated")
    uids = (_TRANSFER_SYNTAX_UID, _MEDIA_STORAGE_SOP_CLASS_UID, _MEDIA_STORAGE_SOP_INSTANCE_UID)
    syntax, sop_class, instance = map(group.text, uids)
    return FileMeta(syntax, offset, sop_class, instance)


def _element(header: bytes, offset: int, encoding: Encoding) -> Element:
    """Read the header of an element; one without a VR is in Implicit VR where that makes it short enough."""
    if len(header) < HEADER:
        raise BrokenEncoding("it ends within an element")
    group, number, code, length = encoding.element.unpack_from(header)
    tag, vr = group << 16 | number, encoding.vrs.get(code)
    if code in encoding.short:
        return Element(tag, vr, offset + HEADER, length)
    if vr is None:
        implicit = encoding.item.unpack_from(header)[2]
        is_short = implicit < AMBIGUOUS or implicit == UNDEFINED
        return Element(tag, None, offset + HEADER, implicit if is_short else length)
    if len(header) < _HEADER:
        raise BrokenEncoding("it ends within an element")
    return Element(tag, vr, offset + _HEADER, *encoding.length.unpack_from(header, HEADER))
