"""The journal gives back what was synced, whatever else stands in its files."""

import hashlib
import os
import random
from pathlib import Path

import pytest

from index.storage import journal
from index.storage.journal import Journal, encode, is_left, read


def body(number: int, size: int = 50) -> bytes:
    content = bytes([number % 256]) * size
    return encode(
        {"path": f"objects/{number:04}"}, content, hashlib.sha1(content, usedforsecurity=False).digest()
    )


def opened(folder: Path) -> Journal:
    one = Journal(folder, sync=True)
    one.open()
    return one


def numbers(folder: Path) -> list[int]:
    records = read(folder)
    for record in records:
        assert {"path": f"objects/{record.number:04}"} == record.facts
        assert {record.number % 256} == set(record.content)
    return [record.number for record in records]


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    assert not is_left(tmp_path / "journal")
    one = opened(tmp_path / "journal")
    assert not is_left(tmp_path / "journal")
    one.append(7, [body(7), body(8, 1000)])
    one.append(9, [body(9)])
    assert 0 == one.turn()
    one.append(10, [body(10)])
    assert is_left(tmp_path / "journal")
    assert [7, 8, 9, 10] == numbers(tmp_path / "journal")
    one.clear()
    assert not is_left(tmp_path / "journal")
    assert [] == numbers(tmp_path / "journal")


def test_a_part_is_written_over(tmp_path: Path) -> None:
    """Records of one size lie where those of the turn before lay: their numbers and their run tell them."""
    one = opened(tmp_path)
    one.append(1, [body(number) for number in range(1, 11)])
    one.turn()
    one.append(11, [body(number) for number in range(11, 14)])
    one.turn()
    one.append(14, [body(number) for number in range(14, 17)])
    assert [11, 12, 13, 14, 15, 16] == numbers(tmp_path)
    one.close()
    other = opened(tmp_path)
    # Behind record 3 of this run lies record 4 of the first one.
    other.append(1, [body(number) for number in range(1, 4)])
    assert [1, 2, 3] == numbers(tmp_path)


def test_what_is_torn_ends_it(tmp_path: Path) -> None:
    one = opened(tmp_path)
    bodies = [body(number) for number in range(1, 6)]
    one.append(1, bodies)
    path = tmp_path / "0"
    whole = path.read_bytes()
    size = len(whole) // 5
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        assert list(range(1, cut // size + 1)) == numbers(tmp_path)
    for _ in range(200):
        at, bit = random.randrange(len(whole)), 1 << random.randrange(8)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        assert list(range(1, at // size + 1)) == numbers(tmp_path)


def test_what_could_not_be_synced_goes_with_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = opened(tmp_path)
    one.append(1, [body(1)])

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError, match="Input/output"):
            one.append(2, [body(2), body(3)])
    # What was refused does not come back after a crash.
    assert [1] == numbers(tmp_path)
    one.renew()
    assert [] == numbers(tmp_path)
    one.append(4, [body(4)])
    assert [4] == numbers(tmp_path)


def test_its_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "SEGMENT", 1000)
    one = opened(tmp_path)
    assert one.has_room([body(1)] * 5)
    assert not one.has_room([body(1)] * 10)
    one.append(1, [body(number) for number in range(1, 6)])
    assert not one.has_room([body(1)] * 5)
    one.turn()
    assert one.has_room([body(1)] * 5)
