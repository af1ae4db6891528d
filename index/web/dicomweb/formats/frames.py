"""The frames of an instance's pixel data: as stored, or decoded one by one (PS3.5 Section 8 and A.4)."""

import struct
from collections.abc import Iterator, Sequence
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from index.dicom.scanning.encodings import UNDEFINED
from index.dicom.transcoding import EXPLICIT_LITTLE, TRANSCODED
from index.errors import IndexFault, NotFound, Unreadable
from index.web.dicomweb.formats.objects import PIXEL_DATA, StoredDataSet

if TYPE_CHECKING:
    import numpy as np

# A frame that is decoded or rendered is in memory several times, in bytes.
FRAME_LIMIT = 256 * 1024 * 1024
# Fragments of one object: a video's frames are some ten thousand.
FRAGMENTS_LIMIT = 1_000_000
# Frames that are decoded at one time, for the same reason.
AT_ONCE = 2
slots = BoundedSemaphore(AT_ONCE)

_ITEM, _HEADER = b"\xfe\xff\x00\xe0", 8
_HEADERS_AT_ONCE = 64


class NotDecodable(IndexFault):
    """Raised where no decoder is installed for a transfer syntax, or the pixel data is damaged."""


class Frames:
    """The frames of a data set, numbered from 0. Raises NotFound where it has no pixel data."""

    def __init__(self, dataset: StoredDataSet) -> None:
        if dataset.pixels is None:
            raise NotFound("the instance has no pixel data")
        self._dataset = dataset
        self._element = dataset.pixels
        header = dataset.header
        self.count = max(1, _number(header, "NumberOfFrames", 1))
        self.is_encapsulated = self._element.length == UNDEFINED
        self._fragments: list[list[tuple[int, int]]] | None = None
        self._bits = (
            _number(header, "Rows", 0)
            * _number(header, "Columns", 0)
            * _number(header, "SamplesPerPixel", 1)
            * self._bits_allocated(header)
        )
        if header.get("PhotometricInterpretation") == "YBR_FULL_422" and not self.is_encapsulated:
            self._bits = self._bits // 3 * 2  # PS3.3 Section C.7.6.3.1.2: two samples for each pixel

    def _bits_allocated(self, header: Dataset) -> int:
        by_tag = {0x7FE00008: 32, 0x7FE00009: 64}
        return by_tag.get(self._element.tag) or _number(header, "BitsAllocated", 8)

    @property
    def transfer_syntax(self) -> str:
        """The transfer syntax of the frames as they are stored."""
        return self._dataset.stored_syntax if self.is_encapsulated else EXPLICIT_LITTLE

    def blocks(self, number: int) -> Iterator[bytes]:
        """Yield a frame as it is stored. Raises NotFound, Unreadable, OSError."""
        if not 0 <= number < self.count:
            raise NotFound(f"the instance has {self.count} frames")
        if self.is_encapsulated:
            for offset, length in self._index()[number]:
                yield from self._dataset.blocks(offset, length)
        elif self._bits % 8:
            yield self._unaligned(number)
        else:
            length = self._bits // 8
            if length * (number + 1) > self._element.length:
                raise Unreadable("the pixel data is too short for its frames")
            yield from self._dataset.blocks(self._element.start + number * length, length)

    @property
    def place(self) -> tuple[int, int]:
        """Offset and length of pixel data that is not encapsulated, in the data set."""
        return self._element.start, min(self._element.length, self._dataset.size - self._element.start)

    def _unaligned(self, number: int) -> bytes:
        """Return a frame of bits that does not begin with a byte (PS3.5 Section 8.1.1)."""
        first, last = number * self._bits, (number + 1) * self._bits
        start, end = first // 8, (last + 7) // 8
        if end > self._element.length:
            raise Unreadable("the pixel data is too short for its frames")
        value = int.from_bytes(self._dataset.read(self._element.start + start, end - start), "little")
        value = (value >> (first - start * 8)) & ((1 << self._bits) - 1)
        return value.to_bytes((self._bits + 7) // 8, "little")

    # --- encapsulated pixel data ---

    def _index(self) -> list[list[tuple[int, int]]]:
        """Return offset and length of the fragments of each frame (PS3.5 Section A.4)."""
        if self._fragments is None:
            fragments = list(self._items())
            offsets = self._offsets(fragments[0]) if fragments else []
            self._fragments = self._by_frame(fragments[1:], offsets)
        return self._fragments

    def _items(self) -> Iterator[tuple[int, int]]:
        offset = self._element.start
        for _ in range(FRAGMENTS_LIMIT):
            header = self._dataset.read(offset, _HEADER)
            if len(header) < _HEADER or header[:4] != _ITEM:
                return
            (length,) = struct.unpack_from("<I", header, 4)
            if length > self._dataset.size - offset - _HEADER:
                raise Unreadable("the pixel data ends within a fragment")
            yield offset + _HEADER, length
            offset += _HEADER + length
        raise Unreadable(f"the pixel data has more than {FRAGMENTS_LIMIT} fragments")

    def _offsets(self, table: tuple[int, int]) -> Sequence[int]:
        """Return the offset of each frame behind the first fragment; none where no table has them."""
        extended = "ExtendedOffsetTable"
        if extended in self._dataset.header:
            found = self._dataset.value(("7FE00001",))
            data = found if isinstance(found, bytes) else self._dataset.read(*found)
            return struct.unpack(f"<{len(data) // 8}Q", data[: len(data) // 8 * 8])
        data = self._dataset.read(*table)
        return struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4])

    def _by_frame(
        self, fragments: list[tuple[int, int]], offsets: Sequence[int]
    ) -> list[list[tuple[int, int]]]:
        if self.count == 1:
            return [fragments]
        if len(fragments) == self.count:
            return [[fragment] for fragment in fragments]
        if len(offsets) != self.count or not fragments:
            raise Unreadable(f"{len(fragments)} fragments are not told to be of which of {self.count} frames")
        origin = fragments[0][0] - _HEADER
        frames: list[list[tuple[int, int]]] = [[] for _ in offsets]
        current = 0
        for fragment in fragments:
            while current + 1 < len(offsets) and fragment[0] - _HEADER - origin >= offsets[current + 1]:
                current += 1
            frames[current].append(fragment)
        return frames

    # --- decoding ---

    def decoded(self, number: int) -> bytes:
        """Return a frame as native pixel data in Explicit VR Little Endian. Raises NotDecodable."""
        if not self.is_encapsulated:
            return b"".join(self.blocks(number))
        with slots:
            array, _ = self.pixels(number)
        # As the metadata of the instance says.
        if array.ndim > 2 and _number(self._dataset.header, "PlanarConfiguration", 0) == 1:  # noqa: PLR2004
            array = array.transpose(2, 0, 1)
        return array.tobytes()

    def pixels(self, number: int) -> "tuple[np.ndarray[Any, Any], Dataset]":
        """Return a frame's decoded pixels, and the data set that describes them. Raises NotDecodable."""
        decoder, one = self._prepared(number)
        try:
            array, properties = decoder.as_array(one, index=0)
        except Exception as error:
            raise NotDecodable(f"transfer syntax {self.transfer_syntax}: {_first_line(error)}") from error
        one.PhotometricInterpretation = properties["photometric_interpretation"]
        return array, one

    def _prepared(self, number: int) -> tuple[Any, Dataset]:
        """Return a decoder, and a data set of this frame alone."""
        if self._bits // 8 > FRAME_LIMIT:
            raise NotDecodable(f"a frame has more than {FRAME_LIMIT} bytes")
        decoder = decoder_for(self.transfer_syntax)
        frame = b"".join(self.blocks(number))
        one = Dataset()
        for element in self._dataset.header.group_dataset(0x0028):
            one[element.tag] = element
        one.NumberOfFrames = 1
        one.file_meta = FileMetaDataset()
        one.file_meta.TransferSyntaxUID = UID(self.transfer_syntax)
        one.set_original_encoding(False, True)
        if self.is_encapsulated:
            frame = _ITEM + bytes(4) + _ITEM + struct.pack("<I", len(frame) + len(frame) % 2) + frame
        one.add_new(self._element.tag, "OB" if self.is_encapsulated else "OW", frame + bytes(len(frame) % 2))
        if self._element.tag == PIXEL_DATA:
            one[PIXEL_DATA].is_undefined_length = self.is_encapsulated
        return decoder, one


def decoder_for(syntax: str) -> Any:
    """Return a decoder for a transfer syntax. Raises NotDecodable."""
    try:
        from pydicom.pixels.decoders.base import get_decoder

        decoder = get_decoder(UID(syntax))
    except (NotImplementedError, ImportError) as error:
        raise NotDecodable(f"transfer syntax {syntax}: there is no decoder") from error
    if not decoder.is_available:
        raise NotDecodable(f"transfer syntax {syntax}: no decoder is installed; see the extra `codecs`")
    return decoder


def can_decode(syntax: str) -> bool:
    """Whether frames of this transfer syntax can be decoded, as far as their bytes allow."""
    if syntax in TRANSCODED:
        return True
    try:
        decoder_for(syntax)
    except NotDecodable:
        return False
    return True


def _number(header: Dataset, keyword: str, default: int) -> int:
    try:
        return int(header.get(keyword) or default)
    except (TypeError, ValueError):
        return default


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
