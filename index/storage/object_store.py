"""The folders of a data directory: objects come into `incoming/` and are renamed into `objects/`.

Names are ours, never from the wire. A folder of `objects/` belongs to the process that made it (mkdir
claims it), so that an import can file beside a running daemon; it takes FOLDER_SIZE objects. One folder
for many objects costs one directory sync for a whole group of them, where a hashed tree costs one each.
"""

import contextlib
import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import structlog

from index.storage.durable import FOLDER_MODE, make_folder, open_file, open_new, sync_folder
from index.storage.reserve import Reserve
from index.storage.room import Room

log = structlog.get_logger(__name__)

FOLDER_SIZE = 4096
_FOLDER = re.compile(r"[0-9a-f]{6,}")


class ObjectStore:
    """The folders `objects/`, `incoming/` and `conflicts/` of a data directory."""

    def __init__(
        self,
        data: Path,
        *,
        sync: bool = True,
        watermark: int = 0,
        size_limit: int = 1 << 62,
        reserve: Reserve | None = None,
    ) -> None:
        self.data = data
        self.sync = sync
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
        self.room = Room(self._incoming, watermark, reserve or Reserve(data / "reserve"))
        if os.access(data, os.W_OK):
            for folder in (self._objects, self._incoming, self._conflicts):
                make_folder(folder, sync=sync)

    def incoming_path(self) -> str:
        """Return a path in `incoming/` for a new object. Raises NotKept where there is no room."""
        self.room.require()
        return f"{self._incoming}/{self._process}-{next(self._names)}"

    def reserve(self, size: int) -> str:
        """Return a path below the data directory for an object of so many bytes, in the current folder.

        Raises OSError where no folder can be made.
        """
        with self._lock:
            if self._filled == FOLDER_SIZE:
                self._folder, self._filled = f"objects/{self._claim_folder().name}", 0
            path = f"{self._folder}/{self._filled:03x}.dcm"
            self._filled += 1
            self.room.take(size)
        return path

    def rename(self, incoming: str, path: str) -> None:
        """Give an object of `incoming/` its place. Raises OSError.

        The name is durable once `sync_folders` has been called with that path.
        """
        os.rename(incoming, self._below + path)  # noqa: PTH104

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
        with open_file(self.data / source) as file:
            self._put(path, lambda temporary: shutil.copyfileobj(file, temporary))

    def put(self, path: str, content: bytes) -> None:
        """Write an object to its place, durably and whole. Raises OSError."""
        self._put(path, lambda temporary: temporary.write(content))

    def _put(self, path: str, fill: Callable[[BinaryIO], object]) -> None:
        temporary = self._incoming / f"{self._process}-{next(self._names)}"
        try:
            with open_new(temporary) as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            make_folder((self.data / path).parent, sync=self.sync)
            temporary.replace(self.data / path)
        finally:
            temporary.unlink(missing_ok=True)
        self.sync_folders([path])

    def sync_object(self, path: str) -> None:
        """Make an object durable that stands in its place, with its name. Raises OSError."""
        if self.sync:
            descriptor = os.open(self._below + path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
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
        swept = 0
        for path in self.left_behind():
            try:
                path.unlink(missing_ok=True)
                swept += 1
            except OSError as error:  # a folder, or what belongs to somebody else
                _pass_over(f"incoming/{path.name}", str(error.strerror))
        return swept

    def _is_arriving(self, name: str) -> bool:
        """Whether another process that runs, such as an import, is still receiving this file."""
        process, _, rest = name.partition("-")
        if not process.isdigit() or name.startswith(f"{self._process}-"):
            return False
        started = _started(int(process))
        return bool(started) and rest.partition("-")[0] == started

    def filed_since(
        self, last: str | None, pass_over: Callable[[str], object] | None = None
    ) -> Iterator[str]:
        """Yield the paths of all objects in the folder of `last`, the one before it and all later ones.

        What has the name of an object and is none, such as a FIFO, is named: to `pass_over`, or else in the
        log. Raises OSError.
        """
        first = max(0, int(last.split("/")[1], 16) - 1) if last else 0
        for number, folder in sorted(self._folders()):
            if number >= first:
                for path, is_file in _objects_of(folder):
                    if is_file:
                        yield path
                    elif pass_over:
                        pass_over(path)
                    else:
                        _pass_over(path, "is no file")

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
                folder.mkdir(FOLDER_MODE)
            except FileExistsError:
                number += 1
                continue
            if self.sync:
                sync_folder(self._objects)
            return folder


def _pass_over(path: str, reason: str) -> None:
    log.warning("passed_over", path=path, reason=reason)


def _objects_of(folder: Path) -> list[tuple[str, bool]]:
    """Return the paths of all objects in a folder, and whether each is a file; links may lead to one."""
    with os.scandir(folder) as entries:
        found = [(entry.name, _is_file(entry)) for entry in entries if entry.name.endswith(".dcm")]
    return [(f"objects/{folder.name}/{name}", is_file) for name, is_file in sorted(found)]


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself
        return False


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
