"""Room on the disk for objects: looked at ten times a second, counted down in between."""

import os
import time
from pathlib import Path

from index.errors import NotKept
from index.storage.reserve import Reserve

# How long a look at the free space holds, in seconds; what is filed meanwhile is taken off.
LOOK_SECONDS = 0.1
# What the resources of a few studies take, and SQLite, whatever the watermark is.
LEAST_BYTES = 256 * 1024
# The same for a watermark's share of inodes.
LEAST_INODES = 100


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
            _, self._shortage = self.look()
        except OSError as error:
            raise NotKept(f"{self._folder}: {error.strerror}") from error
        self._look_again = now + LOOK_SECONDS
        if self._shortage:
            raise NotKept(self._shortage)

    def take(self, size: int) -> None:
        """Count a new file of so many bytes."""
        self._bytes_left -= size
        self._inodes_left -= 1

    def look(self) -> tuple[int, str]:
        """Return how many bytes are free, and why nothing more is taken, or nothing. Raises OSError."""
        statistics = os.statvfs(self._folder)
        free = statistics.f_bavail * statistics.f_frsize
        # Some file systems count no inodes.
        inodes, least = (
            (statistics.f_favail, self._least_inodes(statistics)) if statistics.f_files else (1, 0)
        )
        self._bytes_left, self._inodes_left = free - self.watermark, max(0, inodes) - least
        if self._bytes_left < 0:
            return free, f"free space is {free} bytes, below storage.watermark = {self.watermark}"
        if free < LEAST_BYTES or not inodes:
            return free, f"the disk is full: free are {free} bytes and {inodes} inodes"
        if self._inodes_left < 0:
            return (
                free,
                f"{inodes} inodes are free, fewer than the {least} that storage.watermark keeps of them",
            )
        if self.keeps_reserve and not self.reserve.hold():
            return (
                free,
                f"free space is {free} bytes: too little for the reserve, by which objects are deleted",
            )
        return free, ""

    def _least_inodes(self, statistics: os.statvfs_result) -> int:
        size = statistics.f_blocks * statistics.f_frsize
        if not (self.watermark and size):
            return 0
        return max(LEAST_INODES, statistics.f_files * min(self.watermark, size) // size)
