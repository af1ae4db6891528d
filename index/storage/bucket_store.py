"""The object store of a bucket: what comes in goes there at once."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from index.storage.bucket import PART, Bucket, connect, new_key, tried
from index.storage.object_file import ObjectFile, ObjectState
from index.storage.object_store import ObjectStore


class Upload:
    """A large object that is uploaded in parts while it arrives; of DirectFile's interface."""

    def __init__(self, bucket: Bucket, path: str) -> None:
        """Begin. Raises OSError."""
        import obstore

        self._bucket, self._path = bucket, path
        self._writer: Any = tried(
            lambda: obstore.open_writer(bucket.store, path, buffer_size=PART, max_concurrency=2)
        )
        self._file: ObjectFile | None = None
        self.sha1 = hashlib.sha1(usedforsecurity=False)

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """Append. Raises OSError."""
        self.sha1.update(content)
        tried(lambda: self._writer.write(bytes(content)))

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes from an offset, fewer at the end; nothing can be appended any more. Raises OSError."""
        if self._file is None:
            self.close(sync=True)
            self._file = self._bucket.open(self._path)
        return self._file.read_at(offset, size)

    def close(self, *, sync: bool) -> None:  # noqa: ARG002  a bucket keeps what it has taken
        """Complete the upload. Raises OSError."""
        writer, self._writer = self._writer, None
        if writer is not None:
            tried(writer.close)

    def abandon(self) -> None:
        """Let go; parts that were uploaded go by the bucket's rule for incomplete uploads."""
        self._writer = None


class BucketStore(ObjectStore):
    """Objects and conflicts in a bucket. All nodes see them."""

    uploads = True

    def __init__(
        self, data: Path, url: str, endpoint: str | None, region: str | None, **options: Any
    ) -> None:
        """`url`: s3://bucket/prefix. Raises OSError."""
        super().__init__(data, **options)
        self.sync = False
        bucket, _, prefix = url.removeprefix("s3://").partition("/")
        self._bucket = Bucket(connect(bucket, prefix.strip("/"), endpoint=endpoint, region=region))

    def open(self, path: str) -> ObjectFile:
        """See ObjectStore."""
        return self._bucket.open(path)

    def state(self, path: str) -> ObjectState | None:
        """See ObjectStore."""
        return self._bucket.state(path)

    def changed(self, path: str) -> int | None:
        """See ObjectStore."""
        found = self.state(path)
        return None if found is None else found.changed

    def holds(self, path: str) -> bool:  # noqa: ARG002
        """Every node sees every object."""
        return True

    def new_file(self, path: str) -> Upload:
        """See ObjectStore."""
        return Upload(self._bucket, path)

    def incoming_path(self) -> str:
        """Return the key of a new object: it arrives where it stays."""
        return new_key()

    def reserve(self, size: int, standing: str = "") -> str:  # noqa: ARG002
        """See ObjectStore."""
        return standing or new_key()

    def write_incoming(self, content: bytes | bytearray, path: str = "") -> str:
        """See ObjectStore."""
        key = path or new_key()
        self._bucket.put(key, content)
        return key

    def write(self, path: str, content: bytes | bytearray) -> None:
        """See ObjectStore."""
        self._bucket.put(path, content)

    def put(self, path: str, content: bytes) -> None:
        """See ObjectStore."""
        self.remove(path)
        self._bucket.put(path, content)

    def put_back(self, source: str, path: str) -> None:
        """See ObjectStore."""
        self._bucket.copy(source, path)

    def move(self, source: str, target: str) -> None:
        """See ObjectStore."""
        try:
            self._bucket.copy(source, target)
        except FileNotFoundError:
            if self.state(target) is None:
                raise
        self.remove(source)

    def link_aside(self, path: str, target: str) -> bool:
        """See ObjectStore."""
        try:
            self._bucket.copy(path, target)
        except FileNotFoundError:
            return False
        return True

    def remove(self, path: str) -> None:
        """See ObjectStore."""
        self._bucket.remove(path)

    def kept_aside(self) -> list[str]:
        """See ObjectStore."""
        return sorted(path for path, _, _ in self._bucket.listed("conflicts/"))

    def filed_since(
        self,
        last: str | None,  # noqa: ARG002
        received: int = 0,  # noqa: ARG002
        pass_over: Callable[[str], object] | None = None,  # noqa: ARG002
    ) -> Iterator[str]:
        """Yield the paths of all objects, in the order of their time."""
        for path, _, _ in self._bucket.listed():
            yield path

    def sync_folders(self, paths: Iterable[str]) -> None:
        """Nothing is to be done."""

    def sync_group(self, paths: Sequence[str]) -> None:
        """Nothing is to be done."""

    def sync_objects(self, paths: Sequence[str]) -> None:
        """Nothing is to be done."""

    def watch(self) -> None:
        """Nothing is to be done."""
