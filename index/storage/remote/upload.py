"""A large object that is uploaded in parts while it arrives."""

import hashlib
import threading
from collections.abc import Iterator
from queue import Full, Queue
from typing import Protocol

from index.storage.object_file import ObjectFile

# How often a waiting sender looks whether its upload has failed, in seconds.
LOOK_SECONDS = 0.5


class Parts(Protocol):
    """A store that takes an object in parts."""

    at_once: int

    def open(self, path: str) -> ObjectFile:
        """Open an object."""

    def put(self, path: str, content: bytes | bytearray) -> None:
        """Make a small object."""

    def put_parts(self, path: str, parts: Iterator[bytes]) -> None:
        """Make an object of parts while they come."""


class _Abandoned(Exception):
    """The object does not come to its end."""


class Upload:
    """See LargeFile. No more than four parts are in memory.

    A thread of its own uploads it, from which the store asks for the parts: where these do not come to their
    end, the store ends the upload and keeps nothing of it.
    """

    def __init__(self, store: Parts, path: str) -> None:
        self._store, self._path = store, path
        self._part = bytearray()
        self._parts: Queue[bytes | BaseException | None] = Queue(maxsize=1)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._file: ObjectFile | None = None
        self._is_over = False
        self.sha1 = hashlib.sha1(usedforsecurity=False)

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """See LargeFile."""
        self.sha1.update(content)
        self._part += content
        while len(self._part) > self._store.at_once:
            part = bytes(self._part[: self._store.at_once])
            del self._part[: self._store.at_once]
            self._send(part)

    def read(self, offset: int, size: int) -> bytes:
        """See LargeFile."""
        if self._file is None:
            self.close(sync=True)
            self._file = self._store.open(self._path)
        return self._file.read_at(offset, size)

    def close(self, *, sync: bool) -> None:  # noqa: ARG002  a store keeps what it has taken
        """See LargeFile."""
        if self._is_over:
            return
        self._is_over = True
        if self._thread is None:
            self._store.put(self._path, self._part)
            return
        try:
            self._send(bytes(self._part))
            self._send(None)
        finally:
            self._part.clear()
        self._thread.join()
        if self._error:
            raise self._error

    def abandon(self) -> None:
        """See LargeFile. Nobody waits for the end of the upload."""
        self._part.clear()
        if not self._is_over and self._thread:
            self._is_over = True
            threading.Thread(target=self._end, name="upload-ends", daemon=True).start()

    def _end(self) -> None:
        self._hand(_Abandoned())

    def _send(self, part: bytes | None) -> None:
        """Hand a part to the thread. Raises OSError where it has failed."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="upload", daemon=True)
            self._thread.start()
        if not self._hand(part):
            raise self._error or OSError("the upload has ended")

    def _hand(self, part: bytes | BaseException | None) -> bool:
        while self._thread and self._thread.is_alive():
            try:
                self._parts.put(part, timeout=LOOK_SECONDS)
            except Full:
                continue
            return True
        return False

    def _run(self) -> None:
        try:
            self._store.put_parts(self._path, self._all_parts())
        except BaseException as error:  # noqa: BLE001  the sender raises it
            self._error = error

    def _all_parts(self) -> Iterator[bytes]:
        while (part := self._parts.get()) is not None:
            if isinstance(part, BaseException):
                raise part
            yield part
