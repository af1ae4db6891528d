"""Per-frame functional groups (PS3.3 Section C.7.6.16): every frame's anatomy, in every encoding, bounded."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.dicom.header import read_header
from index.dicom.scanning import byte_window as window
from index.dicom.scanning.scanner import ITEM_LIMIT
from index.records import Header
from support.dicom_encoding import EXPLICIT, IMPLICIT, SERIES, SOP, STUDY, WRITERS, Items, read_by_pydicom

PIXELS = (0x7FE00010, "OW", bytes(64))
SHARED, PER_FRAME, ANATOMY, REGION, SIDE = 0x52009229, 0x52009230, 0x00209071, 0x00082218, 0x00209072
# What stands before and behind the anatomy in an item: MR Timing, and Frame Content.
BEFORE = (0x00189112, "SQ", Items([[(0x00180080, "DS", b"9 ")]], open=True, open_items=True))
BEHIND = (0x00209111, "SQ", Items([[(0x00209157, "UL", bytes(4))]]))


def group(side: bytes, region: bytes = b"Liver ", *, is_open: bool = False) -> list[tuple[int, str, Any]]:
    names = Items([[(0x00080104, "LO", region)]], open=is_open, open_items=is_open)
    anatomy = Items([[(REGION, "SQ", names), (SIDE, "CS", side)]], open=is_open, open_items=is_open)
    return [BEFORE, (ANATOMY, "SQ", anatomy), BEHIND]


def data_set(
    syntax: str, groups: list[list[tuple[int, str, Any]]], shared: Any = (), *, is_open: bool = False
) -> bytes:
    return WRITERS[syntax].data_set(
        [
            SOP,
            STUDY,
            SERIES,
            (0x00280008, "IS", b"2 "),
            (SHARED, "SQ", Items([list(shared)])),
            (PER_FRAME, "SQ", Items(groups, open=is_open, open_items=is_open)),
            PIXELS,
        ]
    )


def both(data: bytes, syntax: str) -> Header:
    found = read_header(data, syntax)
    assert found == read_by_pydicom(data, syntax)
    return found


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("syntax", WRITERS)
def test_frames_of_one_anatomy_say_what_an_image_says(syntax: str, *, is_open: bool) -> None:
    found = both(data_set(syntax, [group(b"L ", is_open=is_open)] * 3, is_open=is_open), syntax)
    assert {
        "ImageLaterality": "L",
        "AnatomicRegionSequence": [{"CodeMeaning": "Liver"}],
    } == found.series
    assert () == found.doubts


@pytest.mark.parametrize("is_open", [False, True])
@pytest.mark.parametrize("syntax", WRITERS)
def test_frames_that_differ_are_all_told(syntax: str, *, is_open: bool) -> None:
    groups = [group(side, is_open=is_open) for side in (b"R ", b"L ", b"R ")]
    found = both(data_set(syntax, groups, is_open=is_open), syntax).series
    assert {"FrameAnatomySequence"} == set(found)
    assert ["L", "R"] == [one["FrameLaterality"] for one in found["FrameAnatomySequence"]]


def test_the_order_of_frames_does_not_matter() -> None:
    one, two = ([group(side) for side in sides] for sides in ((b"R ", b"L "), (b"L ", b"R ")))
    assert read_header(data_set(EXPLICIT, one), EXPLICIT) == read_header(data_set(EXPLICIT, two), EXPLICIT)


def test_a_frame_that_says_nothing_hides_no_other() -> None:
    assert "L" == both(data_set(EXPLICIT, [[BEHIND], group(b"L ")]), EXPLICIT).series["ImageLaterality"]


def test_frames_that_say_another_thing_than_the_image_are_told_beside_it() -> None:
    data = WRITERS[EXPLICIT].data_set(
        [
            *(SOP, STUDY, SERIES, (0x00200062, "CS", b"R "), (0x00280008, "IS", b"1 ")),
            *((SHARED, "SQ", Items([group(b"L ")])), PIXELS),
        ]
    )
    found = both(data, EXPLICIT).series
    assert ("R", "L") == (found["ImageLaterality"], found["FrameAnatomySequence"][0]["FrameLaterality"])


def test_shared_anatomy_is_all_that_is_looked_at() -> None:
    data = data_set(EXPLICIT, [[(ANATOMY, "SQ", b"garbage ")]], group(b"L "))
    found = both(data, EXPLICIT)
    assert ("L", ()) == (found.series["ImageLaterality"], found.doubts)


def reader(data: bytes, counted: list[int]) -> Callable[[int, int], bytes]:
    def more(offset: int, length: int) -> bytes:
        counted.append(length)
        return data[offset : offset + length]

    return more


def test_frames_without_an_anatomy_are_not_read_to_the_end() -> None:
    """A whole slide image has 100,000 frames and no anatomy in any."""
    data = data_set(EXPLICIT, [[BEHIND, (0x0040A043, "UN", bytes(2000))]] * 2000)
    counted: list[int] = []
    found = read_header(data[:1024], EXPLICIT, more=reader(data, counted), size=len(data))
    assert ({}, ()) == (found.series, found.doubts)
    assert sum(counted) < len(data) // 10


@pytest.mark.parametrize("is_open", [False, True])
def test_more_than_can_be_looked_at_says_nothing(monkeypatch: pytest.MonkeyPatch, *, is_open: bool) -> None:
    monkeypatch.setattr(window, "ELEMENT_LIMIT", 100)
    found = read_header(data_set(EXPLICIT, [group(b"L ")] * 60, is_open=is_open), EXPLICIT)
    assert {} == found.series
    assert found.doubts[0].startswith("The anatomy of single frames is left out: ")


def test_more_anatomies_than_are_kept_say_nothing() -> None:
    groups = [group(b"L ", b"%05d " % n) for n in range(ITEM_LIMIT + 1)]
    found = both(data_set(EXPLICIT, groups), EXPLICIT)
    assert {} == found.series
    assert (
        f"The anatomy of single frames is left out: it has more than {ITEM_LIMIT} values",
    ) == found.doubts


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT])
def test_frames_cut_short_say_nothing(syntax: str) -> None:
    whole = data_set(syntax, [group(b"L ")] * 3)
    for end in range(whole.index(b"L "), whole.rindex(b"L ")):
        found = read_header(whole[:end], syntax)
        assert "1.2.3.1" == found.sop_instance_uid
        assert "ImageLaterality" not in found.series
        assert found.doubts


def _any_frames(noise: bytes, at: int) -> None:
    whole = bytearray(data_set(EXPLICIT, [group(b"L "), group(b"R ", is_open=True)], is_open=bool(at % 2)))
    begin = whole.index(b"\x00\x52\x30\x92")
    place = begin + at % (len(whole) - begin)
    whole[place : place + len(noise)] = noise
    assert "1.2.3.1" == read_header(bytes(whole), EXPLICIT).sop_instance_uid


@given(st.binary(max_size=8), st.integers(0, 1000))
@settings(max_examples=200, deadline=None)
def test_damaged_frames_are_read_without_a_fault(noise: bytes, at: int) -> None:
    _any_frames(noise, at)


@pytest.mark.long
@pytest.mark.timeout(7200)
@given(st.binary(max_size=8), st.integers(0, 1000))
@settings(max_examples=100_000, deadline=None)
def test_damaged_frames_long(noise: bytes, at: int) -> None:
    _any_frames(noise, at)
