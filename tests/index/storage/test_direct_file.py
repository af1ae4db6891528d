"""Files written past the page cache hold what was written to them, wherever the pieces end."""

import errno
import fcntl
import hashlib
import os
import random
from pathlib import Path

import pytest

from index.storage.direct_file import BLOCK, CHUNK, KEPT, LEAST, DirectFile, _buffers

SIZES = [0, 1, BLOCK - 1, BLOCK, LEAST - 1, LEAST, LEAST + 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 4097]


def write(path: Path, size: int) -> None:
    """Write random bytes in random pieces; check what is there."""
    content = random.randbytes(size)
    file = DirectFile(str(path))
    at = 0
    while at < size:
        piece = random.choice((1, 1000, BLOCK, 100_000, CHUNK, 3 * CHUNK))
        file.write(memoryview(content)[at : at + piece])
        at += piece
    file.close(sync=True)
    assert content == path.read_bytes()
    assert hashlib.sha1(content, usedforsecurity=False).digest() == file.sha1.digest()


@pytest.mark.parametrize("size", SIZES)
def test_all_sizes(tmp_path: Path, size: int) -> None:
    write(tmp_path / "file", size)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_system_that_cannot(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    write(tmp_path / "file", size)


@pytest.mark.parametrize("size", [LEAST, CHUNK + 1, 2 * CHUNK + 4097])
def test_a_disk_with_larger_blocks(tmp_path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.write

    def picky(descriptor: int, content: memoryview) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain(descriptor, content)

    monkeypatch.setattr(os, "write", picky)
    write(tmp_path / "file", size)


@pytest.mark.parametrize("most", [BLOCK, 5000])
def test_writes_that_are_cut_short(tmp_path: Path, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: plain(descriptor, content[:most]))
    write(tmp_path / "file", LEAST + 12345)


def test_it_can_be_read_before_its_end(tmp_path: Path) -> None:
    content = random.randbytes(CHUNK + LEAST + 7)
    file = DirectFile(str(tmp_path / "file"))
    file.write(content)
    assert content[CHUNK - 5 : CHUNK + 5] == file.read(CHUNK - 5, 10)
    assert content[-3:] == file.read(len(content) - 3, 100)
    file.close(sync=False)
    assert content == (tmp_path / "file").read_bytes()


def test_a_full_disk_is_told_and_the_memory_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for number in range(3 * KEPT):
        file = DirectFile(str(tmp_path / str(number)))
        with pytest.raises(OSError, match="No space"):
            file.write(bytes(CHUNK))
        file.abandon()
        file.abandon()
    assert 0 < len(_buffers._free) <= KEPT
