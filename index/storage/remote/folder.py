"""A folder that several machines have mounted, as a store of objects."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from index.storage.direct_file import DirectFile
from index.storage.durable import FOLDER_MODE, open_new, sync_folder
from index.storage.object_file import CHUNK, LocalFile, ObjectFile, ObjectState, copy_object, file_state
from index.storage.remote.interface import IDENTITY
from index.storage.walk import files_below

# Objects that are being written, below the folder; whose names tell nothing.
ARRIVING = "arriving"


class SharedFolder:
    """The objects below a folder: see Remote."""

    at_once = CHUNK

    def __init__(self, root: Path, *, sync: bool = True, is_mounted: bool = False) -> None:
        """`is_mounted`: that needs no proof."""
        self._root, self._sync, self._is_mounted = root, sync, is_mounted

    def open(self, path: str) -> ObjectFile:
        """See Remote."""
        return LocalFile(self._root / path)

    def state(self, path: str) -> ObjectState | None:
        """See Remote."""
        return file_state(self._root / path)

    def put(self, path: str, content: bytes | bytearray) -> None:
        """See Remote."""
        temporary = self._temporary(is_first=path == IDENTITY)
        try:
            with open_new(temporary) as file:
                file.write(content)
                file.flush()
                if self._sync:
                    os.fsync(file.fileno())
            self.place(temporary, path)
        except FileExistsError:
            with self.open(path) as there:
                if there.size != len(content) or there.read_at(0, there.size) != content:
                    raise
        finally:
            temporary.unlink(missing_ok=True)

    def begin(self, path: str) -> "FolderUpload":
        """See Remote."""
        return FolderUpload(self, self._temporary(), path, sync=self._sync)

    def copy(self, source: str, target: str) -> None:
        """See Remote."""
        # It is of the same hash where it is there: see conflict_path.
        with contextlib.suppress(FileExistsError), self.open(source) as content:
            copy_object(content, self.begin(target))

    def place(self, temporary: Path, path: str) -> None:
        """Give a file that is whole its name, durably. Raises FileExistsError, OSError."""
        target = self._root / path
        for left in (1, 0):
            self._make_folder(target.parent, is_first=path == IDENTITY)
            try:
                target.hardlink_to(temporary)
                break
            except FileNotFoundError:  # another node has just removed the empty folder
                if not left:
                    raise
        temporary.unlink()
        if self._sync:
            sync_folder(target.parent)

    def remove_all(self, paths: Sequence[str]) -> None:
        """See Remote."""
        for path in paths:
            self.remove(path)

    def remove(self, path: str) -> None:
        """See Remote."""
        target = self._root / path
        target.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the next object of this minute is in it already
            while target.parent.parent not in (self._root, self._root.parent):
                target = target.parent
                target.rmdir()

    def listed(self, folder: str) -> Iterator[tuple[str, int, int]]:
        """See Remote."""
        for file in files_below(self._root / folder):
            if state := file_state(file):
                yield str(file.relative_to(self._root)), state.size, state.changed

    def folders(self, folder: str) -> list[str]:
        """See Remote."""
        if not self._root.is_dir():
            raise OSError(None, f"{self._root}: no such folder")
        try:
            names = [entry.name for entry in (self._root / folder).iterdir() if entry.is_dir()]
        except FileNotFoundError:
            return []
        return [f"{folder.rstrip('/')}/{name}" for name in sorted(names)]

    def tidy(self, seconds: float) -> int:
        """See Remote."""
        done = 0
        for file in files_below(self._root / ARRIVING):
            with contextlib.suppress(FileNotFoundError):
                if time.time() - file.stat().st_mtime > seconds:
                    file.unlink()
                    done += 1
        return done

    def _temporary(self, *, is_first: bool = False) -> Path:
        folder = self._root / ARRIVING
        self._make_folder(folder, is_first=is_first)
        return folder / uuid.uuid4().hex

    def _make_folder(self, folder: Path, *, is_first: bool = False) -> None:
        """Make a folder durably. The folder of all must be there, and ours: it may not be mounted.

        Raises OSError.
        """
        if folder.is_dir():
            return
        if folder == self._root:
            raise OSError(None, f"{self._root}: no such folder")
        if not (is_first or self._is_mounted) and not (self._root / IDENTITY).is_file():
            raise OSError(None, f"{self._root / IDENTITY} is missing: is the folder mounted?")
        self._make_folder(folder.parent, is_first=is_first)
        folder.mkdir(mode=FOLDER_MODE, exist_ok=True)
        if self._sync:
            sync_folder(folder.parent)


class FolderUpload:
    """See LargeFile."""

    def __init__(self, folder: SharedFolder, temporary: Path, path: str, *, sync: bool) -> None:
        self._folder, self._temporary, self._path, self._sync = folder, temporary, path, sync
        self._file = DirectFile(str(temporary))
        self._is_placed = False
        self.sha1 = self._file.sha1

    def write(self, content: bytes | bytearray | memoryview) -> None:
        """See LargeFile."""
        self._file.write(content)

    def read(self, offset: int, size: int) -> bytes:
        """See LargeFile."""
        return self._file.read(offset, size)

    def close(self, *, sync: bool) -> None:  # noqa: ARG002  the folder's own setting
        """See LargeFile."""
        self._file.close(sync=self._sync)
        if not self._is_placed:
            self._folder.place(self._temporary, self._path)
            self._is_placed = True

    def abandon(self) -> None:
        """See LargeFile."""
        self._file.abandon()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)
