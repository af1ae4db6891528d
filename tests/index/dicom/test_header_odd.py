"""Data sets that no writer should make and the field sends: VRs that are none, group 0002, elements twice.

Each names where it was seen. The right value is what DCMTK or pydicom reads, or what the standard says.
"""

import contextlib
import zlib
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.dicom.header import read_header
from index.dicom.scanning import pydicom_scanner as fallback
from index.dicom.scanning import structure
from index.dicom.scanning.byte_window import ELEMENT_LIMIT, ByteWindow
from index.dicom.scanning.encodings import (
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    BrokenEncoding,
    Doubts,
    Encoding,
    Raw,
)
from index.dicom.scanning.scanner import NO_VR
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

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
META = "The data set begins with File Meta Information"
NAME = (0x00100010, "PN", b"Doe^Jane")
LABEL = (0x00700080, "CS", b"LABEL ")
PIXELS = (0x7FE00010, "OW", bytes(64))
CODE = [(0x00080100, "SH", b"T-1 "), (0x00080102, "SH", b"SRT "), (0x00080104, "LO", b"Chest ")]
PROCEDURE = 0x00081032
ORDERS = {EXPLICIT: "<", BIG: ">"}


def told(header: Header) -> tuple[str, str, str, Any, Any]:
    """What stands before and behind an odd element."""
    return (
        header.sop_instance_uid,
        header.study_uid,
        header.series_uid,
        header.patient.get("PatientName"),
        header.instance.get("ContentLabel"),
    )


WHOLE = ("1.2.3.1", "1.2.3.2", "1.2.3.3", "Doe^Jane", "LABEL")


def around(odd: bytes, syntax: str = EXPLICIT) -> bytes:
    """A data set with these bytes between its group 0008 and its group 0010."""
    writer = WRITERS[syntax]
    return writer.data_set([SOP]) + odd + writer.data_set([NAME, STUDY, SERIES, LABEL, PIXELS])


# PS3.5 Section 6.2: a VR is two capital letters. "??" and blanks are DCMTK's and older writers' for unknown,
# eight bits are pydicom issue 1305.
NO_VRS = [b"??", b"  ", b"\0\0", b"lo", b"\xba\x01", b"Lo", b"--", b"\xff\xff", b"1\0", b"ZZ", b"QQ"]


@pytest.mark.parametrize("syntax", ORDERS)
@pytest.mark.parametrize("vr", NO_VRS)
@pytest.mark.parametrize("value", [b"", b"AB", b"\0\0", b"LONGER TEXT ", bytes(300)])
@pytest.mark.parametrize("tag", [0x00091001, 0x00081070])
def test_a_vr_that_is_none_with_a_short_length(syntax: str, vr: bytes, value: bytes, tag: int) -> None:
    odd = pack(ORDERS[syntax] + "HH2sH", tag >> 16, tag & 0xFFFF, vr, len(value)) + value
    found = read_header(around(odd, syntax), syntax)
    assert WHOLE == told(found)
    assert (NO_VR,) == tuple(doubt for doubt in found.doubts if "OperatorsName" not in doubt)


@pytest.mark.parametrize("syntax", ORDERS)
@pytest.mark.parametrize("vr", NO_VRS)
@pytest.mark.parametrize("value", [b"AB", b"LONGER TEXT ", bytes(70_000)])
def test_a_vr_that_is_none_with_a_long_length(syntax: str, vr: bytes, value: bytes) -> None:
    """As VRs to come will have (PS3.5 Section 7.1.2)."""
    odd = pack(ORDERS[syntax] + "HH2sHI", 0x0009, 0x1001, vr, 0, len(value)) + value
    found = read_header(around(odd, syntax), syntax)
    assert (WHOLE, (NO_VR,)) == (told(found), found.doubts)


@pytest.mark.parametrize("length", [0, 4, 0x2020, 0x200A, 0x4F4F, 70_000])
@pytest.mark.parametrize("tag", [0x00080000, 0x00091001, 0x00081030])
def test_an_element_without_a_vr_in_an_explicit_data_set(tag: int, length: int) -> None:
    """fo-dicom issue 1847: its length reads as a blank VR."""
    odd = Writer(explicit=False).element(tag, "", b"x" * length)
    found = read_header(around(odd), EXPLICIT)
    assert WHOLE == told(found)
    assert NO_VR in found.doubts or length == 0x4F4F  # which reads as the VR "OO" of an empty value


def test_what_the_odd_element_says_is_kept() -> None:
    for vr in (b"??", b"  ", b"\0\0", b"lo"):
        odd = pack("<HH2sH", 0x0008, 0x1030, vr, 4) + b"Head"
        assert "Head" == read_header(around(odd), EXPLICIT).study["StudyDescription"]


def test_the_uids_themselves_without_a_vr() -> None:
    data = Writer().data_set([SOP])
    for tag, value in ((0x0020000D, b"1.2.3.2\0"), (0x0020000E, b"1.2.3.3\0")):
        data += pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"??", len(value)) + value
    found = read_header(data + Writer().data_set([PIXELS]), EXPLICIT)
    assert ("1.2.3.2", "1.2.3.3") == (found.study_uid, found.series_uid)


def test_the_first_element_without_a_vr() -> None:
    for odd in (pack("<HH2sH", 8, 8, b"??", 6) + b"MADE\\X", pack("<HHI", 8, 8, 6) + b"MADE\\X"):
        found = read_header(odd + explicit(NAME, LABEL, PIXELS), EXPLICIT)
        assert (WHOLE, ["MADE", "X"]) == (told(found), found.instance["ImageType"])


def test_many_elements_with_vrs_that_are_none() -> None:
    odd = b"".join(pack("<HH2sH", 9, 0x1000 + n, NO_VRS[n % len(NO_VRS)], 2) + b"v " for n in range(2000))
    found = read_header(around(odd), EXPLICIT)
    assert (WHOLE, (NO_VR,)) == (told(found), found.doubts)


def test_implicit_from_some_element_on() -> None:
    """fo-dicom issue 581."""
    tail = Writer(explicit=False).data_set([NAME, STUDY, SERIES, LABEL, PIXELS])
    found = read_header(Writer().data_set([SOP]) + tail, EXPLICIT)
    assert (WHOLE, (NO_VR,)) == (told(found), found.doubts)


def test_items_with_vrs_that_are_none() -> None:
    item = pack("<HH2sH", 8, 0x0100, b"??", 4) + b"T-1 " + Writer().data_set(CODE[1:])
    for is_open in (False, True):
        length, end = (UNDEFINED, b"\xfe\xff\x0d\xe0" + bytes(4)) if is_open else (len(item), b"")
        value = b"\xfe\xff\x00\xe0" + pack("<I", length) + item + end + b"\xfe\xff\xdd\xe0" + bytes(4)
        for tag in (PROCEDURE, 0x00091010):
            odd = Writer().header(tag, "SQ", UNDEFINED) + value
            found = read_header(around(odd), EXPLICIT)
            assert WHOLE == told(found)
            if tag == PROCEDURE:
                code = {"CodeValue": "T-1", "CodingSchemeDesignator": "SRT", "CodeMeaning": "Chest"}
                assert [code] == found.study["ProcedureCodeSequence"]


# VR UN (PS3.5 Section 6.2.2, CP-246): its value is Implicit VR Little Endian in every transfer syntax.


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG, DEFLATED, JPEG_LOSSLESS])
@pytest.mark.parametrize("opened", [(True, True), (True, False), (False, True), (False, False)])
def test_unknown_sequences(syntax: str, opened: tuple[bool, bool]) -> None:
    inner = [*CODE, (0x00091002, "SQ", Items([CODE], open=True, open_items=True))]
    sequences = [(tag, "UN", Items([inner, inner], *opened)) for tag in (PROCEDURE, 0x00091010)]
    writer = WRITERS.get(syntax, WRITERS[EXPLICIT])
    data = writer.data_set([SOP, *sequences, NAME, STUDY, SERIES, LABEL, PIXELS])
    found = read_header(zlib.compress(data, wbits=-15) if syntax == DEFLATED else data, syntax)
    assert (WHOLE, ()) == (told(found), found.doubts)
    assert ["T-1", "T-1"] == [item["CodeValue"] for item in found.study["ProcedureCodeSequence"]]


def test_unknown_sequences_in_an_item_in_big_endian() -> None:
    unknown = (0x00091002, "UN", Items([CODE], open=True))
    sequence = (0x00091010, "SQ", Items([[unknown]], open=True, open_items=True))
    found = read_header(WRITERS[BIG].data_set([SOP, sequence, NAME, STUDY, SERIES, LABEL, PIXELS]), BIG)
    assert WHOLE == told(found)


def test_numbers_of_vr_un_in_big_endian() -> None:
    data = WRITERS[BIG].data_set([*UIDS, (0x00280010, "UN", 512), (0x00280011, "US", 256)])
    for read in (read_header, read_by_pydicom):
        found = read(data, BIG).instance
        assert ("512", "256") == (found["Rows"], found["Columns"])


def test_unknown_sequences_with_items_as_the_data_set_is_encoded() -> None:
    for syntax in (EXPLICIT, BIG):
        writer = WRITERS[syntax]
        items = writer.value(Items([CODE], open=True))
        odd = writer.header(PROCEDURE, "UN", UNDEFINED) + items
        found = read_header(around(odd, syntax), syntax)
        assert (WHOLE, "T-1") == (told(found), found.study["ProcedureCodeSequence"][0]["CodeValue"])


@pytest.mark.parametrize("syntax", WRITERS)
@pytest.mark.parametrize("vr", ["UN", "OB"])
def test_undefined_length_without_items(syntax: str, vr: str) -> None:
    writer = WRITERS[syntax]
    end = writer._bare(0xFFFEE0DD, 0)
    odd = writer.header(0x00091010, vr, UNDEFINED) + b"neither items nor fragments " + end
    assert WHOLE == told(read_header(around(odd, syntax), syntax))


@pytest.mark.parametrize("tag", [PROCEDURE, 0x00091010])
def test_an_item_without_its_delimiter(tag: int) -> None:
    item = b"\xfe\xff\x00\xe0" + pack("<I", UNDEFINED) + Writer().data_set(CODE)
    for count in (1, 2):
        odd = Writer().header(tag, "SQ", UNDEFINED) + item * count + b"\xfe\xff\xdd\xe0" + bytes(4)
        found = read_header(around(odd), EXPLICIT)
        assert WHOLE == told(found)
        assert count == len(found.study.get("ProcedureCodeSequence", [None] * count))


# Group 0002 in a data set, and files sent as data sets (pydicom issues 140, 820, 1740).


def ui(element: int, uid: str, writer: Writer = Writer()) -> bytes:  # noqa: B008  frozen
    value = uid.encode()
    return writer.element(0x00020000 | element, "UI", value + b"\0" * (len(value) % 2))


ENCODED = {
    syntax: writer.data_set([SOP, NAME, STUDY, SERIES, LABEL, PIXELS]) for syntax, writer in WRITERS.items()
}
GROUPS = {
    "a class": ui(0x0003, "1.2.826.9"),
    "another syntax": ui(0x0010, IMPLICIT),
    "a group": ui(0x0010, IMPLICIT) + ui(0x0012, "1.2.40.0.13.0.0.113"),
    "implicit": ui(0x0003, "1.2.826.9", Writer(explicit=False)),
    "big endian": ui(0x0010, IMPLICIT, Writer(little=False)),
    "twice": 2 * (ui(0x0003, "1.2.826.9") + ui(0x0010, EXPLICIT)),
    "private": Writer().element(0x00020102, "OB", bytes(100_000)),
    "undefined length": Writer().element(0x00020102, "SQ", Items([CODE], open=True)),
}


@pytest.mark.parametrize("syntax", ENCODED)
@pytest.mark.parametrize("group", GROUPS)
def test_group_0002_in_a_data_set(group: str, syntax: str) -> None:
    found = read_header(GROUPS[group] + ENCODED[syntax], syntax)
    assert (WHOLE, (META,)) == (told(found), found.doubts)


@pytest.mark.timeout(120)
def test_a_data_set_that_ends_within_group_0002() -> None:
    group = ui(0x0003, "1.2.826.9") + ui(0x0010, EXPLICIT)
    for length in range(1, len(group)):
        with contextlib.suppress(Unreadable):
            assert "" == read_header(group[:length], EXPLICIT).study_uid


@pytest.mark.parametrize("preamble", [bytes(128), b"II*\0" + bytes(124), b""])
@pytest.mark.parametrize("syntax", ENCODED)
def test_a_whole_file_as_data_set(syntax: str, preamble: bytes) -> None:
    group = Writer().element(0x00020001, "OB", b"\0\1") + ui(0x0003, "1.2.3.1") + ui(0x0010, syntax)
    file = preamble + b"DICM" * bool(preamble)
    file += Writer().element(0x00020000, "UL", pack("<I", len(group))) + group + ENCODED[syntax]
    found = read_header(file, syntax)
    assert (WHOLE, (META,)) == (told(found), found.doubts)
    nested = file if preamble else b""
    assert WHOLE == told(read_header(nested + file, syntax))


def test_a_whole_file_of_a_deflated_data_set() -> None:
    deflated = zlib.compress(ENCODED[EXPLICIT], wbits=-15)
    for start in (bytes(128) + b"DICM" + ui(0x0010, DEFLATED), ui(0x0010, DEFLATED)):
        for syntax in (DEFLATED, EXPLICIT):
            found = read_header(start + deflated, syntax)
            assert (WHOLE, (META,)) == (told(found), found.doubts)


def test_group_0002_within_the_deflated_bytes() -> None:
    deflated = zlib.compress(GROUPS["a group"] + ENCODED[EXPLICIT], wbits=-15)
    found = read_header(deflated, DEFLATED)
    assert (WHOLE, (META,)) == (told(found), found.doubts)


def test_a_value_that_reads_dicm_where_a_prefix_would_stand() -> None:
    data = explicit((0x00081030, "LO", b"x" * 88 + b"DICM\x02\0xx"), NAME, LABEL, PIXELS)
    at = data.index(b"DICM")
    data = explicit((0x00081030, "LO", b"x" * (88 + 128 - at) + b"DICM\x02\0"), NAME, LABEL, PIXELS)
    assert (128, WHOLE) == (data.index(b"DICM"), told(read_header(data, EXPLICIT)))


# Elements that stand twice: the first counts, as DCMTK has it.


@pytest.mark.parametrize("syntax", WRITERS)
@pytest.mark.parametrize(
    ("first", "second", "place"),
    [
        (SOP, (SOP[0], "UI", b"1.2.3.9\0"), "sop_instance_uid"),
        (STUDY, (STUDY[0], "UI", b"1.2.3.9\0"), "study_uid"),
        (SERIES, (SERIES[0], "UI", b"1.2.3.9\0"), "series_uid"),
    ],
)
def test_a_uid_twice(syntax: str, first: Any, second: Any, place: str) -> None:
    elements = [SOP, NAME, STUDY, SERIES, LABEL, PIXELS]
    at = elements.index(first) + 1
    later = [*elements[:-1], second, PIXELS]
    for twice in ([*elements[:at], second, *elements[at:]], later):
        data = WRITERS[syntax].data_set(twice)
        for read in (read_header, read_by_pydicom):
            found = read(data, syntax)
            assert (getattr(found, place), WHOLE) == (first[2].rstrip(b"\0").decode(), told(found))
            assert any("stands there twice" in doubt for doubt in found.doubts)


def test_the_same_elements_over_again_change_nothing() -> None:
    other = [(SOP[0], "UI", b"1.2.3.9\0"), (NAME[0], "PN", b"Roe^Jim "), (STUDY[0], "UI", b"1.2.3.8\0")]
    data = Writer().data_set([SOP, NAME, STUDY, SERIES, *other, LABEL, PIXELS])
    assert WHOLE == told(read_header(data, EXPLICIT)) == told(read_by_pydicom(data, EXPLICIT))


def test_an_empty_one_gives_way() -> None:
    data = Writer().data_set([SOP, NAME, (STUDY[0], "UI", b""), STUDY, SERIES, LABEL, PIXELS])
    assert WHOLE == told(read_header(data, EXPLICIT))


@pytest.mark.parametrize("syntax", WRITERS)
@pytest.mark.parametrize("vr", ["UL", "UN"])
def test_group_lengths_anywhere(syntax: str, vr: str) -> None:
    """fo-dicom issue 1941; also behind the group, and not its own length."""
    writer = WRITERS[syntax]
    length = (0x00100000, vr, b"\xff\xff\0\0")
    for place in range(6):
        elements = [SOP, NAME, STUDY, SERIES, LABEL]
        elements.insert(place, length)
        found = read_header(writer.data_set([*elements, PIXELS]), syntax)
        assert WHOLE == told(found)


# Deflated by other names (PS3.6 Table A-1), and with headers that PS3.5 Section A.5 forbids.


@pytest.mark.parametrize("syntax", [DEFLATED, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"])
@pytest.mark.parametrize("form", [(-15, ""), (15, "zlib"), (31, "gzip")])
def test_deflated(syntax: str, form: tuple[int, str]) -> None:
    data = ENCODED[EXPLICIT]
    for level in (0, 1, 6, 9):
        found = read_header(zlib.compress(data, level, wbits=form[0]), syntax)
        assert WHOLE == told(found)
        assert ([form[1]] if form[1] else []) == [doubt.split()[6] for doubt in found.doubts]
    assert (WHOLE, ()) == (told(read_header(data, syntax)), read_header(data, syntax).doubts)


# Nothing takes long.


class Looks(ByteWindow):
    """Counts what is looked at."""

    looks = 0

    def load(self, offset: int, length: int) -> int:
        Looks.looks += 1
        return super().load(offset, length)


@pytest.mark.parametrize(
    "data",
    [
        bytes(8_000_000),
        b"  ab" * 1_000_000,
        b"".join(pack("<HH2sH", 9, n, b"??", 0) for n in range(65_536)) * 4,
        b"\x09\0\x01\x10  \0\0" * 500_000,
        Writer().header(0x00091001, "SQ", UNDEFINED) + b"\xfe\xff\x00\xe0" * 1_000_000,
        Writer().header(0x00091001, "UN", UNDEFINED) + bytes(6_000_000),
        (Writer().header(0x00091001, "UN", UNDEFINED) + b"x" * 100_000) * 20,
        ui(0x0010, EXPLICIT) * 200_000,
        Writer().data_set([SOP]) * 100_000,
    ],
    ids=["zeros", "blanks", "no VRs", "the same again", "items", "no items", "nested", "group 0002", "twice"],
)
def test_every_loop_is_bounded(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue 10: 8 MB of zeros behind a bad VR took 4 s. Bounds are counted, since clocks differ."""
    reads = 0
    spend = fallback._Limits.spend

    def counted(allowance: Any, length: int) -> None:
        nonlocal reads
        reads += 1
        spend(allowance, length)

    monkeypatch.setattr("index.dicom.scanning.pydicom_scanner._Limits.spend", counted)
    monkeypatch.setattr("index.dicom.header.ByteWindow", Looks)
    for start in (b"", Writer().data_set([SOP]), around(b"")[:-76]):
        Looks.looks = reads = 0
        with contextlib.suppress(Unreadable):
            read_header(start + data, EXPLICIT)
        assert reads <= fallback.READS + 1
        assert Looks.looks <= 4 * ELEMENT_LIMIT + 4 * reads


def test_pydicom_is_stopped() -> None:
    raw: Raw = {}
    doubts: Doubts = {}
    data = bytes(8_000_000)
    fault = fallback.collect(ByteWindow(data), 0, EXPLICIT_LITTLE, raw, doubts)
    assert f"pydicom would read more than {fallback.READS} times" == str(fault)
    items = Items([[]] * 30_000)
    long = Writer().data_set([*UIDS[:1], (PROCEDURE, "SQ", items)])
    fault = fallback.collect(ByteWindow(long + Writer().data_set(UIDS[1:])), 0, EXPLICIT_LITTLE, {}, {})
    assert f"pydicom would read more than {fallback.READS} times" == str(fault)


# Noise ----------------------------------------------------------------------------------------------------

odd_vr = st.one_of(st.binary(min_size=2, max_size=2), st.sampled_from([b"UN", b"SQ", b"OB", b"LO", *NO_VRS]))
odd_tag = st.sampled_from(
    [
        0x00020010,
        0x00080018,
        PROCEDURE,
        0x00091001,
        0x00100000,
        0x0020000D,
        0xFFFEE000,
        0xFFFEE00D,
        0xFFFEE0DD,
    ]
)


@st.composite
def odd_elements(draw: Any) -> bytes:
    order = draw(st.sampled_from("<>"))
    tag, vr = draw(odd_tag), draw(odd_vr)
    length = draw(st.sampled_from([0, 2, 8, 0x2020, 0xFFFF, UNDEFINED]) | st.integers(0, 40))
    start = pack(order + "HH", tag >> 16, tag & 0xFFFF)
    form = draw(st.sampled_from(["short", "long", "implicit"]))
    if form == "short":
        start += vr + pack(order + "H", length & 0xFFFF)
    else:
        start += (vr + b"\0\0" if form == "long" else b"") + pack(order + "I", length)
    return start + draw(st.binary(max_size=40))


odd_bytes = st.lists(odd_elements() | st.binary(max_size=20), max_size=8).map(b"".join)


def never_escapes(odd: bytes, syntax: str, encoding: Encoding) -> None:
    writer = WRITERS[syntax if syntax in WRITERS else EXPLICIT]
    for data in (odd, writer.data_set([SOP]) + odd + writer.data_set([NAME, STUDY, SERIES, PIXELS])):
        for sent in (data, zlib.compress(data, wbits=-15)) if syntax == DEFLATED else (data,):
            try:
                assert isinstance(read_header(sent, syntax), Header)
            except Unreadable:
                continue
    try:
        assert structure.skip_sequence(ByteWindow(odd), 0, encoding) >= 0
    except BrokenEncoding:
        return


fuzz = given(
    odd_bytes,
    st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED, "1.2.3"]),
    st.sampled_from([EXPLICIT_LITTLE, EXPLICIT_BIG]),
)


@settings(max_examples=300, deadline=None)
@fuzz
def test_odd_elements_never_escape(odd: bytes, syntax: str, encoding: Encoding) -> None:
    never_escapes(odd, syntax, encoding)


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=100_000, deadline=None, database=None)
@fuzz
def test_many_odd_elements_never_escape(odd: bytes, syntax: str, encoding: Encoding) -> None:
    never_escapes(odd, syntax, encoding)
