"""What a thread remembers of the data sets that it has read never changes what it reads of the next."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from index.dicom import header
from index.dicom.header import read_header
from index.dicom.scanning import layout_cache
from index.errors import Unreadable
from index.records import Header
from support.dicom import encoded
from support.dicom_encoding import EXPLICIT, SERIES, STUDY, Items, Writer
from support.sender import SMALL_SIZE, template

Element = tuple[int, str, Any]


def afresh(data: bytes) -> Header | str:
    """Read as a thread that has read nothing before."""
    known, header._caches = header._caches, header._ThreadCaches()
    try:
        return remembering(data)
    finally:
        header._caches = known


def remembering(data: bytes) -> Header | str:
    try:
        return read_header(data, EXPLICIT)
    except Unreadable:
        return "unreadable"


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "_caches", header._ThreadCaches())


def scanner(rng: random.Random, number: int, gap: int) -> Iterator[Element]:
    """A series as a scanner makes it: values differ in length, private ones and sequences are between."""
    yield 0x00080005, "CS", b"ISO_IR 100"
    yield 0x00080018, "UI", f"1.2.3.{1000 + number}\0".encode()
    yield 0x00080020, "DA", b"20260102"
    yield 0x00080033, "TM", f"{number:06}.{'0' * rng.randrange(3)}".encode()
    yield 0x00080060, "CS", b"CT"
    yield 0x00081030, "LO", b"Chest " if rng.random() < 0.9 else b"Chest and more"
    yield 0x00081032, "SQ", Items([[(0x00080100, "SH", b"T-1 ")]], open=rng.random() < 0.2)
    yield 0x00090010, "LO", b"PRIVATE "
    for element in range(0x1001, 0x1020):
        yield 0x00090000 | element, "DS", b"1.5 " * rng.choice((1, 1, 1, 2))
    yield 0x00100010, "PN", b"Doe^Jane"
    yield 0x00100020, "LO", b"P1"
    for element in range(0x50, 0x80):
        if element != gap:
            yield 0x00180000 | element, rng.choice(("DS",) * 20 + ("OB",)), b"12"
    yield STUDY
    yield SERIES
    yield 0x00200013, "IS", str(number).encode() + b" " * (len(str(number)) % 2)
    yield 0x00200032, "DS", b"\\".join([b"%d" % rng.randrange(1000)] * 3)
    for element in range(0x10, 0x60, 2):
        yield 0x00280000 | element, "US", number
    yield 0x7FE00010, "OW", bytes(64)


def test_a_series_with_all_that_differs() -> None:
    rng = random.Random(random.random())
    found = []
    for number in range(300):
        data = Writer().data_set(list(scanner(rng, number, gap=rng.choice((0, 0, 0, 0x60)))))
        found.append(afresh(data))
        assert found[-1] == remembering(data)
    assert 300 == len({one.sop_instance_uid for one in found})


def test_data_sets_that_are_cut_or_changed_anywhere() -> None:
    rng = random.Random(random.random())
    for number in range(600):
        data = bytearray(Writer().data_set(list(scanner(rng, number % 5, gap=0))))
        assert afresh(bytes(data)) == remembering(bytes(data))
        for _ in range(rng.randrange(3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        cut = bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        assert afresh(cut) == remembering(cut)


def test_nearly_all_is_jumped_over(monkeypatch: pytest.MonkeyPatch) -> None:
    source = template(SMALL_SIZE)
    for number in range(3):
        remembering(source.data_set(number))
    steps = []
    follow = layout_cache.LayoutCache.follow

    def counting(*arguments: Any) -> tuple[int, int, int]:
        *others, step = arguments

        def count(*place: int) -> Any:
            steps.append(place)
            return step(*place)

        return follow(*others, count)

    monkeypatch.setattr(layout_cache.LayoutCache, "follow", counting)
    assert afresh(source.data_set(4)) != "unreadable"
    afresh_steps = len(steps)
    steps.clear()
    remembering(source.data_set(5))
    assert afresh_steps > 200
    assert len(steps) < 20


def test_what_is_remembered_is_bounded() -> None:
    rng = random.Random(1)
    for _ in range(500):
        elements = [(0x00200000 | tag, "DS", b"1 " * rng.randrange(9)) for tag in range(0x30, 0x60)]
        remembering(Writer().data_set([(0x00080018, "UI", b"1.2\0"), STUDY, SERIES, *elements]))
        assert len(header._caches.layout_cache._known) <= layout_cache.MOST


def test_equal_attributes_are_the_same_mappings_and_doubts_are_said_each_time() -> None:
    def one(number: int, description: bytes) -> Header:
        data = [
            (0x00080018, "UI", f"1.2.3.{number}\0".encode()),
            (0x00081030, "LO", description),
            STUDY,
            SERIES,
            (0x00200013, "IS", str(number).encode()),
        ]
        read = remembering(Writer().data_set(data))
        assert isinstance(read, Header)
        return read

    first, second = one(10, b"Head"), one(11, b"Head")
    assert first.study is second.study
    assert ("10", "11") == (first.instance["InstanceNumber"], second.instance["InstanceNumber"])
    for number in (12, 13):
        odd = one(number, b"He\x01ad ")
        assert ("StudyDescription has control characters; they are left out",) == odd.doubts
        assert "Head" == odd.study["StudyDescription"]
    assert () == one(14, b"Head").doubts


def test_pydicoms_own_writing_is_followed() -> None:
    import pydicom

    from support.dicom import sample

    dataset = pydicom.dcmread(sample("CT_small.dcm"))
    for number in range(5):
        dataset.InstanceNumber = 10**number
        data = encoded(dataset)
        assert afresh(data) == remembering(data)
