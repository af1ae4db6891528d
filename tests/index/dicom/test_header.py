"""The header reader on data sets made byte by byte: encodings, windows, limits, and what is broken."""

import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from index.dicom.header import read_header
from index.dicom.scanning import byte_window as window
from index.dicom.scanning.scanner import ITEM_LIMIT, SEQUENCE_LIMIT, VALUE_LIMIT
from index.dicom.scanning.structure import NESTING_LIMIT
from index.errors import Unreadable
from index.records import Header
from support.dicom_encoding import (
    BIG,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    SERIES,
    SOP,
    STUDY,
    UIDS,
    UNDEFINED,
    WRITERS,
    Items,
    Writer,
    explicit,
    read_by_pydicom,
)

MODALITY = (0x00080060, "CS", b"CT")
NAME = (0x00100010, "PN", b"Doe^Jane")
CODE = [(0x00080100, "SH", b"T-1 "), (0x00080102, "SH", b"SRT "), (0x00080104, "LO", b"Chest ")]
LABEL = (0x00700080, "CS", b"LABEL ")
ITEM, ITEM_END, SEQUENCE_END = (
    b"\xfe\xff\x00\xe0" + b"\xff" * 4,
    b"\xfe\xff\x0d\xe0" + bytes(4),
    b"\xfe\xff\xdd\xe0" + bytes(4),
)
PIXELS = (0x7FE00010, "OW", bytes(64))


def reader(data: bytes, counted: list[int]) -> Callable[[int, int], bytes]:
    def more(offset: int, length: int) -> bytes:
        found = data[offset : offset + length]
        counted.append(len(found))
        return found

    return more


def in_pieces(data: bytes, syntax: str, head: int) -> Header:
    return read_header(data[:head], syntax, more=reader(data, []), size=len(data))


@pytest.mark.parametrize("syntax", WRITERS)
def test_every_level_in_every_encoding(syntax: str) -> None:
    data = WRITERS[syntax].data_set(
        [
            (0x00080005, "CS", b"ISO_IR 100"),
            (0x00080008, "CS", b"ORIGINAL\\PRIMARY\\AXIAL "),
            (0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.2\0"),
            SOP,
            MODALITY,
            (0x00080201, "SH", b"+0100 "),
            (0x00081032, "SQ", Items([CODE])),
            NAME,
            STUDY,
            SERIES,
            (0x00280010, "US", 512),
            (0x00280100, "US", 16),
            PIXELS,
        ]
    )
    expected = Header(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid="1.2.3.1",
        study_uid="1.2.3.2",
        series_uid="1.2.3.3",
        patient={"PatientName": "Doe^Jane"},
        study={
            "TimezoneOffsetFromUTC": "+0100",
            "ProcedureCodeSequence": [
                {"CodeValue": "T-1", "CodingSchemeDesignator": "SRT", "CodeMeaning": "Chest"}
            ],
        },
        series={"Modality": "CT", "TimezoneOffsetFromUTC": "+0100"},
        instance={"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"], "Rows": "512", "BitsAllocated": "16"},
    )
    assert expected == read_header(data, syntax)
    assert expected == read_by_pydicom(memoryview(data), syntax)


def test_deflated() -> None:
    data = explicit(MODALITY, PIXELS)
    deflated = zlib.compress(data, wbits=-15)
    assert read_header(data, EXPLICIT) == read_header(deflated, DEFLATED)
    assert read_header(data, EXPLICIT) == in_pieces(deflated, DEFLATED, 5)


def test_deflated_in_name_only() -> None:
    data = explicit(MODALITY)
    assert read_header(data, EXPLICIT) == read_header(data, DEFLATED)


def test_deflated_cut_short_is_read_as_far_as_it_goes() -> None:
    noise = random.Random(1).randbytes(100_000)
    deflated = zlib.compress(explicit(MODALITY, (0x00291001, "OB", noise), LABEL), wbits=-15)
    found = read_header(deflated[:50_000], DEFLATED)
    assert ("CT", "1.2.3.1") == (found.series["Modality"], found.sop_instance_uid)
    assert "The deflated data set is cut short" in found.doubts


def test_deflate_bomb_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "INFLATE_LIMIT", 1_000_000)
    data = explicit(MODALITY, (0x00291010, "OB", bytes(20_000_000)), LABEL)
    deflated = zlib.compress(data, wbits=-15)
    tracemalloc.start()
    found = read_header(deflated, DEFLATED)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "1.2.3.1" == found.sop_instance_uid
    assert ("The deflated data set inflates to more than 1000000 bytes") in found.doubts
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("declared", "real"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT), (BIG, EXPLICIT), (EXPLICIT, BIG)]
)
def test_another_encoding_than_declared_is_read_with_a_doubt(declared: str, real: str) -> None:
    data = WRITERS[real].data_set([SOP, NAME, STUDY, SERIES, (0x00280010, "US", 7)])
    found = read_header(data, declared)
    assert ("Doe^Jane", "7") == (found.patient["PatientName"], found.instance["Rows"])
    assert 1 == len(found.doubts)


@pytest.mark.parametrize("syntax", ["1.2.840.113619.5.2", "1.3.6.1.4.1.99999.1"])
def test_private_syntaxes_are_sniffed(syntax: str) -> None:
    implicit = WRITERS[IMPLICIT].data_set([*UIDS[:1], NAME, *UIDS[1:]])
    assert "Doe^Jane" == read_header(implicit, syntax).patient["PatientName"]
    assert () == read_header(implicit, syntax).doubts
    assert "CT" == read_header(explicit(MODALITY), "1.3.6.1.4.1.99999.1").series["Modality"]


@pytest.mark.parametrize("syntax", WRITERS)
def test_megabytes_of_private_elements_are_not_read(syntax: str) -> None:
    blobs = [(0x00290010 + n, "UN", bytes(1_000_000)) for n in range(8)]
    data = WRITERS[syntax].data_set([*UIDS, *blobs, LABEL, PIXELS])
    counted: list[int] = []
    found = read_header(data[:1024], syntax, more=reader(data, counted), size=len(data))
    assert "LABEL" == found.instance["ContentLabel"]
    assert sum(counted) <= 10 * window.WINDOW


@pytest.mark.parametrize("syntax", WRITERS)
def test_any_size_of_head_gives_the_same(syntax: str) -> None:
    sequence = Items([CODE, CODE], open=True, open_items=True)
    data = WRITERS[syntax].data_set(
        [SOP, MODALITY, (0x00081032, "SQ", sequence), NAME, STUDY, SERIES, PIXELS]
    )
    whole = read_header(data, syntax)
    assert 2 == len(whole.study["ProcedureCodeSequence"])
    assert [whole] * len(data) == [in_pieces(data, syntax, head) for head in range(len(data))]


@pytest.mark.parametrize("small", [12, 40])
def test_values_across_windows(small: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "WINDOW", small)
    blob = (0x00091001, "UN", bytes(100))
    nested = (
        0x00091002,
        "SQ",
        Items([[(0x00091003, "SQ", Items([CODE], open=True))]], open=True, open_items=True),
    )
    data = explicit(MODALITY, blob, nested, NAME, (0x00081032, "SQ", Items([CODE], open=True)), LABEL)
    assert read_header(data, EXPLICIT) == in_pieces(data, EXPLICIT, 10)


def test_un_sequences_hold_implicit_items() -> None:
    for is_open in (True, False):
        data = explicit(
            (0x00081032, "UN", Items([CODE], open=is_open)), (0x00091001, "UN", Items([CODE], open=True))
        )
        assert "T-1" == read_header(data, EXPLICIT).study["ProcedureCodeSequence"][0]["CodeValue"]


def test_frame_anatomy_of_an_enhanced_object() -> None:
    anatomy = [(0x00082218, "SQ", Items([CODE])), (0x00209072, "CS", b"L ")]
    shared = Items([[(0x00209071, "SQ", Items([anatomy]))]], open=True, open_items=True)
    data = explicit((0x00280008, "IS", b"2 "), (0x52009229, "SQ", shared), PIXELS)
    found = read_header(data, EXPLICIT).series
    assert ("L", "Chest") == (found["ImageLaterality"], found["AnatomicRegionSequence"][0]["CodeMeaning"])


def test_missing_uids_are_empty() -> None:
    found = read_header(Writer().data_set([MODALITY, NAME, PIXELS]), EXPLICIT)
    assert ("", "", "", "") == (
        found.sop_class_uid,
        found.sop_instance_uid,
        found.study_uid,
        found.series_uid,
    )
    assert ("", ()) == (read_header(b"", EXPLICIT).study_uid, read_header(b"", EXPLICIT).doubts)


def test_cut_anywhere_before_the_uids_is_unreadable() -> None:
    data = Writer().data_set([SOP, MODALITY, STUDY, SERIES])
    boundaries = {0, 16, 26, 42}
    for end in set(range(len(data))) - boundaries:
        with pytest.raises(Unreadable, match="as far as its UIDs"):
            read_header(data[:end], EXPLICIT)


def test_cut_after_the_uids_is_a_doubt() -> None:
    data = explicit(MODALITY, LABEL)
    found = read_header(data[:-3], EXPLICIT)
    assert ("CT", False) == (found.series["Modality"], "ContentLabel" in found.instance)
    assert ("The data set cannot be read to its end: it ends within an element",) == found.doubts


@pytest.mark.parametrize("between", [(), ((0x00880140, "UI", b"1.2\0"), (0x60003000, "OW", bytes(40_000)))])
def test_truncated_pixel_data_is_a_doubt(between: tuple[tuple[int, str, bytes], ...]) -> None:
    data = explicit(MODALITY, *between, PIXELS)
    assert () == read_header(data, EXPLICIT).doubts
    found = read_header(data[:200], EXPLICIT, more=reader(data[:-1], []), size=len(data) - 1)
    assert ("The data set is truncated",) == found.doubts


@pytest.mark.parametrize("length", [0xFFFFFFFE, 0x7FFFFFFF, 1000])
def test_absurd_lengths(length: int) -> None:
    broken = Writer().element(0x00091001, "OB", b"abcd", length)
    data = Writer().data_set(UIDS[:1]) + broken
    with pytest.raises(Unreadable):
        read_header(data, EXPLICIT)
    assert "1.2.3.2" == read_header(explicit() + broken, EXPLICIT).study_uid


def test_out_of_order_is_tolerated() -> None:
    data = Writer().data_set([LABEL, STUDY, SERIES, (0x00880140, "UI", b"1.2\0"), NAME, SOP, PIXELS])
    found = read_header(data, EXPLICIT)
    assert ("Doe^Jane", "LABEL", "1.2.3.1") == (
        found.patient["PatientName"],
        found.instance["ContentLabel"],
        found.sop_instance_uid,
    )
    assert ("Elements are out of order",) == found.doubts == read_by_pydicom(data, EXPLICIT).doubts


def test_deep_nesting_is_bounded() -> None:
    def nested(depth: int) -> bytes:
        value = b""
        for _ in range(depth):
            value = value and Writer().element(0x00091001, "SQ", value, UNDEFINED)
            value = ITEM + value + ITEM_END + SEQUENCE_END
        return explicit() + Writer().element(0x00211001, "SQ", value, UNDEFINED) + Writer().element(*LABEL)

    assert "LABEL" == read_header(nested(NESTING_LIMIT - 1), EXPLICIT).instance["ContentLabel"]
    beyond = read_header(nested(5000), EXPLICIT)
    assert ("1.2.3.1", False) == (beyond.sop_instance_uid, "ContentLabel" in beyond.instance)
    assert (
        f"The data set cannot be read to its end: sequences nest deeper than {NESTING_LIMIT}",
    ) == beyond.doubts


@pytest.mark.parametrize("is_open", [True, False])
def test_too_many_elements(*, is_open: bool) -> None:
    tiny = [(0x00091001, "LO", b"")] * (window.ELEMENT_LIMIT + 1)
    inner = [(0x00211001, "SQ", Items([tiny], open=True, open_items=True))] if is_open else [*tiny]
    data = explicit() + Writer().data_set(inner)
    found = read_header(data, EXPLICIT)
    assert "1.2.3.1" == found.sop_instance_uid
    assert any(f"more than {window.ELEMENT_LIMIT} elements" in doubt for doubt in found.doubts)


def test_long_values_are_left_out() -> None:
    title = (0x00081030, "UT", b"x" * (VALUE_LIMIT + 1))
    codes = (0x00081032, "SQ", Items([[(0x00080104, "LO", b"x" * 1000)] * (SEQUENCE_LIMIT // 1000)]))
    data = explicit(title, codes, LABEL)
    for found in (read_header(data, EXPLICIT), read_by_pydicom(data, EXPLICIT)):
        assert ({}, "LABEL") == (found.study, found.instance["ContentLabel"])
        assert (
            "StudyDescription is left out: it is longer than the limit",
            "ProcedureCodeSequence is left out: it is longer than the limit",
        ) == found.doubts


def test_too_many_items() -> None:
    data = explicit((0x00081032, "SQ", Items([CODE] * (ITEM_LIMIT + 1))), LABEL)
    for found in (read_header(data, EXPLICIT), read_by_pydicom(data, EXPLICIT)):
        assert ITEM_LIMIT == len(found.study["ProcedureCodeSequence"])
        assert 1 == len(found.doubts)


def test_wrong_vrs_and_broken_sequences_are_left_out() -> None:
    data = explicit(
        (0x00081030, "SQ", Items([CODE])),
        (0x00081032, "SQ", b"no items"),
        (0x00081060, "OB", b"abcd"),
        (0x00280010, "FD", bytes(8)),
        LABEL,
    )
    for found in (read_header(data, EXPLICIT), read_by_pydicom(data, EXPLICIT)):
        assert ({}, {"ContentLabel": "LABEL"}) == (found.study, found.instance)
        assert (
            "StudyDescription is left out: its VR is SQ",
            "ProcedureCodeSequence is left out: an item is broken",
            "NameOfPhysiciansReadingStudy is left out: its VR is OB",
            "Rows is left out: its VR is FD",
        ) == found.doubts


def test_garbage_is_unreadable() -> None:
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"\x08\x00" * 50):
        with pytest.raises(Unreadable):
            read_header(garbage, EXPLICIT)
