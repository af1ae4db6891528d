"""An instance's data set in its object, to be sent: as stored, or in another transfer syntax."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from index.dicom.part10 import NotPart10, encode_meta, read_meta
from index.dicom.scanning.byte_window import ByteWindow
from index.errors import Unreadable
from index.storage.object_file import ObjectFile

# More than our own File Meta Information: it is compared, not parsed.
_HEAD = 1024


class DataSetFile:
    """The data set in a Part 10 file, without the file's meta information. `size` is in bytes."""

    def __init__(self, file: ObjectFile, identity: tuple[str, str, str], size: int) -> None:
        """`identity`: SOP Class, SOP Instance and transfer syntax UID; `size`: that the file should have.

        It closes the file, also where it raises Unreadable or OSError.
        """
        self._file = file
        self.transfer_syntax = identity[2]
        try:
            self._offset = self._data_set_offset(identity, size)
        except BaseException:
            self._file.close()
            raise
        self.size = size - self._offset

    def _data_set_offset(self, identity: tuple[str, str, str], size: int) -> int:
        if self._file.size != size:
            raise Unreadable(f"{identity[1]}: its object is damaged; see `imagingstudyd verify`")
        own_meta = encode_meta(*identity)
        head = self._file.read_at(0, _HEAD)
        if head.startswith(own_meta):
            return len(own_meta)
        window = ByteWindow(head, self._file.read_at, size)
        try:
            return read_meta(window).offset
        except NotPart10 as error:
            raise Unreadable(str(error)) from error

    def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill these buffers, one after the other, with the bytes from `offset` on. Raises OSError."""
        self._file.read_into(buffers, self._offset + offset)

    def read(self) -> bytes:
        """Return the whole data set. Raises OSError."""
        return self._file.read_at(self._offset, self.size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
