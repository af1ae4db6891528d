"""One daemon for each data directory: a lock that ends with its process.

What is locked is a folder, which nobody moves away while it is in use, and a file in it: a network share may
have no locks of folders. The file tells which process has them.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

import structlog

from index.errors import Locked
from index.storage.durable import FILE_MODE, open_file

log = structlog.get_logger(__name__)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Folders of network shares, and files that may only be read.
_EXPECTED = frozenset((errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP, errno.EROFS, errno.EACCES))


class _Lock:
    """A folder and a file, locked together; the kernel lets go of both when the process ends."""

    def __init__(self, folder: Path, file: Path, how: int) -> None:
        """Take the lock. Raises BlockingIOError where another process has it, OSError where there is none."""
        self._descriptors: list[int] = []
        both = (folder, _FOLDER), (file, _FILE)
        failed = [error for path, flags in both if (error := self._take(path, flags, how))]
        if not self._descriptors:
            raise failed[0]
        for error in failed:
            if error.errno not in _EXPECTED:
                log.warning("passed_over", path=str(error.filename), reason=error.strerror)

    def _take(self, path: Path, flags: int, how: int) -> OSError | None:
        """Lock one of them; return why it cannot be locked at all."""
        try:
            descriptor = _opened(path, flags)
        except OSError as error:
            return error
        try:
            fcntl.flock(descriptor, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            self.release()
            raise
        except OSError as error:
            os.close(descriptor)
            return error
        self._descriptors.append(descriptor)
        return None

    def write(self, content: bytes) -> None:
        """Write into the file, where that can be done: it only tells something."""
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptors[-1], 0)
            os.pwrite(self._descriptors[-1], content, 0)

    def release(self) -> None:
        """Let another process have it."""
        while self._descriptors:
            os.close(self._descriptors.pop())


def _opened(path: Path, flags: int) -> int:
    """Open for locking; to share a lock, reading is enough. Raises OSError."""
    try:
        return os.open(path, flags, FILE_MODE)
    except OSError:
        if flags & os.O_CREAT and path.is_file():
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise


class DirectoryLock:
    """Held by the one daemon of a data directory, or by a command in its place."""

    def __init__(self, data: Path) -> None:
        """Take the lock. Raises Locked, naming the process that has it, and OSError."""
        try:
            self._lock = _Lock(data, data / "lock", fcntl.LOCK_EX)
        except BlockingIOError as error:
            raise Locked(f"{data} is in use by a running imagingstudyd (process {_holder(data)})") from error
        self._lock.write(f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another process have it."""
        self._lock.release()


def _holder(data: Path) -> str:
    try:
        with open_file(data / "lock") as file:
            return file.read(32).decode("ascii", "replace").strip() or "unknown"
    except OSError:
        return "unknown"


class UseLock:
    """Held by every process that has the index open, together; and alone by the one that exchanges it."""

    def __init__(self, data: Path, *, alone: bool = False) -> None:
        """Take the lock. Raises Locked, and OSError."""
        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        try:
            self._lock = _Lock(data / "objects", data / "use.lock", how)
        except BlockingIOError as error:
            what = "is in use by another command" if alone else "is being reindexed"
            raise Locked(f"{data} {what}") from error

    def release(self) -> None:
        """Let go."""
        self._lock.release()


def is_served(data: Path) -> bool:
    """Tell whether a daemon holds the lock of a data directory. Whoever may not read it sees none."""
    return any(_is_locked(path, flags) for path, flags in ((data, _FOLDER), (data / "lock", os.O_RDONLY)))


def _is_locked(path: Path, flags: int) -> bool:
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
