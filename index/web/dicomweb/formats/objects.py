"""An instance's data set, read from its file: its elements, but long values only where they are asked for."""

import io
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, cast

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from index.dicom.scanning.byte_window import ByteWindow
from index.dicom.scanning.encodings import EXPLICIT_LITTLE as EXPLICIT
from index.dicom.scanning.encodings import HEADER, BrokenEncoding, Element, detect_encoding
from index.dicom.scanning.structure import read_element
from index.dicom.transcoding import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    NotTranscodable,
    transcode,
    vr_of,
)
from index.errors import NotFound, Unreadable
from index.storage.data_set_file import DataSetFile
from index.web.dicomweb.formats.dicom_json import BINARY, Path

# One read of a long value, in bytes.
BLOCK = 256 * 1024
# Values that are longer stay in the file, in bytes; sequences and texts up to the header's limit do not.
_DEFER = 64 * 1024
# The header of one instance in memory, in bytes. Those of multi-frame objects have some MB.
HEADER_LIMIT = 128 * 1024 * 1024
_READ = 8192
_PIXELS = frozenset((0x7FE00008, 0x7FE00009, 0x7FE00010))
PIXEL_DATA = 0x7FE00010
_FIRST_PIXELS = min(_PIXELS)


class _Reader(io.RawIOBase):
    """A data set's bytes as a file. Raises Unreadable where more of them are read than a header has."""

    def __init__(self, file: DataSetFile) -> None:
        self._file = file
        self._position = 0
        self.budget = HEADER_LIMIT

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        start = (0, self._position, self._file.size)[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any, /) -> int:
        length = max(0, min(len(buffer), self._file.size - self._position))
        if length:
            self.budget -= length
            if self.budget < 0:
                raise Unreadable(f"the header has more than {HEADER_LIMIT} bytes")
            self._file.read_into([memoryview(buffer)[:length]], self._position)
            self._position += length
        return length


class StoredDataSet:
    """The elements of a data set up to its pixel data, in `header`; `pixels` is where those are, or None.

    A data set that is deflated, or in Explicit VR Big Endian, is read as Explicit VR Little Endian.
    """

    def __init__(self, file: DataSetFile) -> None:
        """Takes the file over. Raises Unreadable, NotTranscodable, OSError."""
        self._file = file
        self._data: bytes | None = None
        self.stored_syntax = self.transfer_syntax = file.transfer_syntax
        try:
            self._open()
        except (Unreadable, NotTranscodable, OSError):
            file.close()
            raise
        except Exception as error:  # pydicom raises many kinds of error for damaged bytes
            file.close()
            raise Unreadable(f"its data set cannot be read: {type(error).__name__}") from error

    def _open(self) -> None:
        if self.stored_syntax in (DEFLATED, EXPLICIT_BIG):
            self._data = transcode(self._file.read(), self.stored_syntax, EXPLICIT_LITTLE)
            self.transfer_syntax = EXPLICIT_LITTLE
            self.size = len(self._data)
            source: Any = io.BytesIO(self._data)
        else:
            self.size = self._file.size
            source = io.BufferedReader(_Reader(self._file), _READ)
        first = self.read(0, min(HEADER, self.size))
        found = detect_encoding(first, self.size) or EXPLICIT
        is_implicit = not found.explicit if first else self.transfer_syntax == IMPLICIT_LITTLE
        self.header = read_dataset(source, is_implicit, True, stop_when=_is_pixels, defer_size=_DEFER)
        self.pixels = self._pixels(source.tell(), found)
        for tag, element in list(self.header.items()):
            self._complete(tag, element)

    def _pixels(self, offset: int, encoding: Any) -> Element | None:
        if offset >= self.size:
            return None
        window = ByteWindow(b"", self.read, self.size)
        try:
            element = read_element(window, offset, encoding)
        except BrokenEncoding:
            return None
        return element if element.tag in _PIXELS else None

    def _complete(self, tag: BaseTag, element: Any) -> None:
        """Read a long value that the header needs: a sequence or a text."""
        if not isinstance(element, RawDataElement) or element.value is not None or not element.length:
            return
        if element.length > self.size - element.value_tell:
            raise Unreadable(f"{tag} ends within its value")
        if vr_of(element, signed=False) not in BINARY:
            if element.length > HEADER_LIMIT:
                raise Unreadable(f"{tag} has more than {HEADER_LIMIT} bytes")
            value = self.read(element.value_tell, element.length)
            self.header[tag] = cast("Any", element._replace(value=value))

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes of the data set, fewer at its end. Raises OSError."""
        if self._data is not None:
            return self._data[offset : offset + length]
        buffer = bytearray(max(0, min(length, self.size - offset)))
        if buffer:
            self._file.read_into([memoryview(buffer)], offset)
        return bytes(buffer)

    def blocks(self, offset: int, length: int) -> Iterator[bytes]:
        """Yield so many bytes of the data set, in blocks. Raises OSError."""
        for start in range(offset, offset + length, BLOCK):
            yield self.read(start, min(BLOCK, offset + length - start))

    def value(self, path: Path) -> tuple[int, int] | bytes:
        """Return a value's offset and length in the data set, or its bytes. Raises NotFound."""
        dataset: Dataset = self.header
        for position in range(0, len(path) - 1, 2):
            dataset = _item(dataset, int(str(path[position]), 16), int(path[position + 1]))
        tag = int(str(path[-1]), 16)
        if tag not in dataset:
            raise NotFound(f"no such attribute: {path[-1]}")
        element: Any = dataset.get_item(tag, keep_deferred=True)
        if vr_of(element, signed=False) not in BINARY:
            raise NotFound(f"{path[-1]} is no bulk data")
        if isinstance(element, RawDataElement) and element.value is None:
            return element.value_tell, element.length
        return bytes(element.value or b"")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_pixels(tag: BaseTag, vr: str | None, length: int) -> bool:  # noqa: ARG001  as pydicom calls it
    return int.__ge__(tag, _FIRST_PIXELS)  # a BaseTag compares ten times as slowly


def _item(dataset: Dataset, tag: int, number: int) -> Dataset:
    if tag not in dataset or dataset[tag].VR != "SQ" or not 0 <= number < len(dataset[tag].value):
        raise NotFound(f"no such item: {tag:08X}/{number}")
    return cast("Dataset", dataset[tag].value[number])


def pixel_model(pixels: Element, uri: Callable[[Path], str]) -> dict[str, Any]:
    """Return pixel data as metadata has it (PS3.18 Section F.2.6)."""
    vr = pixels.vr or "OW"
    is_empty = not pixels.length
    return {"vr": vr} if is_empty else {"vr": vr, "BulkDataURI": uri((f"{pixels.tag:08X}",))}
