"""What a store that nodes share can do, whichever it is."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from index.storage.object_file import LargeFile, ObjectFile, ObjectState

# The object that tells whose the store is.
IDENTITY = "identity"


class Remote(Protocol):
    """A store that nodes share. An object in it is whole, and durable when the call returns that made it."""

    # What is uploaded as one: an object that is not larger is made by one request, which tells whether it
    # was there before.
    at_once: int

    def open(self, path: str) -> ObjectFile:
        """Open an object. Raises FileNotFoundError, OSError."""

    def state(self, path: str) -> ObjectState | None:
        """Return what can be told without reading it; None where there is none. Raises OSError."""

    def put(self, path: str, content: bytes | bytearray) -> None:
        """Make an object. One that an earlier try has made is taken where it is equal.

        Raises FileExistsError where it is another one, OSError.
        """

    def begin(self, path: str) -> LargeFile:
        """Begin a large object. Raises OSError."""

    def copy(self, source: str, target: str) -> None:
        """Copy an object. Raises FileNotFoundError, OSError."""

    def remove(self, path: str) -> None:
        """Remove an object; one that is not there is no fault. Raises OSError."""

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove several, as `remove` does. Raises OSError."""

    def listed(self, folder: str) -> Iterator[tuple[str, int, int]]:
        """Yield path, size and time (ms since 1970) of every object below a folder. Raises OSError."""

    def folders(self, folder: str) -> list[str]:
        """Return the paths of the folders in a folder. Raises OSError."""

    def tidy(self, seconds: float) -> int:
        """Remove what uploads have left that began so long ago; return how much that was. Raises OSError."""
