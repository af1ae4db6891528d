"""Room on the disk that is kept for what makes room: files that are given up where nothing else is left.

A deletion writes before it frees anything: rows go by way of the database's log. Without room for that, a
disk that is full would stay so. The files also hold inodes, for those that SQLite makes beside an index.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import structlog

from index.storage.durable import FILE_MODE, make_folder

log = structlog.get_logger(__name__)

# What it takes to open an index and delete a hundred instances, several times over, in bytes; a small disk
# gives one SHARE of it.
SIZE = 4 * 1024 * 1024
SHARE = 16
FILES = 8


def reserve_of(index: Path | None, data: Path) -> Path:
    """Return where the reserve stands: on the disk of an SQLite index, else on that of the objects."""
    if index is None or index.parent == data:
        return data / "reserve"
    return index.with_name(f"{index.name}.reserve")


class Reserve:
    """A folder on the disk of the index, in its data directory. `hold` makes it, `release` uses it up."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def is_held(self) -> bool:
        """Tell whether it is there: the last of its files is made last, and goes first."""
        return self._last.exists()

    def hold(self) -> bool:
        """Make it where there is room for twice of it; return whether it is there."""
        if self.is_held():
            return True
        try:
            statistics = os.statvfs(self._folder.parent)
            size = min(SIZE, statistics.f_blocks * statistics.f_frsize // SHARE)
            if statistics.f_bavail * statistics.f_frsize < 2 * size or _few_inodes(statistics):
                return False
            self._make(FILES, size // FILES)
        except OSError as error:
            log.warning("no_reserve", path=str(self._folder), reason=error.strerror)
            self.release()
            return False
        return True

    @contextlib.contextmanager
    def used(self) -> Iterator[bool]:
        """Give its room to what is done within, where the disk is full; tell whether that is so."""
        if not (self.is_needed() and self.release()):
            yield False
            return
        try:
            yield True
        finally:
            self.put_back()

    def put_back(self) -> None:
        """Make as much of it as there is room for, after `release`: others are not to take what was left."""
        if self.hold():
            return
        with contextlib.suppress(OSError):
            statistics = os.statvfs(self._folder.parent)
            size = min(SIZE, statistics.f_bavail * statistics.f_frsize) * 3 // 4
            # Without the last of them it is not held.
            self._make(FILES - 1, size // FILES)

    def _make(self, files: int, size: int) -> None:
        make_folder(self._folder, sync=False)
        for name in self._names()[:files]:
            _allocate(name, size)

    def is_needed(self) -> bool:
        """Tell whether what it is there for has no other room. Raises OSError."""
        statistics = os.statvfs(self._folder.parent)
        return statistics.f_bavail * statistics.f_frsize < SIZE or _few_inodes(statistics)

    def release(self) -> bool:
        """Give its room away; return whether there was any."""
        released = False
        for name in reversed(self._names()):
            with contextlib.suppress(OSError):
                name.unlink()
                released = True
        if released:
            log.warning("reserve_released", path=str(self._folder), why="the disk is full")
        return released

    @property
    def _last(self) -> Path:
        return self._folder / str(FILES - 1)

    def _names(self) -> list[Path]:
        return [self._folder / str(number) for number in range(FILES)]


def _few_inodes(statistics: os.statvfs_result) -> bool:
    # Some file systems count none.
    return bool(statistics.f_files) and statistics.f_favail < 2 * FILES


def _allocate(path: Path, size: int) -> None:
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE
    )
    try:
        os.posix_fallocate(descriptor, 0, max(1, size))
    finally:
        os.close(descriptor)
