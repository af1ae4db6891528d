"""Whether a store answers. While it does not, one caller at a time tries; the others are refused at once.

Else each of the instances of a series would wait for a store that hangs, and the modality gives up.
"""

import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import structlog

from index.storage.object_file import LargeFile, ObjectFile

log = structlog.get_logger(__name__)

T = TypeVar("T")

# After a failure, in seconds.
AGAIN_SECONDS = 1.0


class Away(OSError):
    """The store did not answer a moment ago, and is not asked now."""


class Availability:
    """The state of one store. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # Why the last request failed; empty: it did not.
        self.failing = ""
        self._again = 0.0
        self._is_tried = False

    def require(self) -> None:
        """Raise Away where a request would not be made now."""
        if self.failing and (self._is_tried or time.monotonic() < self._again):
            raise Away(None, self.failing)

    def __call__(self, act: Callable[[], T]) -> T:
        """Make a request. Raises Away, and what the request raises."""
        tries = self._begin()
        try:
            result = act()
        except (FileNotFoundError, FileExistsError, PermissionError):  # it tells of one object
            self.answered()
            raise
        except OSError as error:
            self.failed(error)
            raise
        finally:
            if tries:
                self._is_tried = False
        self.answered()
        return result

    def _begin(self) -> bool:
        """Return whether this is the one that tries a store that fails."""
        if not self.failing:
            return False
        with self._lock:
            self.require()
            self._is_tried = bool(self.failing)
            return self._is_tried

    def write(self, act: Callable[[], T]) -> T:
        """Make a request that writes: where the store does not let us, it is of no use. Raises as it does."""

        def write() -> T:
            try:
                return act()
            except PermissionError as error:
                raise OSError(None, str(error.strerror or error)) from error

        return self(write)

    def noting(self, act: Callable[[], T]) -> T:
        """Go on with a request that has begun. Raises what it raises."""
        try:
            return act()
        except (FileNotFoundError, FileExistsError, PermissionError):
            raise
        except OSError as error:
            self.failed(error)
            raise

    def answered(self) -> None:
        """A request was answered."""
        if self.failing:
            log.info("store_is_back", was=self.failing)
            self.failing = ""

    def failed(self, error: OSError) -> None:
        """A request was not answered, or with a fault of the store."""
        reason = str(error.strerror or error)
        if not self.failing:
            log.error("store_is_away", reason=reason, again_seconds=AGAIN_SECONDS)
        self._again = time.monotonic() + AGAIN_SECONDS
        self.failing = reason


class GuardedWriting:
    """A large object that tells of it where its store fails: see LargeFile."""

    def __init__(self, ask: Availability, file: LargeFile) -> None:
        self._ask, self._file = ask, file
        self.sha1 = file.sha1

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """See LargeFile."""
        self._ask.noting(lambda: self._file.write(content))

    def read(self, offset: int, size: int) -> bytes:
        """See LargeFile."""
        return self._ask.noting(lambda: self._file.read(offset, size))

    def close(self, *, sync: bool) -> None:
        """See LargeFile."""
        self._ask.noting(lambda: self._file.close(sync=sync))
        self._ask.answered()

    def abandon(self) -> None:
        """See LargeFile."""
        self._file.abandon()


class GuardedReading:
    """An object that is open, and tells of it where its store fails: see ObjectFile."""

    def __init__(self, ask: Availability, file: ObjectFile) -> None:
        self._ask, self._file = ask, file
        self.size, self.modified = file.size, file.modified

    def read_at(self, offset: int, size: int) -> bytes:
        """See ObjectFile."""
        return self._ask.noting(lambda: self._file.read_at(offset, size))

    def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
        """See ObjectFile."""
        self._ask.noting(lambda: self._file.read_into(buffers, offset))

    def close(self) -> None:
        """See ObjectFile."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
