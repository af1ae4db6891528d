"""Bytes to disk so that they stay: the one place that syncs, replaces and claims."""

import ctypes
import os
import platform
from pathlib import Path

# From this version on Linux tells by syncfs(2) that something could not be written; before, it says nothing.
_SYNCFS_TELLS = (5, 8)


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


def make_folder(folder: Path, *, sync: bool = True) -> None:
    """Create `folder` and its missing parents, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent, sync=sync)
    folder.mkdir(exist_ok=True)
    if sync:
        sync_folder(folder.parent)


def replace(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, whole, always.

    One process at a time may replace a path. The temporary name begins with a dot and does not end as `path`
    does; it is always the same, so that what a crash leaves goes when `path` is written again.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_folder(path.parent)
