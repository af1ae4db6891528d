"""One daemon for each data directory: a lock that ends with its process."""

import fcntl
import os
from pathlib import Path
from typing import IO

from index.errors import Locked


class DirectoryLock:
    """Holds the file `lock` of a data directory; the kernel lets go of it when the process ends."""

    def __init__(self, data: Path) -> None:
        """Take the lock. Raises Locked, naming the process that has it."""
        self._path = data / "lock"
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(self._descriptor, 32).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            raise Locked(
                f"{data} is in use by a running imagingstudyd (process {holder or 'unknown'})"
            ) from error
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Let another process have it."""
        os.close(self._descriptor)


class UseLock:
    """Held by every process that has the index open, together; and alone by the one that exchanges it."""

    def __init__(self, data: Path, *, alone: bool = False) -> None:
        """Take the lock. Raises Locked."""
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        self._file: IO[bytes] = (data / "use.lock").open("ab")
        try:
            fcntl.flock(self._file, how | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            what = "is in use by another command" if alone else "is being reindexed"
            raise Locked(f"{data} {what}") from error

    def release(self) -> None:
        """Let go."""
        self._file.close()


def is_served(data: Path) -> bool:
    """Tell whether a daemon holds the lock of a data directory. Whoever may not read the lock sees none."""
    try:
        descriptor = os.open(data / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
