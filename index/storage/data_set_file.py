"""An instance's data set in its file, to be sent: as stored, or in another transfer syntax."""

import os
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from index.dicom.part10 import NotPart10, encode_meta, read_meta
from index.dicom.scanning.byte_window import ByteWindow
from index.errors import Unreadable
from index.storage.durable import open_file

# More than our own File Meta Information: it is compared, not parsed.
_HEAD = 1024


class DataSetFile:
    """The data set in a Part 10 file, without the file's meta information. `size` is in bytes."""

    def __init__(self, path: str, identity: tuple[str, str, str], size: int) -> None:
        """`identity`: SOP Class, SOP Instance and transfer syntax UID; `size`: that the file should have.

        Raises Unreadable, OSError.
        """
        self._file = open_file(path)
        self._descriptor = self._file.fileno()
        self.transfer_syntax = identity[2]
        try:
            self._offset = self._data_set_offset(identity, size)
        except BaseException:
            self._file.close()
            raise
        self.size = size - self._offset

    def _data_set_offset(self, identity: tuple[str, str, str], size: int) -> int:
        if os.fstat(self._descriptor).st_size != size:
            raise Unreadable(f"{identity[1]}: its object is damaged; see `imagingstudyd verify`")
        own_meta = encode_meta(*identity)
        head = os.pread(self._descriptor, _HEAD, 0)
        if head.startswith(own_meta):
            return len(own_meta)
        window = ByteWindow(head, lambda offset, length: os.pread(self._descriptor, length, offset), size)
        try:
            return read_meta(window).offset
        except NotPart10 as error:
            raise Unreadable(str(error)) from error

    def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill these buffers, one after the other, with the bytes from `offset` on. Raises OSError."""
        wanted = sum(map(len, buffers))
        got = os.preadv(self._descriptor, buffers, self._offset + offset)
        if got != wanted:
            raise OSError(f"read {got} bytes of {wanted}")

    def read(self) -> bytes:
        """Return the whole data set. Raises OSError."""
        return os.pread(self._descriptor, self.size, self._offset)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
