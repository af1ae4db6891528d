"""The object store of a data directory whose objects go to a store that nodes share.

What is acknowledged by the store goes there at once. What is acknowledged by the journal is placed below the
data directory first, and uploaded in the background; so an object is looked for here, then in the store.
"""

import contextlib
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import structlog

from index.errors import NotKept
from index.storage.object_file import LargeFile, ObjectFile, ObjectState, copy_object
from index.storage.object_keys import FIRST, FOLDERS, day_of, is_year, new_key, node_of
from index.storage.object_store import ObjectStore
from index.storage.remote.availability import Availability, Away, GuardedReading, GuardedWriting
from index.storage.remote.interface import IDENTITY, Remote
from index.storage.remote.pending import Pending
from index.storage.walk import files_below

log = structlog.get_logger(__name__)

# What is read of the object that tells whose the store is.
_IDENTITY_SIZE = 64


class RemoteStore(ObjectStore):
    """See ObjectStore. `remote` is asked by way of `ask`, which tells whether it answers."""

    is_shared = True

    def __init__(self, data: Path, url: str, remote: Remote, *, by_journal: bool, **options: Any) -> None:
        super().__init__(data, **options)
        self.url = url
        self.remote = remote
        self.ask = Availability()
        self.pending = Pending()
        self._by_journal = by_journal
        self.sees_all = not by_journal
        self.uploads = True

    @property
    def scope(self) -> int:
        """See ObjectStore."""
        return FIRST

    @property
    def away(self) -> str:
        """See ObjectStore."""
        return self.ask.failing

    def begin_serving(self) -> None:
        """See ObjectStore."""
        self.uploads = not self._by_journal
        for folder in FOLDERS:
            self.pending.add(str(file.relative_to(self.data)) for file in files_below(self.data / folder))

    def require(self) -> None:
        """See ObjectStore."""
        super().require()
        if self.uploads:
            try:
                self.ask.require()
            except Away as away:
                raise NotKept(f"{self.url}: {away.strerror}") from away

    def may_be_elsewhere(self, path: str) -> bool:
        """See ObjectStore."""
        return self._by_journal and node_of(path) != self.node

    def identity(self) -> str:
        """Return what the store's object `identity` tells; nothing without one. Raises OSError."""
        try:
            with self.ask(lambda: self.remote.open(IDENTITY)) as file:
                return file.read_at(0, _IDENTITY_SIZE).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""

    def claim(self, identity: str) -> None:
        """Make that object. Raises FileExistsError where another one is there, OSError."""
        self.ask.write(lambda: self.remote.put(IDENTITY, f"{identity}\n".encode()))

    # Reading

    def open(self, path: str) -> ObjectFile:
        """See ObjectStore."""
        try:
            return super().open(path)
        except FileNotFoundError:
            return GuardedReading(self.ask, self.ask(lambda: self.remote.open(path)))

    def state(self, path: str) -> ObjectState | None:
        """See ObjectStore."""
        return super().state(path) or self.ask(lambda: self.remote.state(path))

    def standing(self, *paths: str) -> str | None:
        """See ObjectStore: what a crash has not let us index may be uploaded. Raises OSError."""
        keys = (path for path in paths if path.startswith(FOLDERS))
        return super().standing(*paths) or next(filter(self.state, keys), None)

    def changed(self, path: str) -> int | None:
        """See ObjectStore."""
        found = self.state(path)
        return None if found is None else found.changed

    def holds(self, path: str) -> bool:  # noqa: ARG002
        """See ObjectStore: every node sees every object of the store."""
        return True

    def kept_aside(self) -> list[str]:
        """See ObjectStore."""
        return sorted({*super().kept_aside(), *(path for path, _, _ in self.remote.listed("conflicts/"))})

    def filed_since(
        self,
        last: str | None,  # noqa: ARG002
        received: int = 0,  # noqa: ARG002
        pass_over: Callable[[str], object] | None = None,  # noqa: ARG002
    ) -> Iterator[str]:
        """Yield the paths of all objects: those here, then those of the store in their order there."""
        here = {str(file.relative_to(self.data)) for file in files_below(self.data / "objects")}
        yield from sorted(here)
        for path, _, _ in self.remote.listed("objects/"):
            if path not in here:
                yield path

    # Writing

    def reserve(self, size: int, standing: str = "") -> str:
        """See ObjectStore: what has arrived in the store stays where it is."""
        self.room.take(0 if self.uploads else size)
        return standing if standing.startswith("objects/") else new_key(self.node)

    def incoming_path(self) -> str:
        """See ObjectStore: what is uploaded arrives where it stays."""
        return new_key(self.node) if self.uploads else super().incoming_path()

    def new_file(self, path: str) -> LargeFile:
        """See ObjectStore."""
        if not path.startswith("objects/"):
            return super().new_file(path)
        return GuardedWriting(self.ask, self.ask.write(lambda: self.remote.begin(path)))

    def write_incoming(self, content: bytes | bytearray, path: str = "") -> str:
        """See ObjectStore."""
        if not self.uploads:
            return super().write_incoming(content, path)
        key = path or new_key(self.node)
        self.write(key, content)
        return key

    def write(self, path: str, content: bytes | bytearray) -> None:
        """See ObjectStore."""
        if self.uploads and path.startswith(FOLDERS):
            self.ask.write(lambda: self.remote.put(path, content))
        else:
            super().write(path, content)

    def put(self, path: str, content: bytes) -> None:
        """See ObjectStore."""
        if self.uploads:
            self._replace(path, lambda: self.remote.put(path, content))
        else:
            super().put(path, content)

    def put_back(self, source: str, path: str) -> None:
        """See ObjectStore."""
        if self.uploads:
            with self.open(source) as content:
                self._replace(path, lambda: copy_object(content, self.remote.begin(path)))
        else:
            super().put_back(source, path)

    def _replace(self, path: str, make: Callable[[], None]) -> None:
        self.remote.remove(path)
        self.ask.write(make)
        super().remove(path)

    def move(self, source: str, target: str) -> None:
        """See ObjectStore."""
        is_here = super().state(source) is not None
        if is_here and not self.uploads:
            super().move(source, target)
        elif is_here:
            with super().open(source) as content:
                self.ask.write(lambda: copy_object(content, self.remote.begin(target)))
            super().remove(source)
        else:
            try:
                self.ask.write(lambda: self.remote.copy(source, target))
            except FileNotFoundError:
                if self.state(target) is None:
                    raise
            self.remote.remove(source)

    def link_aside(self, path: str, target: str) -> bool:
        """See ObjectStore."""
        if super().state(path) is not None:
            self.pending.add([target])
            return super().link_aside(path, target)
        try:
            self.ask.write(lambda: self.remote.copy(path, target))
        except FileNotFoundError:
            return False
        return True

    def remove(self, path: str) -> None:
        """See ObjectStore. What is being uploaded goes too: see `upload`."""
        self.remove_all([path])

    def remove_all(self, paths: Sequence[str]) -> None:
        """Remove objects here and in the store. Raises OSError."""
        for path in paths:
            super().remove(path)
        if keys := [path for path in paths if path.startswith(FOLDERS)]:
            # That we may not remove objects is no reason to take no others.
            self.ask.require()
            self.remote.remove_all(keys)

    def discard(self, path: str) -> None:
        """See ObjectStore."""
        if self.uploads:
            self.remove(path)
        else:  # it has not been uploaded
            super().remove(path)

    def settle_later(self, paths: Sequence[str]) -> None:
        """See ObjectStore: these are whole now."""
        super().settle_later(paths)
        self._is_whole(paths)

    def sync_folders(self, paths: Iterable[str]) -> None:
        """See ObjectStore: these are whole now."""
        paths = list(paths)
        super().sync_folders(paths)
        self._is_whole(paths)

    def _is_whole(self, paths: Sequence[str]) -> None:
        if not self.uploads:
            self.pending.add(path for path in paths if path.startswith(FOLDERS))

    def upload(self, path: str) -> None:
        """Bring an object into the store, then remove it here. Raises OSError."""
        try:
            file = super().open(path)
        except FileNotFoundError:
            return
        with file:
            self.ask.write(lambda: self._upload(file, path))
        try:
            (self.data / path).unlink()
        except FileNotFoundError:  # deleted meanwhile
            self.remote.remove(path)

    def remove_folders(self, until: dt.date) -> None:
        """Remove the empty folders of the days up to this one: all is uploaded. Raises OSError."""
        for year in filter(lambda one: is_year(f"objects/{one.name}"), (self.data / "objects").iterdir()):
            for day in year.iterdir():
                key_day = day_of(f"objects/{year.name}/{day.name}/")
                if key_day and key_day <= until:
                    for folder in (*day.iterdir(), day):
                        with contextlib.suppress(OSError):  # something is in it
                            folder.rmdir()

    def _upload(self, file: ObjectFile, path: str) -> None:
        if file.size > self.remote.at_once:
            copy_object(file, self.remote.begin(path))
            return
        content = file.read_at(0, file.size)
        try:
            self.remote.put(path, content)
        except FileExistsError:  # it was mended here, since what is in the store is damaged
            self.remote.remove(path)
            self.remote.put(path, content)
