"""An object from its first byte to its place in `objects/`."""

import contextlib
import hashlib
from collections.abc import Callable

from index.dicom.header import HEAD_SIZE
from index.dicom.part10 import encode_meta
from index.errors import NotKept, TooLarge
from index.storage.object_file import LargeFile
from index.storage.object_store import ObjectStore


class ObjectWriter:
    """An object on its way in: Part 10 header first, then the data set as it comes."""

    def __init__(
        self,
        store: ObjectStore,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        take_name: Callable[[], str],
        limit: int | None = None,
    ) -> None:
        """Begin an object; `take_name` gives a large one its path in `incoming/`.

        `limit` is of its data set's bytes. Raises NotKept where there is no room.
        """
        store.require()
        self._store = store
        self._take_name = take_name
        self._path = ""
        meta = encode_meta(sop_class_uid, sop_instance_uid, transfer_syntax)
        self._meta_size = self.size = len(meta)
        self._limit = limit
        own_limit = store.size_limit if limit is None else self._meta_size + limit
        self._size_limit = min(store.size_limit, own_limit)
        self._head = bytearray(meta)
        self._sha1 = b""
        self._file: LargeFile | None = None

    def write(self, fragment: bytes | memoryview) -> None:
        """Append to the data set. Raises NotKept (no space, I/O error), TooLarge."""
        before = self.size
        self.size += len(fragment)
        if self.size > self._size_limit:
            raise self._too_large()
        if before < HEAD_SIZE:
            self._head += fragment[: HEAD_SIZE - before]
            if self.size <= HEAD_SIZE:
                return
            fragment = fragment[HEAD_SIZE - before :]
        try:
            if self._file is None:
                self._path = self._take_name()
                self._file = self._store.new_file(self._path)
                self._file.write(self._head)
            self._file.write(fragment)
        except OSError as error:
            raise NotKept(f"{self._path}: {error.strerror}") from error

    def _too_large(self) -> TooLarge:
        if self._size_limit < self._store.size_limit:
            return TooLarge(f"larger than the peer's limit of {self._limit} bytes")
        return TooLarge(f"object is larger than limits.object_size = {self._size_limit} bytes")

    @property
    def path(self) -> str:
        """The path of its file in `incoming/`, below the data directory; empty where it is small."""
        return self._path

    @property
    def content(self) -> bytes | bytearray | None:
        """The whole Part 10 file of a small object."""
        return self._head if self._file is None else None

    @property
    def is_small(self) -> bool:
        """Whether all of it is in memory."""
        return self.size <= HEAD_SIZE

    @property
    def head(self) -> memoryview:
        """The data set's first bytes; all of it where it is small."""
        return memoryview(self._head)[self._meta_size :]

    @property
    def data_set_size(self) -> int:
        """Bytes of the data set so far."""
        return self.size - self._meta_size

    @property
    def sha1(self) -> bytes:
        """SHA-1 of the whole Part 10 file, once that is complete (FHIR Attachment.hash is SHA-1)."""
        if not self._sha1:
            whole = hashlib.sha1(self._head, usedforsecurity=False) if self._file is None else self._file.sha1
            self._sha1 = whole.digest()
        return self._sha1

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the data set from `offset`; fewer at its end. Raises NotKept."""
        if self._file is None:
            return bytes(self.head[offset : offset + size])
        try:
            return self._file.read(self._meta_size + offset, size)
        except OSError as error:
            raise NotKept(f"{self._path}: {error.strerror}") from error

    def finish(self, *, sync: bool) -> None:
        """Write what is left of a large object, and sync its content where asked for. Raises NotKept.

        A failing sync is never tried again: the kernel may have dropped the pages that it could not write.
        """
        if self._file is None:
            return
        try:
            self._file.close(sync=sync)
        except OSError as error:
            self.discard()
            raise NotKept(f"{self._path}: {error.strerror}") from error

    def discard(self) -> None:
        """Leave nothing behind. Does no harm when called again."""
        if self._file is not None:
            self._file.abandon()
        if self._path:
            with contextlib.suppress(OSError):
                self._store.discard(self._path)
