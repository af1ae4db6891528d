"""What a disk holds after a power cut: a model of the recorded system calls.

Content is there where its file was synced after the write, a name where its folder was synced after the name
was made. Of writes that were not synced any may be there; of names that were not synced none is.
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.trace import Call

_SYNCS = ("fsync", "fdatasync")
_NAMING = ("openat", "mkdir", "unlink", "unlinkat", "rmdir", "rename")
_NUMBERS = re.compile(r"(-?\d+)")


@dataclass(slots=True, eq=False)
class File:
    """`content` is durable; `pending` are writes (offset, bytes) and truncations (size, None).

    `changes` counts all of them, those that are durable too: syncs overlap.
    """

    content: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    length: int = 0
    changes: int = 0

    def write(self, offset: int, content: bytes) -> None:
        self.pending.append((offset, content))
        self.changes += 1
        self.length = max(self.length, offset + len(content))

    def sync(self, changes: int) -> None:
        """Make the first `changes` changes durable."""
        fresh = max(0, changes - (self.changes - len(self.pending)))
        _apply(self.content, self.pending[:fresh])
        del self.pending[:fresh]

    def truncate(self, size: int) -> None:
        self.pending.append((size, None))
        self.changes += 1
        self.length = size


@dataclass(slots=True, eq=False)
class Folder:
    """`names` is what a program sees, `durable` what is on the disk, since the sync that began at `synced`.

    Syncs overlap: one that began earlier and ends later takes nothing back.
    """

    names: dict[str, "File | Folder"] = field(default_factory=dict)
    durable: dict[str, "File | Folder"] = field(default_factory=dict)
    synced: int = -1

    def sync(self, names: dict[str, "File | Folder"], began: int) -> None:
        if began > self.synced:
            self.durable, self.synced = names, began


def _apply(content: bytearray, changes: Iterable[tuple[int, bytes | None]]) -> None:
    for offset, written in changes:
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        if written is None:
            del content[offset:]
        else:
            content[offset : offset + len(written)] = written


class Disk:
    """The files below `root`, as they are after those calls that began before the `cut`."""

    def __init__(self, root: Path, calls: Iterable[Call], cut: float) -> None:
        self._root = f"{root}/"
        self._folder = Folder()
        self._seen: dict[int, object] = {}
        events = [(call.begin, 0, call) for call in calls if call.begin < cut]
        events += [(int(call.end), 1, call) for _, _, call in events if call.end < cut]
        for _, ended, call in sorted(events, key=lambda event: event[:2]):
            if ended:
                self._end(call)
            else:
                self._begin(call)

    def restore(self, target: Path, chance: random.Random) -> None:
        """Write what is left to `target`; chance decides about each write that was not synced."""
        _restore(self._folder, target, chance)

    def _find(self, path: str) -> "File | Folder | None":
        if not path.startswith(self._root):
            return self._folder if f"{path}/" == self._root else None
        found: File | Folder | None = self._folder
        for name in path.removeprefix(self._root).split("/"):
            found = found.names.get(name) if isinstance(found, Folder) else None
        return found

    def _parent(self, path: str) -> tuple[Folder | None, str]:
        folder, _, name = path.rpartition("/")
        found = self._find(folder)
        return (found if isinstance(found, Folder) else None), name

    def _everything(self, folder: Folder) -> Iterator[tuple[File | Folder, Any]]:
        """Yield every file with its number of changes, and every folder with its names."""
        yield folder, dict(folder.names)
        for one in folder.names.values():
            if isinstance(one, Folder):
                yield from self._everything(one)
            else:
                yield one, one.changes

    def _begin(self, call: Call) -> None:
        if call.name == "syncfs":
            self._seen[id(call)] = list(self._everything(self._folder))
        found = self._find(call.path)
        if isinstance(found, File):
            if call.name == "write":
                found.write(found.length, call.strings[0])
            elif call.name == "pwrite64":
                found.write(int(_NUMBERS.findall(call.arguments.split("=")[0])[1]), call.strings[0])
            elif call.name in _SYNCS:
                self._seen[id(call)] = found.changes
        elif isinstance(found, Folder) and call.name in _SYNCS:
            self._seen[id(call)] = dict(found.names)

    def _end(self, call: Call) -> None:
        if not call.succeeded:
            return
        if call.name in (*_SYNCS, "syncfs"):
            self._sync(call)
        elif call.name == "ftruncate":
            found = self._find(call.path)
            if isinstance(found, File):
                found.truncate(int(_NUMBERS.findall(call.arguments)[-1 if "=" not in call.arguments else -2]))
        elif call.name in _NAMING:
            self._name(call)

    def _sync(self, call: Call) -> None:
        seen = self._seen.pop(id(call), None)
        for found, what in seen if isinstance(seen, list) else [(self._find(call.path), seen)]:
            if isinstance(found, File) and isinstance(what, int):
                found.sync(what)
            elif isinstance(found, Folder) and isinstance(what, dict):
                found.sync(what, call.begin)

    def _name(self, call: Call) -> None:
        path = call.strings[0].decode() if call.strings else ""
        folder, name = self._parent(path)
        if folder is None:
            return
        if call.name == "openat" and "O_CREAT" in call.arguments:
            file = folder.names.setdefault(name, File())
            if "O_TRUNC" in call.arguments and isinstance(file, File):
                file.truncate(0)
        elif call.name == "mkdir":
            folder.names.setdefault(name, Folder())
        elif call.name in ("unlink", "unlinkat", "rmdir"):
            folder.names.pop(name, None)
        elif call.name == "rename" and name in folder.names:
            target, new = self._parent(call.strings[1].decode())
            moved = folder.names.pop(name)
            if target is not None:
                target.names[new] = moved


def _restore(folder: Folder, target: Path, chance: random.Random) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, one in folder.durable.items():
        if isinstance(one, Folder):
            _restore(one, target / name, chance)
            continue
        content = bytearray(one.content)
        _apply(content, [change for change in one.pending if chance.random() < 0.5])
        (target / name).write_bytes(content)
