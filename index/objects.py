"""Objects on disk: bytes come into `incoming/`, are synced, and are renamed into `objects/`.

Names are ours, never from the wire. A folder of `objects/` belongs to the process that made it (mkdir
claims it), so that an import can file beside a running daemon; it takes FOLDER_SIZE objects. One folder
for many objects costs one directory sync for a whole group of them, where a hashed tree costs one each.
"""

import contextlib
import hashlib
import itertools
import os
import re
import shutil
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from index.durable import make_folder, sync_folder
from index.errors import NotKept, TooLarge
from index.part10 import encode_meta

FOLDER_SIZE = 4096
_FOLDER = re.compile(r"[0-9a-f]{6,}")
# Enough for the header of nearly every instance, and a whole small instance: then one write does.
HEAD_SIZE = 64 * 1024
# The disk is told to begin with every so many bytes of an object that is still arriving.
WRITE_BACK = 128 * 1024
# How long a look at the free space holds, in seconds; what is filed meanwhile is taken off.
LOOK_SECONDS = 0.1


class ObjectStore:
    """The folders `objects/`, `incoming/` and `conflicts/` of a data directory."""

    def __init__(
        self, data: Path, *, sync: bool = True, watermark: int = 0, size_limit: int = 1 << 62
    ) -> None:
        self.data = data
        self.sync = sync
        self.watermark = watermark
        self.size_limit = size_limit
        self._objects = data / "objects"
        self._incoming = data / "incoming"
        self._conflicts = data / "conflicts"
        self._process = f"{os.getpid()}-{_started(os.getpid())}"
        self._names = itertools.count()
        self._lock = threading.Lock()
        # Paths of the hot path are texts: pathlib costs 50 us for each instance.
        self._below = f"{data}/"
        self._folder = ""
        self._filled = FOLDER_SIZE
        self._free, self._look_again = 0, 0.0
        for folder in (self._objects, self._incoming, self._conflicts):
            make_folder(folder, sync=sync)

    def create(self, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str) -> "IncomingObject":
        """Begin an object. Raises NotKept below the watermark or where no file can be made."""
        try:
            free = self._free_about()
            if free < self.watermark:
                raise NotKept(f"free space is {free} bytes, below storage.watermark = {self.watermark}")
            path = f"{self._incoming}/{self._process}-{next(self._names)}"
            return IncomingObject(self, path, encode_meta(sop_class_uid, sop_instance_uid, transfer_syntax))
        except OSError as error:
            raise NotKept(f"{self._incoming}: {error.strerror}") from error

    def free(self) -> int:
        """Return the free space of the disk, in bytes. Raises OSError."""
        statistics = os.statvfs(self._incoming)
        return statistics.f_bavail * statistics.f_frsize

    def _free_about(self) -> int:
        """Return the free space at the last look less what was filed since; below the watermark, look."""
        now = time.monotonic()
        if now >= self._look_again or self._free < self.watermark:
            self._free, self._look_again = self.free(), now + LOOK_SECONDS
        return self._free

    def place(self, incoming: str, size: int) -> str:
        """Rename a synced file into the current folder; return its path below the data directory.

        The name is durable once `sync_folders` has been called with that path.
        """
        with self._lock:
            if self._filled == FOLDER_SIZE:
                self._folder, self._filled = f"objects/{self._claim_folder().name}", 0
            path = f"{self._folder}/{self._filled:03x}.dcm"
            self._filled += 1
            self._free -= size
        os.rename(incoming, self._below + path)  # noqa: PTH104
        return path

    def sync_folders(self, paths: Iterable[str]) -> None:
        """Make the names of these objects durable: one sync for each folder that they are in."""
        if self.sync:
            for folder in {path.rpartition("/")[0] for path in paths}:
                try:
                    sync_folder(self._below + folder)
                except OSError:
                    self._leave(folder)
                    raise

    def _leave(self, folder: str) -> None:
        """Put no more objects there: a later sync may succeed without what this one has lost."""
        with self._lock:
            if self._folder == folder:
                self._filled = FOLDER_SIZE

    def remove(self, path: str) -> None:
        """Remove an object that has no row; whether the removal is durable does not matter."""
        with contextlib.suppress(FileNotFoundError):
            (self.data / path).unlink()

    def set_aside(self, path: str, target: str | None) -> None:
        """Move an object that lost its place to `target` in `conflicts/`, or remove it where that is None."""
        if target is None:
            self.remove(path)
            return
        with contextlib.suppress(FileNotFoundError):
            (self.data / path).rename(self.data / target)
        if self.sync:
            sync_folder(self._conflicts)

    def put_back(self, source: str, path: str) -> None:
        """Copy one of our files to the place of an object, durably and whole. Raises OSError."""
        temporary = self._incoming / f"{self._process}-{next(self._names)}"
        try:
            shutil.copyfile(self.data / source, temporary)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            make_folder((self.data / path).parent, sync=self.sync)
            temporary.replace(self.data / path)
        finally:
            temporary.unlink(missing_ok=True)
        self.sync_folders([path])

    def left_behind(self) -> list[Path]:
        """Return what processes that have ended left in `incoming/`."""
        return [path for path in self._incoming.iterdir() if not self._is_arriving(path.name)]

    def settle(self) -> None:
        """Make the folders' own names durable: a process may have ended between making and syncing one."""
        if self.sync:
            for folder in (self._objects, self.data, self.data.resolve().parent):
                with contextlib.suppress(PermissionError):  # the last one may be somebody else's
                    sync_folder(folder)

    def sweep(self) -> int:
        """Remove what an earlier process left in `incoming/`; return how many files that were."""
        left = self.left_behind()
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)

    def _is_arriving(self, name: str) -> bool:
        """Whether another process that runs, such as an import, is still receiving this file."""
        process, _, rest = name.partition("-")
        if not process.isdigit() or name.startswith(f"{self._process}-"):
            return False
        started = _started(int(process))
        return bool(started) and rest.partition("-")[0] == started

    def filed_since(self, last: str | None) -> Iterator[str]:
        """Yield the paths of all objects in the folder of `last`, the one before it and all later ones."""
        first = max(0, int(last.split("/")[1], 16) - 1) if last else 0
        for number, folder in sorted(self._folders()):
            if number >= first:
                names = sorted(entry.name for entry in os.scandir(folder) if entry.name.endswith(".dcm"))
                yield from (f"objects/{folder.name}/{name}" for name in names)

    def _folders(self) -> Iterator[tuple[int, Path]]:
        """Yield the folders of `objects/` with their numbers; what else lies there is not ours."""
        for folder in self._objects.iterdir():
            if _FOLDER.fullmatch(folder.name) and folder.is_dir():
                yield int(folder.name, 16), folder

    def _claim_folder(self) -> Path:
        number = max((number for number, _ in self._folders()), default=-1) + 1
        while True:
            folder = self._objects / f"{number:06x}"
            try:
                folder.mkdir()
            except FileExistsError:
                number += 1
                continue
            if self.sync:
                sync_folder(self._objects)
            return folder


def _started(process: int) -> str:
    """Return when a process began, in ticks since the machine did (proc(5), stat); empty where there is none.

    Process ids come again, soon where the daemon is the first process of a container; this does not.
    """
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        return status.rpartition(")")[2].split()[19]
    except OSError:
        return ""


def is_alive(process: str) -> bool:
    """Whether a process of this id runs that is not ours."""
    return process.isdigit() and int(process) != os.getpid() and bool(_started(int(process)))


class IncomingObject:
    """An object on its way in: Part 10 header first, then the data set as it comes, hashed as it passes.

    What fits into HEAD_SIZE stays in memory until `sync`; the file is written once.
    """

    def __init__(self, store: ObjectStore, path: str, meta: bytes) -> None:
        self._store = store
        self._path = path
        self._meta_size = len(meta)
        self._head = bytearray(meta)
        self._sha1 = hashlib.sha1(meta, usedforsecurity=False)
        self._descriptor = -1
        # Bytes in the file, and how many of them the disk has been told to write.
        self._written = self._started = 0
        self.size = len(meta)

    def write(self, fragment: bytes | memoryview) -> None:
        """Append to the data set. Raises NotKept (no space, I/O error), TooLarge."""
        self.size += len(fragment)
        if self.size > self._store.size_limit:
            raise TooLarge(f"object is larger than limits.object_size = {self._store.size_limit} bytes")
        self._sha1.update(fragment)
        if self._descriptor < 0:
            if self.size <= HEAD_SIZE:
                self._head += fragment
                return
            self._open()
        self._write_all(fragment)

    @property
    def head(self) -> memoryview:
        """The data set's first bytes; all of it where it is small."""
        return memoryview(self._head)[self._meta_size :]

    @property
    def data_set_size(self) -> int:
        """Bytes of the data set so far."""
        return self.size - self._meta_size

    @property
    def sha1(self) -> str:
        """SHA-1 of the whole Part 10 file, in hexadecimal (FHIR Attachment.hash is SHA-1)."""
        return self._sha1.hexdigest()

    def read(self, offset: int, size: int) -> bytes:
        """Return bytes of the data set from `offset`; fewer at its end. Raises NotKept."""
        if self._descriptor < 0:
            return bytes(self.head[offset : offset + size])
        try:
            return os.pread(self._descriptor, size, self._meta_size + offset)
        except OSError as error:
            raise NotKept(f"{self._path}: {error.strerror}") from error

    def file(self) -> str:
        """Sync the bytes, rename the file into `objects/`, return its path. Raises NotKept; then it is gone.

        A failing sync is never tried again: the kernel may have dropped the pages that it could not write.
        """
        try:
            if self._descriptor < 0:
                self._open()
            if self._store.sync:
                os.fdatasync(self._descriptor)
            self._close()
            return self._store.place(self._path, self.size)
        except OSError as error:
            self.discard()
            raise NotKept(f"{self._path}: {error.strerror}") from error
        except NotKept:
            self.discard()
            raise

    def discard(self) -> None:
        """Leave nothing behind. Does no harm when called again."""
        self._close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise NotKept(f"{self._path}: {error.strerror}") from error
        self._write_all(self._head)

    def _write_all(self, content: bytes | bytearray | memoryview) -> None:
        view = memoryview(content)
        try:
            while view:
                written = os.write(self._descriptor, view)
                self._written += written
                view = view[written:]
            if self._store.sync and self._written - self._started >= WRITE_BACK:
                self._start_writing()
        except OSError as error:
            raise NotKept(f"{self._path}: {error.strerror}") from error

    def _start_writing(self) -> None:
        """Let the disk begin with what is there, while the rest comes: the sync at the end waits less.

        On Linux this advice starts the writing of dirty pages, and drops clean ones, of which there are none.
        """
        length = self._written - self._started
        os.posix_fadvise(self._descriptor, self._started, length, os.POSIX_FADV_DONTNEED)
        self._started = self._written

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            with contextlib.suppress(OSError):
                os.close(descriptor)
