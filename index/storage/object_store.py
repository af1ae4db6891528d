"""The folders of a data directory: objects come into `incoming/` and are renamed into `objects/`.

Names are ours, never from the wire. A folder of `objects/` belongs to the process that made it (mkdir
claims it), so that an import can file beside a running daemon; it takes FOLDER_SIZE objects. One folder
for many objects costs one directory sync for a whole group of them, where a hashed tree costs one each.
"""

import contextlib
import itertools
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import structlog

from index.storage.direct_file import DirectFile
from index.storage.durable import (
    FILE_MODE,
    FOLDER_MODE,
    can_sync_filesystem,
    make_folder,
    open_file,
    open_new,
    sync_content,
    sync_filesystem,
    sync_folder,
)
from index.storage.journal import is_left, read
from index.storage.object_file import FolderReader, LargeFile
from index.storage.object_keys import folder_name, folder_number
from index.storage.processes import started
from index.storage.reserve import Reserve
from index.storage.room import Room
from index.storage.walk import dated_objects, objects_of

log = structlog.get_logger(__name__)

T = TypeVar("T")
FOLDER_SIZE = 4096
# File systems keep times by a clock that ticks up to 10 ms apart, some by whole seconds; in milliseconds.
CLOCK = 1000
# Files whose names are made durable together: some 30 us for each.
PREPARED = 64
PREPARED_FOLDER = "prepared"
# No two files of a process have the same name.
_names = itertools.count()


class ObjectStore(FolderReader):
    """The folders `objects/`, `incoming/` and `conflicts/` of a data directory."""

    # Whether objects go to a shared store before they are acknowledged, without a journal.
    uploads = False

    def __init__(
        self,
        data: Path,
        *,
        sync: bool = True,
        watermark: int = 0,
        size_limit: int = 1 << 62,
        reserve: Reserve | None = None,
    ) -> None:
        super().__init__(data)
        self.sync = sync
        self.size_limit = size_limit
        self._objects = data / "objects"
        self._incoming = data / "incoming"
        self._conflicts = data / "conflicts"
        self.journal = data / "journal"
        self._pool = data / PREPARED_FOLDER
        self._process = f"{os.getpid()}-{started(os.getpid())}"
        self._lock = threading.Lock()
        self._folder = ""
        self._filled = FOLDER_SIZE
        self.room = Room(self._incoming, watermark, reserve or Reserve(data / "reserve"))
        self._watched = -1
        self._preparing = threading.Lock()
        self._prepared: list[str] = []
        # Objects since `incoming/` was synced, one of each folder.
        self._moved: dict[str, str] = {}
        # What `settle_placed` syncs, where nothing syncs the whole file system.
        self._placed: list[str] = []
        if os.access(data, os.W_OK):
            for folder in (self._objects, self._incoming, self._conflicts):
                make_folder(folder, sync=sync)

    def require(self) -> None:
        """Raise NotKept where nothing more can be kept."""
        self.room.require()

    def incoming_path(self) -> str:
        """Return the path of a new file in `incoming/`, below the data directory."""
        return f"incoming/{self._process}-{next(_names)}"

    def take_prepared(self) -> str:
        """Return the path of an empty file in `incoming/` that a power cut leaves a name. Raises OSError.

        Until `incoming/` is synced, that is the name in the folder of prepared files: see `standing`.
        """
        with self._preparing:
            if not self._prepared:
                self._prepare()
            name = self._prepared.pop()
            os.rename(f"{self._pool}/{name}", f"{self._incoming}/{name}")  # noqa: PTH104
        return f"incoming/{name}"

    def standing(self, *paths: str) -> str | None:
        """Return the first of these paths where a file is; one of `incoming/` may still be prepared."""
        prepared = (path.replace("incoming/", f"{PREPARED_FOLDER}/", 1) for path in paths)
        names = (name for both in zip(paths, prepared, strict=True) for name in both if name)
        return next((name for name in names if (self.data / name).is_file()), None)

    def _prepare(self) -> None:
        """Make further empty files; first, those that were taken get durable names where they are now."""
        self.sync_folders(self._moved.values())
        self._moved.clear()
        if self.sync:
            sync_folder(self._incoming)
        make_folder(self._pool, sync=self.sync)
        names = [f"{self._process}-{next(_names)}" for _ in range(PREPARED)]
        for name in names:
            self.write(f"{PREPARED_FOLDER}/{name}", b"")
        if self.sync:
            sync_folder(self._pool)
        self._prepared = names

    def new_file(self, path: str) -> LargeFile:
        """Begin a large object. Raises OSError."""
        return DirectFile(self._below + path)

    def reserve(self, size: int, standing: str = "") -> str:  # noqa: ARG002  where it arrived
        """Return a path for an object of so many bytes, in the current folder. Raises OSError."""
        with self._lock:
            if self._filled == FOLDER_SIZE:
                self._folder, self._filled = f"objects/{self._claim_folder().name}", 0
            path = f"{self._folder}/{self._filled:03x}.dcm"
            self._filled += 1
            self.room.take(size)
        return path

    def sync_folders(self, paths: Iterable[str]) -> None:
        """Make the names of these objects durable: one sync for each folder that they are in."""
        if self.sync:
            for folder in {path.rpartition("/")[0] for path in paths}:
                try:
                    sync_folder(self._below + folder)
                except FileNotFoundError:  # deleted with all that it held
                    continue
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

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove several. Raises OSError; then some may be left."""
        for path in paths:
            self.remove(path)

    def discard(self, path: str) -> None:
        """Remove what was to become an object, and did not. Raises OSError."""
        self.remove(path)

    def make_folder_of(self, path: str) -> None:
        """Make the folder of an object where a crash has taken it. Raises OSError."""
        make_folder((self.data / path).parent, sync=self.sync)

    def _with_folder(self, path: str, act: Callable[[], T]) -> T:
        """Act, and once more where it was the folder of `path` that was missing. Raises OSError."""
        try:
            return act()
        except FileNotFoundError:
            if (self.data / path).parent.is_dir():
                raise
            self.make_folder_of(path)
            return act()

    def write_incoming(self, content: bytes | bytearray, path: str = "") -> str:
        """Write a small object to a new file in `incoming/`, unsynced; return its path. Raises OSError."""
        path = self.incoming_path()
        try:
            self.write(path, content)
        except OSError:
            self.remove(path)
            raise
        return path

    def write(self, path: str, content: bytes | bytearray) -> None:
        """Write a small object to its place, which was reserved for it, unsynced. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = self._with_folder(path, lambda: os.open(self._below + path, flags, FILE_MODE))
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)

    def move(self, source: str, target: str) -> None:
        """Move an object, unsynced; where it has been moved already, nothing is done. Raises OSError."""
        with self._preparing:
            names = self._below + source, self._below + target
            try:
                self._with_folder(target, lambda: os.rename(*names))  # noqa: PTH104
            except FileNotFoundError:
                if not (self.data / target).exists():
                    raise
            self._moved[target.rpartition("/")[0]] = target

    def link_aside(self, path: str, target: str) -> bool:
        """Give an object a second, durable name; a copy where there are no hard links. Raises OSError.

        Returns False where the object is not there.
        """
        if (self.data / target).exists():
            return True
        try:
            (self.data / target).hardlink_to(self.data / path)
        except FileNotFoundError:
            return False
        except OSError:  # a file system without hard links
            self.put_back(path, target)
        if self.sync:
            sync_folder(self._conflicts)
        return True

    def watch(self) -> None:
        """From now on see all that the disk cannot write, so that one sync can stand for many objects.

        Raises OSError.
        """
        if self.sync and self._watched < 0 and can_sync_filesystem():
            self._watched = os.open(self._objects, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Let go of the disk, and of files that were prepared for nothing."""
        with self._preparing:
            for name in self._prepared:
                with contextlib.suppress(OSError):
                    self.remove(f"{PREPARED_FOLDER}/{name}")
            self._prepared.clear()
        if self._watched >= 0:
            os.close(self._watched)
            self._watched = -1

    def settle_later(self, paths: Sequence[str]) -> None:
        """Leave it to `settle_placed` to make these objects durable, which were just placed."""
        if self.sync and self._watched < 0:
            with self._preparing:
                self._placed += paths

    def settle_placed(self) -> None:
        """Make all objects durable that were placed before, with their names. Raises OSError."""
        if self._watched >= 0:
            sync_filesystem(self._watched)
            return
        with self._preparing:
            placed, self._placed = self._placed, []
        try:
            self.sync_objects(placed)
        except OSError:
            self.settle_later(placed)
            raise

    def sync_group(self, paths: Sequence[str]) -> None:
        """Make objects durable that were just written, with their names. Raises OSError."""
        if self.sync and len(paths) > 1 and self._watched >= 0:
            sync_filesystem(self._watched)
        else:
            self.sync_objects(paths)

    def sync_objects(self, paths: Sequence[str]) -> None:
        """Make these objects and their names durable; those that are deleted are left out. Raises OSError."""
        if self.sync:
            for path in paths:
                with contextlib.suppress(FileNotFoundError):
                    sync_content(self._below + path)
            self.sync_folders(paths)

    def put_back(self, source: str, path: str) -> None:
        """Copy one of our files to the place of an object, durably and whole. Raises OSError."""
        with open_file(self.data / source) as file:
            self._put(path, lambda temporary: shutil.copyfileobj(file, temporary))

    def put(self, path: str, content: bytes) -> None:
        """Write an object to its place, durably and whole. Raises OSError."""
        self._put(path, lambda temporary: temporary.write(content))

    def _put(self, path: str, fill: Callable[[BinaryIO], object]) -> None:
        temporary = self._incoming / f"{self._process}-{next(_names)}"
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

    def left_behind(self) -> list[Path]:
        """Return what processes that have ended left in `incoming/`, and the journal does not need."""
        needed = self._needed()
        paths = [path for path in self._incoming.iterdir() if path.name not in needed]
        return [path for path in paths if not self._is_arriving(path.name)]

    def _needed(self) -> set[str]:
        """Return the names in `incoming/` that records of the journal tell of. Raises OSError."""
        records = read(self.journal) if is_left(self.journal) else []
        return {record.facts["incoming"].rpartition("/")[2] for record in records}

    def settle(self) -> None:
        """Make the folders' own names durable: a process may have ended between making and syncing one."""
        if self.sync:
            for folder in (self._objects, self.data, self.data.resolve().parent):
                with contextlib.suppress(PermissionError):  # the last one may be another user's
                    sync_folder(folder)

    def sweep(self) -> int:
        """Remove what an earlier process left in `incoming/`; return how many files that were."""
        swept, needed = 0, self._needed()
        with contextlib.suppress(OSError):
            for path in self._pool.iterdir():
                if path.name not in needed:
                    path.unlink()
        for path in self.left_behind():
            try:
                path.unlink(missing_ok=True)
                swept += 1
            except OSError as error:  # a folder, or what belongs to another user
                _pass_over(f"incoming/{path.name}", str(error.strerror))
        return swept

    def _is_arriving(self, name: str) -> bool:
        """Whether another process that runs, such as an import, is still receiving this file."""
        process, _, rest = name.partition("-")
        if not process.isdigit() or name.startswith(f"{self._process}-"):
            return False
        when = started(int(process))
        return bool(when) and rest.partition("-")[0] == when

    def filed_since(
        self, last: str | None, received: int = 0, pass_over: Callable[[str], object] | None = None
    ) -> Iterator[str]:
        """Yield the paths of all objects in folders where some may have been filed after `last`.

        These are its own folder, the one before it and all later ones, and those that have changed since
        `received` (ms since 1970): several processes file at a time. What has an object's name and is no
        file, such as a FIFO, is named: to `pass_over`, or else in the log. Raises OSError.
        """
        first = (folder_number(last.split("/")[1], self.node) or 1) - 1 if last else 0
        if last is None:
            yield from dated_objects(self._objects)
        for number, folder in sorted(self._folders()):
            if number >= first or folder.stat().st_mtime_ns // 1_000_000 >= received - CLOCK:
                for path, is_file in objects_of(folder):
                    if is_file:
                        yield path
                    elif pass_over:
                        pass_over(path)
                    else:
                        _pass_over(path, "is no file")

    def _folders(self) -> Iterator[tuple[int, Path]]:
        """Yield the folders of `objects/` with their numbers; what else lies there is not ours."""
        for folder in self._objects.iterdir():
            if (number := folder_number(folder.name, self.node)) is not None and folder.is_dir():
                yield number, folder

    def _claim_folder(self) -> Path:
        number = max((number for number, _ in self._folders()), default=-1) + 1
        while True:
            folder = self._objects / folder_name(self.node, number)
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
