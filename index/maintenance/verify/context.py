"""What the checks need: the parts of the index, whether to repair, and how fast to read."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from index.database.connection import Database
from index.publication.directory import Directory
from index.publication.study import StudyPublication
from index.storage.object_file import sha1_of
from index.storage.object_store import ObjectStore

# A younger file may belong to a reception, import or publication that is not finished: its row is written
# well within this time after its last rename. In seconds.
GRACE_SECONDS = 60.0
# Rows that are read at a time: a check has no long transaction.
PAGE = 500


class Pace:
    """Limits reading to so many bytes a second; None: no limit."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._began = time.monotonic()
        self._read = 0

    def spend(self, size: int) -> None:
        """Sleep for as long as `size` more bytes take."""
        if self._rate:
            self._read += size
            pause = self._read / self._rate - (time.monotonic() - self._began)
            if pause > 0:
                time.sleep(pause)


@dataclass(frozen=True, slots=True)
class VerifyContext:
    """The parts of an index, and the options of `verify`.

    `index_object` indexes an object that has no row, and returns why it cannot; `served`: a daemon publishes.
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

    def is_mine(self, path: str) -> bool:
        """Return whether an object is in this data directory, not in that of another node."""
        return self.objects.holds(path)

    def is_settled(self, path: Path) -> bool:
        """Return whether a file is so old that its row must have been written."""
        try:
            return time.time() - path.lstat().st_ctime >= self.grace
        except FileNotFoundError:
            return False

    def is_object_settled(self, path: str) -> bool:
        """Return the same of an object."""
        changed = self.objects.changed(path)
        return changed is not None and time.time() - changed / 1000 >= self.grace

    def sha1(self, path: str) -> str:
        """Return the SHA-1 of an object, in hexadecimal, at the pace allowed. Raises OSError."""
        with self.objects.open(path) as file:
            return sha1_of(file, self.pace.spend)
