"""Objects in a bucket of the S3 interface, by obstore: written once, read by range, listed by day.

An object's key is ours: its day, and a UUID that begins with the time. So no two nodes share a name.
"""

import datetime as dt
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from index.storage.object_file import CHUNK, ObjectState

if TYPE_CHECKING:
    from types import TracebackType

    from obstore.store import S3Store

T = TypeVar("T")

# In seconds: all tries together are shorter than a modality waits (30 s).
CONNECT = timedelta(seconds=5)
REQUEST = timedelta(seconds=10)
ALL_TRIES = timedelta(seconds=15)
RETRIES = 2
# What is read ahead at one time, in bytes.
AHEAD = 1024 * 1024
# One part of a multipart upload: S3 takes no more than 10,000 of 5 MiB at least.
PART = 8 * 1024 * 1024


def new_key(now: float | None = None) -> str:
    """Return the path of a new object: ordered by time, with 74 random bits (RFC 9562 Section 5.7)."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    bits = int.from_bytes(os.urandom(10))
    head = (milliseconds << 80) | (7 << 76) | ((bits >> 68 & 0xFFF) << 64)
    value = head | (2 << 62) | (bits & (1 << 62) - 1)
    day = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return f"objects/{day:%Y%m%d}/{uuid.UUID(int=value)}.dcm"


def connect(bucket: str, prefix: str, *, endpoint: str | None = None, region: str | None = None) -> "S3Store":
    """Return the store; credentials come from the environment."""
    from obstore.store import S3Store

    options: dict[str, Any] = {"region": region or "us-east-1", "checksum_algorithm": "SHA256"}
    if endpoint:
        options["endpoint"] = endpoint
    return S3Store(
        bucket,
        prefix=prefix or None,
        client_options={
            "connect_timeout": CONNECT,
            "timeout": REQUEST,
            "allow_http": bool(endpoint and endpoint.startswith("http:")),
        },
        retry_config={"max_retries": RETRIES, "retry_timeout": ALL_TRIES},
        **options,
    )


def tried(act: Callable[[], T]) -> T:
    """Act. Raises FileNotFoundError, FileExistsError, and OSError for all else that the store brings up."""
    from obstore import exceptions

    try:
        return act()
    except FileNotFoundError:
        raise
    except (exceptions.AlreadyExistsError, exceptions.PreconditionError) as error:
        raise FileExistsError(str(error)) from error
    except exceptions.BaseError as error:
        raise OSError(None, f"object store: {str(error).splitlines()[0]}") from error


class BucketFile:
    """An object that is open: read by range, some ahead."""

    def __init__(self, store: "S3Store", path: str, size: int, modified: int) -> None:
        self._store, self._path = store, path
        self.size, self.modified = size, modified
        self._begin, self._ahead = 0, b""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes from an offset; fewer at the end. Raises OSError."""
        size = max(0, min(size, self.size - offset))
        at = offset - self._begin
        if at < 0 or at + size > len(self._ahead):
            length = min(max(size, AHEAD), self.size - offset)
            self._ahead = self._range(offset, length) if length > 0 else b""
            self._begin, at = offset, 0
        return self._ahead[at : at + size]

    def _range(self, offset: int, length: int) -> bytes:
        import obstore

        return bytes(tried(lambda: obstore.get_range(self._store, self._path, start=offset, length=length)))

    def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill these buffers, one after the other, from an offset. Raises OSError."""
        for buffer in buffers:
            content = self.read_at(offset, len(buffer))
            if len(content) != len(buffer):
                raise OSError(f"read {len(content)} bytes of {len(buffer)}")
            buffer[:] = content
            offset += len(buffer)

    def close(self) -> None:
        """Let go of what was read ahead."""
        self._ahead = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: "TracebackType | None"
    ) -> None:
        self.close()


class Bucket:
    """The objects of a bucket below its prefix."""

    def __init__(self, store: "S3Store") -> None:
        self.store = self._store = store

    def open(self, path: str) -> BucketFile:
        """Open an object. Raises FileNotFoundError, OSError."""
        import obstore

        meta = tried(lambda: obstore.head(self._store, path))
        return BucketFile(self._store, path, meta["size"], int(meta["last_modified"].timestamp() * 1000))

    def state(self, path: str) -> ObjectState | None:
        """Return what can be told of an object without reading it; None where there is none."""
        import obstore

        try:
            meta = tried(lambda: obstore.head(self._store, path))
        except FileNotFoundError:
            return None
        return ObjectState(meta["size"], int(meta["last_modified"].timestamp() * 1000))

    def put(self, path: str, content: bytes | bytearray) -> None:
        """Create an object. One that an earlier try has made is taken where it is equal. Raises OSError."""
        import obstore

        try:
            tried(lambda: obstore.put(self._store, path, bytes(content), mode="create", use_multipart=False))
        except FileExistsError:
            if not self._is_equal(path, content):
                raise

    def _is_equal(self, path: str, content: bytes | bytearray) -> bool:
        with self.open(path) as file:
            if file.size != len(content):
                return False
            ours, theirs = hashlib.sha256(content), hashlib.sha256()
            for place in range(0, file.size, CHUNK):
                theirs.update(file.read_at(place, CHUNK))
            return ours.digest() == theirs.digest()

    def copy(self, source: str, target: str) -> None:
        """Copy an object within the bucket. Raises OSError."""
        import obstore

        tried(lambda: obstore.copy(self._store, source, target))

    def remove(self, path: str) -> None:
        """Remove an object; one that is not there is no fault. Raises OSError."""
        import obstore

        try:
            tried(lambda: obstore.delete(self._store, path))
        except FileNotFoundError:
            return

    def listed(self, folder: str = "objects/") -> Iterator[tuple[str, int, int]]:
        """Yield path, size and time (ms since 1970) of every object of a folder. Raises OSError."""
        import obstore

        pages = iter(tried(lambda: obstore.list(self._store, folder)))
        while (page := tried(lambda: next(pages, None))) is not None:
            for meta in page:
                yield meta["path"], meta["size"], int(meta["last_modified"].timestamp() * 1000)
