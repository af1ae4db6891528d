"""A journal: records that are durable by one sync each group, in two files that are written in turn.

A file is written over from its start each time its records are no longer needed: the disk then changes no
more than the records' own blocks. What an earlier turn has left behind the last record is told by its number.
"""

import contextlib
import errno
import hashlib
import os
import stat
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from index.storage.durable import FILE_MODE, make_folder, open_file, sync_folder

# One file, in bytes. Small objects of a second or two.
SEGMENT = 16 * 1024 * 1024
_NAMES = ("0", "1")
# Of these, how many are written at one time, in bytes.
_ZEROS = 1024 * 1024
_MAGIC = b"ISDJ"
# What tells that a name is not there, or is no file's: no journal was ever kept under it.
_NO_FILE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENXIO, errno.ELOOP, errno.EISDIR))
# Magic, run, number, CRC-32 of these two and the body's checksum; then the body: CRC-32 of the rest but for
# the content, lengths of facts (JSON) and content, SHA-1 of the content, facts, content.
_HEAD = struct.Struct("<4sQQI")
_NUMBER = struct.Struct("<QQI")
_CHECKSUM = struct.Struct("<I")
EMPTY_SHA1 = hashlib.sha1(b"", usedforsecurity=False).digest()
_LENGTHS = struct.Struct("<II20s")


@dataclass(frozen=True, slots=True)
class Record:
    """A numbered record: facts that JSON can hold, and content. Numbers of one file follow each other."""

    number: int
    facts: dict[str, Any]
    content: bytes


def encode(facts: dict[str, object], content: bytes | bytearray, sha1: bytes) -> bytes:
    """Return the body of a record, which is yet to be numbered; `sha1` is that of its content."""
    encoded = orjson.dumps(facts)
    about = _LENGTHS.pack(len(encoded), len(content), sha1) + encoded
    return b"".join((_CHECKSUM.pack(zlib.crc32(about)), about, content))


def _head(run: int, number: int, body: bytes | memoryview) -> bytes:
    (checksum,) = _CHECKSUM.unpack_from(body)
    return _HEAD.pack(_MAGIC, run, number, zlib.crc32(_NUMBER.pack(run, number, checksum)))


class Journal:
    """The journal in a folder. One thread at a time may use it. `part` is the file that is written now."""

    def __init__(self, folder: Path, *, sync: bool) -> None:
        self._folder = folder
        self._sync = sync
        self._descriptors: list[int] = []
        # Tells the records since `open` from those that earlier processes have left.
        self._run = 0
        self.part = 0
        self._end = 0
        # How far each file has been written since it was empty.
        self._reach = [0, 0]

    def open(self) -> None:
        """Begin: what the files hold is no longer needed. Raises OSError."""
        make_folder(self._folder)
        try:
            for name in _NAMES:
                self._descriptors.append(_opened(self._folder / name))
            self._run = time.time_ns()
            self.clear()
            sync_folder(self._folder)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files."""
        while self._descriptors:
            with contextlib.suppress(OSError):
                os.close(self._descriptors.pop())

    def has_room(self, bodies: Sequence[bytes]) -> bool:
        """Tell whether these records fit into the file that is written now."""
        return self._end + sum(_HEAD.size + len(body) for body in bodies) <= SEGMENT

    @property
    def fill(self) -> float:
        """How full the file is that is written now, from 0 to 1."""
        return self._end / SEGMENT

    def append(self, first: int, bodies: Sequence[bytes]) -> None:
        """Write records, numbered from `first` on, and sync them. Raises OSError: none may be relied on."""
        content = b"".join(
            part
            for number, body in enumerate(bodies, first)
            for part in (_head(self._run, number, body), body)
        )
        descriptor = self._descriptors[self.part]
        written = 0
        try:
            while written < len(content):
                written += os.pwrite(descriptor, memoryview(content)[written:], self._end + written)
                self._reach[self.part] = max(self._reach[self.part], self._end + written)
            if self._sync:
                os.fdatasync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):  # what was refused is not to come back
                os.ftruncate(descriptor, self._end)
            raise
        self._end += len(content)

    def turn(self) -> int:
        """Go on in the other file, whose records are no longer needed; return the one before."""
        before, self.part = self.part, 1 - self.part
        self._end = 0
        return before

    def renew(self) -> None:
        """Begin anew in new files, after one of these could not be written. Raises OSError."""
        self.close()
        for name in _NAMES:
            (self._folder / name).unlink(missing_ok=True)
        self.open()

    def clear(self) -> None:
        """Empty the files, durably. Raises OSError."""
        for descriptor in self._descriptors:
            os.ftruncate(descriptor, 0)
            if self._sync:
                os.fsync(descriptor)
        self.part = self._end = 0
        self._reach = [0, 0]

    def wipe(self) -> None:
        """Write zeros over the file that is not written now, and no longer needed. Raises OSError.

        It keeps its blocks: a shorter one would have to be made longer again, record by record.
        """
        idle = 1 - self.part
        for offset in range(0, self._reach[idle], _ZEROS):
            os.pwrite(self._descriptors[idle], bytes(min(_ZEROS, self._reach[idle] - offset)), offset)
        if self._sync:
            os.fdatasync(self._descriptors[idle])
        self._reach[idle] = 0


def _opened(path: Path) -> int:
    """Open a file of the journal, or make it. Raises OSError where something else has its name."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, FILE_MODE)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise OSError(errno.EINVAL, "Is a link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return descriptor


def is_left(folder: Path) -> bool:
    """Tell whether the files hold a record."""
    return any(_start(folder / name, len(_MAGIC)) == _MAGIC for name in _NAMES)


def read(folder: Path) -> list[Record]:
    """Return all records that the files hold, in the order of their numbers. Raises OSError."""
    records: list[Record] = []
    for name in _NAMES:
        records += _records(_start(folder / name, SEGMENT))
    return sorted(records, key=lambda record: record.number)


def _start(path: Path, size: int) -> bytes:
    """Return what a file of the journal begins with; nothing where something else has its name."""
    try:
        with open_file(path) as file:
            return file.read(size)
    except OSError as error:
        if error.errno in _NO_FILE:
            return b""
        raise


def _records(content: bytes) -> Iterator[Record]:
    """Yield records up to the first that is not whole or does not follow."""
    view = memoryview(content)
    place, expected = 0, None
    while place + _HEAD.size + _CHECKSUM.size + _LENGTHS.size <= len(content):
        _, run, number, _ = _HEAD.unpack_from(view, place)
        body = place + _HEAD.size
        about = body + _CHECKSUM.size
        facts, length, sha1 = _LENGTHS.unpack_from(view, about)
        begin = about + _LENGTHS.size + facts
        end = begin + length
        if expected not in (None, (run, number)) or view[place:body] != _head(run, number, view[body:]):
            return
        if zlib.crc32(view[about:begin]) != _CHECKSUM.unpack_from(view, body)[0]:
            return
        if hashlib.sha1(view[begin:end], usedforsecurity=False).digest() != sha1:
            return
        yield Record(number, orjson.loads(view[about + _LENGTHS.size : begin]), content[begin:end])
        place, expected = end, (run, number + 1)
