"""The DICOM File Meta Information (PS3.10 Section 7.1): ours written, any read."""

import functools
import struct
from dataclasses import dataclass
from typing import BinaryIO

PREAMBLE = bytes(128)
PREFIX = b"DICM"

# A function of the UIDs alone: the same instance gives the same file, whoever sends it and whenever.
# Derived from a UUID (PS3.5 Section B.2), made once for this product.
IMPLEMENTATION_CLASS_UID = "2.25.241580961294463541236987045126984721361"
IMPLEMENTATION_VERSION_NAME = "IMAGINGSTUDYD_1"

IMPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_BIG_ENDIAN = "1.2.840.10008.1.2.2"

# File Meta Information is a few hundred bytes; private information (0002,0102) may add some kB.
META_LIMIT = 1024 * 1024

_LONG_VRS = frozenset((b"OB", b"OW", b"UN", b"SQ", b"UT"))
_MEDIA_STORAGE_SOP_CLASS_UID = 0x00020002
_MEDIA_STORAGE_SOP_INSTANCE_UID = 0x00020003
_TRANSFER_SYNTAX_UID = 0x00020010


class NotPart10(ValueError):
    """The bytes are no DICOM file."""


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What a file says of its data set, and at which offset in bytes that begins."""

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


def read_meta(file: BinaryIO) -> FileMeta:
    """Read the File Meta Information of `file`, from its start.

    Files without preamble, and bare data sets that begin with group 0008, are taken too: old archives
    hold them. Raises NotPart10 where it is neither, OSError where it cannot be read.
    """
    start = file.read(len(PREAMBLE) + len(PREFIX))
    if start[len(PREAMBLE) :] == PREFIX:
        return _read_group(file, len(start))
    if start[:2] == b"\x02\x00":
        return _read_group(file, 0)
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    if start[:2] == b"\x08\x00" and start[3:4] == b"\x00":
        return FileMeta(EXPLICIT_LITTLE_ENDIAN if explicit else IMPLICIT_LITTLE_ENDIAN, 0)
    if start[:3] == b"\x00\x08\x00" and explicit:
        return FileMeta(EXPLICIT_BIG_ENDIAN, 0)
    raise NotPart10("no DICM prefix at byte 128, and no data set at byte 0")


def _read_group(file: BinaryIO, offset: int) -> FileMeta:
    """Walk group 0002, which is Explicit VR Little Endian always."""
    file.seek(offset)
    data = file.read(META_LIMIT)
    at, values = 0, {}
    while data[at : at + 2] == b"\x02\x00":
        try:
            _, element, vr, length = struct.unpack_from("<HH2sH", data, at)
            at += 8
            if vr in _LONG_VRS:
                (length,) = struct.unpack_from("<I", data, at)
                at += 4
        except struct.error as error:
            raise NotPart10("File Meta Information is truncated") from error
        values[0x00020000 | element] = data[at : at + length]
        at += length
    if at > len(data):
        raise NotPart10("File Meta Information is truncated")
    texts = {tag: values.get(tag, b"").rstrip(b"\0 ").decode("ascii", "replace") for tag in _WANTED}
    return FileMeta(
        texts[_TRANSFER_SYNTAX_UID] or IMPLICIT_LITTLE_ENDIAN,
        offset + at,
        texts[_MEDIA_STORAGE_SOP_CLASS_UID],
        texts[_MEDIA_STORAGE_SOP_INSTANCE_UID],
    )


_WANTED = (_TRANSFER_SYNTAX_UID, _MEDIA_STORAGE_SOP_CLASS_UID, _MEDIA_STORAGE_SOP_INSTANCE_UID)
