"""Objects read: each is open at any place, whether it is a file below the data directory or in a bucket."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from index.storage.object_keys import FIRST, node_of

# What is read at one time to hash an object, in bytes.
CHUNK = 1024 * 1024


class ObjectFile(Protocol):
    """An object that is open; `modified` is when it was written, in ms since 1970."""

    size: int
    modified: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes from an offset; fewer at the end. Raises OSError."""

    def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill these buffers, one after the other, from an offset. Raises OSError."""

    def close(self) -> None:
        """Close it."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LargeFile(Protocol):
    """A large object while it is written; `sha1` is complete after `close`. See DirectFile."""

    sha1: "hashlib._Hash"

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Append. Raises OSError."""

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes; nothing can be appended any more. Raises OSError."""

    def close(self, *, sync: bool) -> None:
        """Complete it. Raises OSError."""

    def abandon(self) -> None:
        """Let go of it."""


class LocalFile:
    """A file that is open to be read at any place."""

    def __init__(self, path: Path | str) -> None:
        """Open it. What is no file is not opened: a FIFO would hold its reader for ever. Raises OSError."""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._descriptor)
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        self.size = status.st_size
        self.modified = status.st_mtime_ns // 1_000_000

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes from an offset; fewer at the end. Raises OSError."""
        return os.pread(self._descriptor, size, offset)

    def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill these buffers, one after the other, from an offset. Raises OSError."""
        wanted = sum(map(len, buffers))
        got = os.preadv(self._descriptor, buffers, offset)
        if got != wanted:
            raise OSError(f"read {got} bytes of {wanted}")

    def close(self) -> None:
        """Close it."""
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class ObjectState:
    """What can be told of an object without reading it; `changed`, in ms since 1970, also by a rename."""

    size: int
    changed: int
    is_file: bool = True


def sha1_of(file: ObjectFile, pace: Callable[[int], object] = lambda _: None) -> str:
    """Return the SHA-1 of an object, in hexadecimal; `pace` is called with each number of bytes read.

    Raises OSError, and what `pace` raises.
    """
    digest, place = hashlib.sha1(usedforsecurity=False), 0
    while chunk := file.read_at(place, CHUNK):
        digest.update(chunk)
        place += len(chunk)
        pace(len(chunk))
    return digest.hexdigest()


def copy_object(source: ObjectFile, target: LargeFile) -> None:
    """Copy an object. Raises OSError; then there is none."""
    place = 0
    try:
        while chunk := source.read_at(place, CHUNK):
            target.write(chunk)
            place += len(chunk)
        target.close(sync=True)
    finally:
        target.abandon()


def file_state(path: Path | str) -> ObjectState | None:
    """Return what can be told of a file without reading it; None where there is none. Raises OSError."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None
    return ObjectState(status.st_size, status.st_ctime_ns // 1_000_000, stat.S_ISREG(status.st_mode))


class FolderReader:
    """Reads the objects below a data directory."""

    # Whether the objects of all nodes are in one store, which has this URL.
    is_shared = False
    url = ""
    # Whether no object is missing here because another node keeps it.
    sees_all = False

    def __init__(self, data: Path) -> None:
        self.data = data
        # Paths of the hot path are texts: pathlib costs 50 us for each instance.
        self._below = f"{data}/"
        # Of the node whose data directory it is: its number, which stands in the paths of its objects.
        self.node = FIRST

    def open(self, path: str) -> ObjectFile:
        """Open an object to be read. Raises OSError."""
        return LocalFile(self._below + path)

    def state(self, path: str) -> ObjectState | None:
        """Return what can be told without reading it; None where there is none. Raises OSError."""
        return file_state(self._below + path)

    def changed(self, path: str) -> int | None:
        """Return when an entry changed, in ms since 1970, whatever it is; None: gone. Raises OSError."""
        try:
            return os.lstat(self._below + path).st_ctime_ns // 1_000_000
        except FileNotFoundError:
            return None

    def kept_aside(self) -> list[str]:
        """Return the paths of what is kept in `conflicts/`. Raises OSError."""
        return sorted(f"conflicts/{file.name}" for file in (self.data / "conflicts").iterdir())

    def size(self, path: str) -> int | None:
        """Return the size of an object in bytes; None where there is none. Raises OSError."""
        found = self.state(path)
        return None if found is None else found.size

    def is_there(self, path: str) -> bool:
        """Tell whether something has the name of an object."""
        try:
            return self.state(path) is not None
        except OSError:
            return False

    def holds(self, path: str) -> bool:
        """Tell whether an object is to be found here, not in the data directory of another node."""
        return node_of(path) == self.node

    @property
    def away(self) -> str:
        """Why that store does not answer; empty: it does."""
        return ""

    def begin_serving(self) -> None:
        """The daemon is about to receive."""

    def may_be_elsewhere(self, path: str) -> bool:  # noqa: ARG002
        """Tell whether an object may be missing here because another node has yet to upload it."""
        return False

    @property
    def scope(self) -> int:
        """The node whose objects are found here; the first one stands for all nodes of a shared store."""
        return self.node
