"""The objects of this data directory that wait to be uploaded."""

import threading
from collections.abc import Iterable


class Pending:
    """Paths of objects that are whole, in the order of their arrival. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: dict[str, None] = {}

    def add(self, paths: Iterable[str]) -> None:
        """Add paths."""
        with self._lock:
            self._paths.update(dict.fromkeys(paths))

    def take(self, count: int) -> list[str]:
        """Return the first of them; `done` removes them."""
        with self._lock:
            return [path for path, _ in zip(self._paths, range(count), strict=False)]

    def done(self, path: str) -> None:
        """An object is uploaded."""
        with self._lock:
            self._paths.pop(path, None)

    def __len__(self) -> int:
        return len(self._paths)
