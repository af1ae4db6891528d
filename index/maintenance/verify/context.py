"""What the checks work with: the index's parts, whether to mend, and how fast to read."""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from index.database.connection import Database
from index.publication.directory import Directory
from index.publication.study import StudyPublication
from index.storage.durable import open_file
from index.storage.object_store import ObjectStore

# A file younger than this may be on its way through reception, import or publication: its row comes well
# within this time after its last rename.
GRACE_SECONDS = 60.0
# Rows that are read at one time: a check holds no long transaction.
PAGE = 500


class Pace:
    """Keeps reading below so many bytes a second; None: as fast as it goes."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._began = time.monotonic()
        self._read = 0

    def spend(self, size: int) -> None:
        """Sleep as long as `size` more bytes take."""
        if self._rate:
            self._read += size
            pause = self._read / self._rate - (time.monotonic() - self._began)
            if pause > 0:
                time.sleep(pause)


@dataclass(frozen=True, slots=True)
class VerifyContext:
    """The parts of an index, and how to go about it.

    `adopt` indexes an object that has no row, and returns why it cannot; `served`: a daemon publishes.
    """

    database: Database
    objects: ObjectStore
    directory: Directory
    publication: StudyPublication
    versions: tuple[str, ...]
    index_object: Callable[[str], str | None]
    repair: bool
    pace: Pace
    grace: float
    served: bool

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.objects.data

    def is_settled(self, path: Path) -> bool:
        """Whether a file has stood in its place for so long that nobody is about to write a row for it."""
        try:
            return time.time() - path.lstat().st_ctime >= self.grace
        except FileNotFoundError:
            return False

    def sha1(self, path: Path) -> str:
        """Return the SHA-1 of a file, in hexadecimal, at the pace allowed. Raises OSError."""
        with open_file(path) as file:
            self.pace.spend(os.fstat(file.fileno()).st_size)
            return hashlib.file_digest(file, "sha1").hexdigest()
