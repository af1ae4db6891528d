"""A data set in another transfer syntax (PS3.5 Section 10): uncompressed, or deflated.

Values are copied as they are, in any character set; only headers of elements are written anew. pydicom finds
the elements. It decompresses pixel data too where a decoder is installed (the extra `codecs`). Nothing is
compressed.
"""

import struct
import zlib
from io import BytesIO
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from index.dicom.value_rules import cut_off
from index.errors import IndexFault

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

TRANSCODED = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED, EXPLICIT_BIG)
"""The transfer syntaxes that `transcode` makes, the preferred one first."""

# The largest data set that is transcoded, in bytes, inflated and decompressed: it is held in memory three
# times. What is sent as stored is not.
TRANSCODE_LIMIT = 512 * 1024 * 1024
# Data sets that are transcoded at one time, for the same reason.
AT_ONCE = 2
_slots = BoundedSemaphore(AT_ONCE)

# Bytes of one number by VR (PS3.5 Section 7.3); values of other VRs are the same in both byte orders.
_WORDS = dict.fromkeys(("AT", "OW", "SS", "US"), 2)
_WORDS |= dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4)
_WORDS |= dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8)
# VRs whose length has 32 bits in Explicit VR (PS3.5 Section 7.1.2).
_LONG = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
_SHORT_LENGTH = 0xFFFE
# Bytes of tag and length in Implicit VR (PS3.5 Section 7.1.3).
_IMPLICIT_HEADER = 8
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXEL_REPRESENTATION = 0x00280103


class NotTranscodable(IndexFault):
    """Raised when a data set cannot be put into another transfer syntax; the text says why."""


def transcode(data: bytes, stored: str, wanted: str) -> bytes:
    """Return a data set in another of the TRANSCODED syntaxes; the SOP Instance UID stays.

    Raises NotTranscodable.
    """
    if wanted not in TRANSCODED:
        raise NotTranscodable(f"transfer syntax {wanted}: only uncompressed ones and deflated are made")
    if len(data) > TRANSCODE_LIMIT:
        raise NotTranscodable(f"more than {TRANSCODE_LIMIT} bytes are not transcoded")
    with _slots:
        try:
            return _transcode(data, stored, wanted)
        except NotTranscodable:
            raise
        except MemoryError as error:
            raise NotTranscodable("too large for the memory") from error
        except Exception as error:  # pydicom and decoders raise many kinds of error for damaged bytes
            why = next(iter(str(error).splitlines()), "") or type(error).__name__
            raise NotTranscodable(f"transfer syntax {stored}: {why}") from error


def _transcode(data: bytes, stored: str, wanted: str) -> bytes:
    if stored not in TRANSCODED:
        data, stored = _decompress(data, stored), EXPLICIT_LITTLE
    elif stored == DEFLATED:
        data, stored = _inflate(data), EXPLICIT_LITTLE
    dataset = _read(data, stored)
    encoded = _Writer(stored, wanted).encode(dataset)
    if wanted != DEFLATED:
        return encoded
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    encoded = deflate.compress(encoded) + deflate.flush()
    return encoded + b"\0" * (len(encoded) % 2)  # PS3.5 Section A.5


def _read(data: bytes, stored: str) -> "Dataset":
    from pydicom.filereader import read_dataset

    dataset = read_dataset(BytesIO(data), stored == IMPLICIT_LITTLE, stored != EXPLICIT_BIG)
    if name := cut_off(dataset):
        raise NotTranscodable(f"{name} ends within its value")
    return dataset


def _inflate(data: bytes) -> bytes:
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflate.decompress(data, TRANSCODE_LIMIT)
    if inflate.unconsumed_tail:
        raise NotTranscodable(f"more than {TRANSCODE_LIMIT} bytes, inflated, are not transcoded")
    return inflated


def _decompress(data: bytes, stored: str) -> bytes:
    """Return a data set in Explicit VR Little Endian whose pixel data was encapsulated."""
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID

    dataset = _read(data, EXPLICIT_LITTLE)
    size = int(dataset.get("BitsAllocated") or 8) // 8 or 1
    for keyword in ("Rows", "Columns", "SamplesPerPixel", "NumberOfFrames"):
        size *= int(dataset.get(keyword) or 1)
    if size > TRANSCODE_LIMIT:
        raise NotTranscodable(f"{size} bytes of pixel data are too many to be decompressed")
    pixels = dataset.group_dataset(0x0028)
    pixels["PixelData"] = dataset["PixelData"]
    pixels.file_meta = FileMetaDataset()
    pixels.file_meta.TransferSyntaxUID = UID(stored)
    pixels.set_original_encoding(False, True)
    # A UID of its own would make another instance of it.
    pixels.decompress(generate_instance_uid=False)
    for element in pixels:
        dataset[element.tag] = element
    return _Writer(EXPLICIT_LITTLE, EXPLICIT_LITTLE).encode(dataset)


class _Writer:
    """Writes data sets that pydicom has read in one transfer syntax in another one."""

    def __init__(self, stored: str, wanted: str) -> None:
        self._is_implicit = wanted == IMPLICIT_LITTLE
        self._was_little = stored != EXPLICIT_BIG
        self._swap = (stored == EXPLICIT_BIG) != (wanted == EXPLICIT_BIG)
        order = ">" if wanted == EXPLICIT_BIG else "<"
        self._tag = struct.Struct(f"{order}HH")
        self._length = struct.Struct(f"{order}L")
        self._short_length = struct.Struct(f"{order}H")

    def encode(self, dataset: "Dataset", *, signed: bool = False) -> bytes:
        """Return the encoded data set. Sequences and their items get undefined lengths."""
        encoded = bytearray()
        if _PIXEL_REPRESENTATION in dataset:
            signed = dataset[_PIXEL_REPRESENTATION].value == 1
        for tag in sorted(dataset.keys()):
            if tag.element == 0:
                continue  # group lengths, retired: they would be wrong
            element: Any = dataset.get_item(tag, keep_deferred=True)
            if (vr := vr_of(element, signed=signed)) == "SQ":
                encoded += self._sequence(tag, dataset[tag].value, signed=signed)
            else:
                value = (element.value or b"") if element.is_raw else self._value(element)
                encoded += self._header(tag, vr, len(value))
                encoded += swapped(value, _WORDS.get(vr, 1)) if self._swap else value
        return bytes(encoded)

    def _value(self, element: Any) -> bytes:
        """Return the value of an element that pydicom has decoded, in the byte order of the data set."""
        from pydicom.filebase import DicomBytesIO
        from pydicom.filewriter import write_data_element

        buffer = DicomBytesIO()
        buffer.is_implicit_VR, buffer.is_little_endian = True, self._was_little
        write_data_element(buffer, element)
        return bytes(buffer.getvalue())[_IMPLICIT_HEADER:]

    def _sequence(self, tag: int, items: Any, *, signed: bool) -> bytes:
        encoded = bytearray(self._header(tag, "SQ", _UNDEFINED))
        for item in items or ():
            encoded += self._delimiter(_ITEM, _UNDEFINED)
            encoded += self.encode(item, signed=signed)
            encoded += self._delimiter(_ITEM_END, 0)
        return bytes(encoded + self._delimiter(_SEQUENCE_END, 0))

    def _delimiter(self, tag: int, length: int) -> bytes:
        return self._tag.pack(tag >> 16, tag & 0xFFFF) + self._length.pack(length)

    def _header(self, tag: int, vr: str, length: int) -> bytes:
        start = self._tag.pack(tag >> 16, tag & 0xFFFF)
        if self._is_implicit:
            return start + self._length.pack(length)
        if vr not in _LONG and length <= _SHORT_LENGTH:
            return start + vr.encode() + self._short_length.pack(length)
        # PS3.5 Section 6.2.2: a value that is too long for its VR is UN.
        return start + (vr if vr in _LONG else "UN").encode() + b"\0\0" + self._length.pack(length)


def vr_of(element: Any, *, signed: bool) -> str:
    """Return the VR of an element, that of PS3.6 where its data set is in Implicit VR."""
    if element.VR is not None:
        return str(element.VR)
    from pydicom.datadict import dictionary_has_tag, dictionary_VR

    tag = element.tag
    if tag.is_private_creator:
        return "LO"
    if not dictionary_has_tag(tag):
        return "UN"
    several = dictionary_VR(tag).split(" or ")
    if "OW" in several:
        return "OW"  # PS3.5 Section A.1
    return "SS" if signed and "SS" in several else several[0]


def swapped(value: bytes, length: int) -> bytes:
    """Return numbers of this length in the other byte order. Raises NotTranscodable."""
    if length == 1:
        return value
    if len(value) % length:
        raise NotTranscodable("a number is cut off")
    other = bytearray(len(value))
    for byte in range(length):
        other[byte::length] = value[length - 1 - byte :: length]
    return bytes(other)
