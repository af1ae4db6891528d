"""Bytes to disk so that they stay: the one place that syncs, replaces and claims.

Whatever the umask is, only the daemon's user writes what is made here, and only its group reads it.
"""

import contextlib
import ctypes
import errno
import os
import platform
import stat
from io import BufferedReader, BufferedWriter
from pathlib import Path

FILE_MODE = 0o640
FOLDER_MODE = 0o750

# From this version on Linux tells by syncfs(2) that something could not be written; before, it says nothing.
_SYNCFS_TELLS = (5, 8)

# What is in a data directory.
NAMES = (
    "index.sqlite",
    "index.sqlite-wal",
    "index.sqlite-shm",
    "journal",
    "prepared",
    "objects",
    "incoming",
    "conflicts",
    "fhir",
    "fhir.position",
    "use.lock",
)


def can_sync_filesystem() -> bool:
    """Tell whether `sync_filesystem` is to be had, and tells of every failure."""
    version = platform.release().split("-")[0].split(".")
    return (
        platform.system() == "Linux"
        and all(part.isdigit() for part in version[:2])
        and tuple(map(int, version[:2])) >= _SYNCFS_TELLS
        and hasattr(ctypes.CDLL(None), "syncfs")
    )


def sync_filesystem(descriptor: int) -> None:
    """Make everything durable on the file system of an open file, content and names. Raises OSError.

    It tells of failures since the file was opened, each once.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(descriptor):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def sync_folder(folder: Path | str) -> None:
    """Make the entries of `folder` durable: names created, renamed and removed in it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_content(path: str) -> None:
    """Make the content of a file durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: Path, *, sync: bool = True) -> None:
    """Create `folder` and its missing parents, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent, sync=sync)
    folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
    if sync:
        sync_folder(folder.parent)


def keep_from_others(data: Path) -> None:
    """Let only owner and group have what is in a data directory, where it is there and ours."""
    for name in NAMES:
        path = data / name
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & stat.S_IRWXO:
                path.chmod(mode & ~stat.S_IRWXO)


def open_new(path: Path | str) -> BufferedWriter:
    """Open a file to be written that is not there yet. Raises OSError."""
    return open(path, "xb", opener=lambda name, flags: os.open(name, flags, FILE_MODE))


def open_file(path: Path | str) -> BufferedReader:
    """Open a file to be read. Raises OSError.

    What is no file is not opened: a FIFO would hold its reader for ever.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def replace(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, whole, always.

    One process at a time may replace a path. The temporary name begins with a dot and does not end as `path`
    does; it is always the same, so that what a crash leaves goes when `path` is written again.
    """
    temporary = temporary_of(path)
    try:
        with _open_anew(temporary) as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        sync_folder(path.parent)


def temporary_of(path: Path) -> Path:
    """Return where `replace` writes what is to stand at a path; a crash may leave it there."""
    return path.with_name(f".{path.name}.tmp")


def _open_anew(path: Path) -> BufferedWriter:
    """Open a file to be written, in place of what a crash has left there. Raises OSError."""
    try:
        return open_new(path)
    except FileExistsError:
        path.unlink()
        return open_new(path)
