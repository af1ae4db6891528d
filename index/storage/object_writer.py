"""An object from its first byte to its place in `objects/`."""

import contextlib
import hashlib
import os

from index.dicom.header import HEAD_SIZE
from index.dicom.part10 import encode_meta
from index.errors import NotKept, TooLarge
from index.records import Origin
from index.storage.direct_file import DirectFile, write_new
from index.storage.journal import encode
from index.storage.object_store import ObjectStore


class ObjectWriter:
    """An object on its way in: Part 10 header first, then the data set as it comes."""

    def __init__(
        self,
        store: ObjectStore,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax: str,
        limit: int | None = None,
    ) -> None:
        """Begin an object. `limit` is of its data set's bytes. Raises NotKept below the watermark."""
        self._store = store
        self._path = store.incoming_path()
        meta = encode_meta(sop_class_uid, sop_instance_uid, transfer_syntax)
        self._meta_size = self.size = len(meta)
        self._limit = limit
        own_limit = store.size_limit if limit is None else self._meta_size + limit
        self._size_limit = min(store.size_limit, own_limit)
        self._head = bytearray(meta)
        self._sha1 = b""
        self._file: DirectFile | None = None

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
                self._file = DirectFile(self._path)
                self._file.write(self._head)
            self._file.write(fragment)
        except OSError as error:
            raise NotKept(f"{self._path}: {error.strerror}") from error

    def _too_large(self) -> TooLarge:
        if self._size_limit < self._store.size_limit:
            return TooLarge(f"larger than the peer's limit of {self._limit} bytes")
        return TooLarge(f"object is larger than limits.object_size = {self._size_limit} bytes")

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

    def file(self) -> str:
        """Sync the bytes, rename the file into `objects/`, return its path. Raises NotKept; then it is gone.

        A failing sync is never tried again: the kernel may have dropped the pages that it could not write.
        """
        try:
            if self._file is not None:
                self._file.close(sync=self._store.sync)
            else:
                write_new(self._path, self._head, sync=self._store.sync)
            path = self._store.reserve(self.size)
            self._store.rename(self._path, path)
        except OSError as error:
            self.discard()
            raise NotKept(f"{self._path}: {error.strerror}") from error
        except NotKept:
            self.discard()
            raise
        return path

    def unsynced(self) -> "JournaledObject":
        """Return a small object for the journal; its file is yet to be written. Raises NotKept."""
        try:
            return JournaledObject(self._store, self._path, self._head, self.sha1)
        except OSError as error:
            raise NotKept(f"objects: {error.strerror}") from error

    def discard(self) -> None:
        """Leave nothing behind. Does no harm when called again."""
        if self._file is not None:
            self._file.abandon()
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108


class JournaledObject:
    """A small object whose file is not synced: until it is, the journal has it.

    `path` is its place. `record` is the body of its record in the journal, `number` that record's, `part` the
    part of the journal that it is in.
    """

    def __init__(self, store: ObjectStore, incoming: str, content: bytearray, sha1: bytes) -> None:
        """Raises OSError where it can have no place."""
        self._store = store
        self._incoming = incoming
        self._content = content
        self._sha1 = sha1
        self.path = store.reserve(len(content))
        self.record = b""
        self.number: int | None = None
        self.part = 0

    def describe(self, uid: str, origin: Origin, received: int) -> None:
        """Say what its record is to tell of the instance."""
        facts = {
            "uid": uid,
            "path": self.path,
            "received": received,
            "origin": [origin.calling_aet, origin.called_aet, origin.address],
        }
        self.record = encode(facts, self._content, self._sha1)

    def write(self) -> None:
        """Write the file, unsynced, and put it in its place. Raises OSError; then nothing is left of it."""
        try:
            write_new(self._incoming, self._content, sync=False)
            self._store.rename(self._incoming, self.path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(self._incoming)  # noqa: PTH108
            raise

    def make_durable(self) -> None:
        """Do without the journal: write the file and sync it, with its name. Raises NotKept."""
        try:
            self._store.put(self.path, bytes(self._content))
        except OSError as error:
            raise NotKept(f"{self.path}: {error.strerror}") from error
