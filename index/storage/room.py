"""Room on the disk for objects: looked at ten times a second, counted down in between."""

import os
import time
from pathlib import Path
from typing import NamedTuple

from index.errors import NotKept
from index.storage.reserve import Reserve

# How long a look at the free space holds, in seconds; what is filed meanwhile is taken off.
LOOK_SECONDS = 0.1
# What the resources of a few studies take, and SQLite, whatever the watermark is.
LEAST_BYTES = 256 * 1024
# The same for a watermark's share of inodes.
LEAST_INODES = 100


class Free(NamedTuple):
    """What is free: bytes, why nothing more is taken, and inodes, None where the file system has no number.

    `above`: bytes and inodes down to the watermark.
    """

    bytes: int
    shortage: str
    inodes: int | None
    above: tuple[int, int]


def free_space(folder: Path, watermark: int) -> Free:
    """Look at the disk of a folder. Raises OSError."""
    statistics = os.statvfs(folder)
    free = statistics.f_bavail * statistics.f_frsize
    counts = bool(statistics.f_files)
    inodes, least = (max(0, statistics.f_favail), _least_inodes(statistics, watermark)) if counts else (1, 0)
    above = (free - watermark, inodes - least)
    shortage = ""
    if above[0] < 0:
        shortage = f"free space is {free} bytes, below storage.watermark = {watermark}"
    elif free < LEAST_BYTES or not inodes:
        shortage = f"the disk is full: free are {free} bytes and {inodes} inodes"
    elif above[1] < 0:
        shortage = f"{inodes} inodes are free, fewer than the {least} that storage.watermark keeps of them"
    return Free(free, shortage, inodes if counts else None, above)


def _least_inodes(statistics: os.statvfs_result, watermark: int) -> int:
    size = statistics.f_blocks * statistics.f_frsize
    if not (watermark and size):
        return 0
    return max(LEAST_INODES, statistics.f_files * min(watermark, size) // size)


class Room:
    """The free space of a disk, down to a `watermark` in bytes, and to the same share of its inodes.

    With `keeps_reserve`, as a daemon has it, nothing is taken while the reserve is not there.
    """

    def __init__(self, folder: Path, watermark: int, reserve: Reserve) -> None:
        self._folder = folder
        self.watermark = watermark
        self.reserve = reserve
        self.keeps_reserve = False
        self._bytes_left = self._inodes_left = -1
        self._shortage = ""
        self._look_again = 0.0

    def require(self) -> None:
        """Raise NotKept where nothing more is taken."""
        now = time.monotonic()
        if now < self._look_again and self._bytes_left >= 0 and self._inodes_left >= 0 and not self._shortage:
            return
        try:
            self._shortage = self.look().shortage
        except OSError as error:
            raise NotKept(f"{self._folder}: {error.strerror}") from error
        self._look_again = now + LOOK_SECONDS
        if self._shortage:
            raise NotKept(self._shortage)

    def take(self, size: int) -> None:
        """Count a new file of so many bytes."""
        self._bytes_left -= size
        self._inodes_left -= 1

    def look(self) -> Free:
        """Return what is free, and why nothing more is taken. Raises OSError."""
        found = free_space(self._folder, self.watermark)
        self._bytes_left, self._inodes_left = found.above
        if not found.shortage and self.keeps_reserve and not self.reserve.hold():
            why = "too little for the reserve, by which objects are deleted"
            return found._replace(shortage=f"free space is {found.bytes} bytes: {why}")
        return found
