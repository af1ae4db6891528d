"""How elements are encoded: VR, byte order and element header (PS3.5 Section 7 and Annex A)."""

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Any, NamedTuple

from index.dicom.attributes import KIND_OF_VR

# Values as encoded: tag -> bytes, or for a sequence the list of its items, each a Raw again.
Raw = dict[int, Any]
Doubts = dict[str, None]  # in order, each once

UNDEFINED = 0xFFFFFFFF  # PS3.5 Section 7.1.1: a delimiter ends the value
ITEM = 0xFFFEE000
ITEM_END = 0xFFFEE00D
SEQUENCE_END = 0xFFFEE0DD
HEADER = 8  # bytes of an element's header that all encodings have

_SHORT_VRS = frozenset(KIND_OF_VR) - {"SQ", "UC", "UR", "UT"} | {"AT", "FD", "FL"}
# PS3.5 Table 7.1-1: 2 bytes reserved, 4 bytes of length.
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})


class BrokenEncoding(Exception):
    """The data set cannot be read from here on; the elements before are good."""


class UnknownEncoding(BrokenEncoding):
    """The plain scan cannot read this; pydicom may."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """One way to encode elements, with the Structs that unpack headers. `syntax`: its transfer syntax."""

    name: str
    syntax: str
    explicit: bool
    little: bool
    element: Struct  # group, element, VR, 16-bit length; or group, element, 32-bit length
    item: Struct  # group, element, 32-bit length: delimiters carry no VR
    length: Struct
    vrs: Mapping[int, str]  # by the two letters as a number: one unpacking reads the whole header
    short: frozenset[int]  # VRs with a 16-bit length
    delimiters: frozenset[bytes]  # the tags with which a sequence may begin

    @classmethod
    def of(cls, name: str, syntax: str, *, explicit: bool, little: bool) -> "Encoding":
        """Return one of the encodings of PS3.5 Annex A."""
        order = "<" if little else ">"
        code = Struct(order + "H")
        vrs = {code.unpack(vr.encode())[0]: vr for vr in _SHORT_VRS | _LONG_VRS}
        short = frozenset(number for number, vr in vrs.items() if vr in _SHORT_VRS)
        element = Struct(order + ("HHHH" if explicit else "HHI"))
        item, length, tag = Struct(order + "HHI"), Struct(order + "I"), Struct(order + "HH")
        delimiters = frozenset(tag.pack(one >> 16, one & 0xFFFF) for one in (ITEM, SEQUENCE_END))
        return cls(name, syntax, explicit, little, element, item, length, vrs, short, delimiters)


class Element(NamedTuple):
    """The header of one element: tag, VR (None where there is none), offset and length of the value."""

    tag: int
    vr: str | None
    start: int
    length: int


EXPLICIT_LITTLE = Encoding.of("Explicit VR Little Endian", "1.2.840.10008.1.2.1", explicit=True, little=True)
EXPLICIT_BIG = Encoding.of("Explicit VR Big Endian", "1.2.840.10008.1.2.2", explicit=True, little=False)
IMPLICIT_LITTLE = Encoding.of("Implicit VR Little Endian", "1.2.840.10008.1.2", explicit=False, little=True)
IMPLICIT_BIG = Encoding.of("Implicit VR Big Endian", "", explicit=False, little=False)

# The first element of an item may be of this length in Implicit VR or more, in bytes, or have an invalid VR:
# two printable characters make no smaller number.
AMBIGUOUS = 0x2020


def format_tag(tag: int) -> str:
    """Return a tag as (gggg,eeee)."""
    return f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def is_vr(code: bytes) -> bool:
    """Whether two bytes can be a VR: two capital letters."""
    return code.isalpha() and code.isupper()


def detect_encoding(first: bytes, size: int) -> Encoding | None:
    """Return the encoding of a data set of `size` bytes by the header of its first element, or None.

    The first group is below 0100 (hexadecimal).
    """
    if is_vr(first[4:6]):
        return EXPLICIT_BIG if first[0] == 0 < first[1] else EXPLICIT_LITTLE
    length = int.from_bytes(first[4:], "little")
    if len(first) == HEADER and first[1] == 0 and (length == UNDEFINED or length <= size - HEADER):
        return IMPLICIT_LITTLE
    return None


def encoding_of_sequence(encoding: Encoding, first: bytes) -> Encoding:
    """Return the encoding of a sequence by the first tag in it.

    In Explicit VR Big Endian the items of an element of VR UN are Implicit VR Little Endian (PS3.5
    Section 6.2.2 note 4, CP-246).
    """
    tag = first[:4]
    if tag in encoding.delimiters:
        return encoding
    if tag in EXPLICIT_LITTLE.delimiters:
        return EXPLICIT_LITTLE if encoding.explicit else IMPLICIT_LITTLE
    if tag in EXPLICIT_BIG.delimiters:
        return EXPLICIT_BIG if encoding.explicit else IMPLICIT_BIG
    return encoding


def encoding_of_item(encoding: Encoding, first: bytes) -> Encoding:
    """Return the encoding of an item. Explicit data sets may have implicit items: in VR UN, or by mistake."""
    if is_vr(first[4:6]) or not encoding.explicit or len(first) < HEADER:
        return encoding
    if AMBIGUOUS <= encoding.item.unpack_from(first)[2] < UNDEFINED:
        return encoding
    return IMPLICIT_LITTLE if encoding.little else IMPLICIT_BIG
