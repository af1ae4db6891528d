"""Objects in a bucket of the S3 interface, by obstore: written once, read by range, listed by folder."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, TypeVar

from index.storage.object_file import CHUNK, LargeFile, ObjectState
from index.storage.remote.upload import Upload

if TYPE_CHECKING:
    from types import TracebackType

    from obstore.store import S3Store

T = TypeVar("T")

# One request, and after how long none is tried again: together shorter than a modality waits (30 s).
CONNECT = timedelta(seconds=5)
REQUEST = timedelta(seconds=10)
ALL_TRIES = timedelta(seconds=10)
RETRIES = 2
# What is read ahead at one time, in bytes.
AHEAD = 1024 * 1024
# What one request reads at most: a slow network needs its time for it.
MOST = 4 * 1024 * 1024
# One part of a multipart upload: S3 takes no more than 10,000, of 5 MiB at least.
PART = 5 * 1024 * 1024


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
    except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as error:
        raise PermissionError(None, f"object store: {str(error).splitlines()[0]}") from error
    except exceptions.BaseError as error:
        raise OSError(None, f"object store: {str(error).splitlines()[0]}") from error


def written(act: Callable[[], T]) -> T:
    """Write. Raises as `tried` does; a bucket that is not there is no file that is missing."""
    try:
        return tried(act)
    except FileNotFoundError as error:
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
        if size > MOST:
            places = range(offset, offset + size, MOST)
            return b"".join(self.read_at(place, min(MOST, offset + size - place)) for place in places)
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
    """The objects of a bucket below a prefix: see Remote."""

    at_once = PART

    def __init__(self, store: "S3Store") -> None:
        self._store = store

    def open(self, path: str) -> BucketFile:
        """See Remote."""
        meta = self._head(path)
        return BucketFile(self._store, path, meta.size, meta.changed)

    def state(self, path: str) -> ObjectState | None:
        """See Remote."""
        try:
            return self._head(path)
        except FileNotFoundError:
            return None

    def _head(self, path: str) -> ObjectState:
        import obstore

        meta = tried(lambda: obstore.head(self._store, path))
        return ObjectState(meta["size"], int(meta["last_modified"].timestamp() * 1000))

    def put(self, path: str, content: bytes | bytearray) -> None:
        """See Remote."""
        import obstore

        try:
            written(
                lambda: obstore.put(self._store, path, bytes(content), mode="create", use_multipart=False)
            )
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

    def begin(self, path: str) -> LargeFile:
        """See Remote."""
        return Upload(self, path)

    def put_parts(self, path: str, parts: Iterator[bytes]) -> None:
        """Make an object of parts while they come; where they end with an exception, there is none.

        Raises OSError, and that exception.
        """
        import obstore

        written(
            lambda: obstore.put(
                self._store, path, parts, use_multipart=True, chunk_size=PART, max_concurrency=2
            )
        )

    def copy(self, source: str, target: str) -> None:
        """See Remote."""
        import obstore

        tried(lambda: obstore.copy(self._store, source, target))

    def remove(self, path: str) -> None:
        """See Remote."""
        self.remove_all([path])

    def remove_all(self, paths: Sequence[str]) -> None:
        """See Remote."""
        import obstore

        with contextlib.suppress(FileNotFoundError):
            tried(lambda: obstore.delete(self._store, list(paths)))

    def listed(self, folder: str) -> Iterator[tuple[str, int, int]]:
        """See Remote."""
        import obstore

        pages = iter(tried(lambda: obstore.list(self._store, folder)))
        while (page := tried(lambda: next(pages, None))) is not None:
            for meta in page:
                yield meta["path"], meta["size"], int(meta["last_modified"].timestamp() * 1000)

    def folders(self, folder: str) -> list[str]:
        """See Remote."""
        import obstore

        return sorted(tried(lambda: obstore.list_with_delimiter(self._store, folder))["common_prefixes"])

    def tidy(self, seconds: float) -> int:  # noqa: ARG002
        """Nothing is to be done: a rule of the bucket ends uploads that were left."""
        return 0
