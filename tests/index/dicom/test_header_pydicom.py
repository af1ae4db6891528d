"""The plain scan and pydicom give the same Header: over pydicom's own files and over generated data sets."""

import zlib
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import data_store
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filereader import read_preamble
from pydicom.multival import MultiValue
from pydicom.uid import ExplicitVRBigEndian

from index.dicom.attributes import KIND_OF_VR, WANTED, Attribute, Kind
from index.dicom.header import read_header
from index.errors import Unreadable
from index.records import Header
from support.dicom_encoding import BIG, DEFLATED, EXPLICIT, IMPLICIT, UIDS, WRITERS, Items, read_by_pydicom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@cache
def part_10_files() -> tuple[Path, ...]:
    roots = (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent)
    files = sorted(path for root in roots for path in root.rglob("*") if path.is_file())
    return tuple(path for path in files if path.read_bytes()[128:132] == b"DICM")


def data_set(path: Path) -> tuple[bytes, str]:
    """The bytes of the data set, and its transfer syntax."""
    with path.open("rb") as file:
        read_preamble(file, force=False)
        meta = pydicom.filereader._read_file_meta_info(file)
        return file.read(), str(meta.get("TransferSyntaxUID", ""))


def answer(read: Any, data: bytes, syntax: str) -> Header | str:
    try:
        return read(data, syntax)
    except Unreadable:
        return "unreadable"


def test_there_are_files() -> None:
    assert len(part_10_files()) > 250


@pytest.mark.parametrize("path", part_10_files(), ids=lambda path: path.name)
def test_same_answer_over_all_files(path: Path) -> None:
    data, syntax = data_set(path)
    assert answer(read_by_pydicom, data, syntax) == answer(read_header, data, syntax)


def test_the_scan_itself_reads_the_files(monkeypatch: pytest.MonkeyPatch) -> None:
    fallen: list[Path] = []
    for path in part_10_files():
        monkeypatch.setattr(
            "index.dicom.scanning.pydicom_scanner.collect", lambda *_args, path=path: fallen.append(path)
        )
        data, syntax = data_set(path)
        answer(read_header, data, syntax)
    assert [] == fallen


@pytest.mark.parametrize("path", part_10_files(), ids=lambda path: path.name)
def test_values_are_those_that_pydicom_decodes(path: Path) -> None:
    data, syntax = data_set(path)
    found = answer(read_header, data, syntax)
    if isinstance(found, str) or found.doubts:
        return
    decoded = pydicom.dcmread(path, stop_before_pixels=True)
    shared = "SharedFunctionalGroupsSequence" in decoded  # whose anatomy another test looks at
    for attribute in WANTED.values():
        if shared and attribute.keyword in {"AnatomicRegionSequence", "ImageLaterality"}:
            continue
        for level in attribute.levels:
            assert expected(decoded, attribute) == getattr(found, level).get(attribute.keyword), (
                attribute.keyword
            )


def expected(decoded: Dataset, attribute: Attribute) -> Any:
    """What pydicom makes of the attribute, in our terms: None where it is absent."""
    value = decoded.get(attribute.keyword)
    if attribute.kind is Kind.SEQUENCE:
        items = [
            {
                child.keyword: inner
                for child in attribute.items.values()
                if child.levels or child.keyword != "SpecificCharacterSet"
                if (inner := expected(item, child)) is not None
            }
            for item in value or ()
        ]
        return [item for item in items if item] or None
    if attribute.many:
        values = value if isinstance(value, MultiValue) else [value]
        return [text for one in values if one and (text := plain(one, attribute))] or None
    return (plain(value, attribute) or None) if value is not None else None


def plain(value: Any, attribute: Attribute) -> str:
    text = str(getattr(value, "original_string", None) or value).strip(" \0")
    if attribute.kind is Kind.NAME:
        text = "=".join(group.rstrip("^ ") for group in str(value).split("=")).rstrip("=")
    return text


# Generated data sets ------------------------------------------------------------------------------------

CHARSETS = [
    b"",
    b"ISO_IR 100",
    b"ISO_IR 192",
    b"\\ISO 2022 IR 87",
    b"\\ISO 2022 IR 149",
    b"GB18030",
    b"ISO_IR 999",
]
TEXTS = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [
            "Müller^Jörg".encode("latin_1"),
            "Wang^XiaoDong=王^小东".encode("gb18030"),
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=",
            b"A\\B",
            b" padded \0",
            b"12 ",
            b"",
        ]
    ),
)


def evened(value: bytes) -> bytes:
    return value + b" " * (len(value) % 2)


def values(attribute: Attribute) -> st.SearchStrategy[Any]:
    if attribute.kind is Kind.SEQUENCE:
        items = st.lists(elements(attribute.items, 3), max_size=2)
        return st.builds(Items, items, st.booleans(), st.booleans())
    if attribute.kind is Kind.NUMBER:
        return st.integers(0, 65535)
    if attribute.keyword == "SpecificCharacterSet":
        return st.sampled_from(CHARSETS).map(evened)
    return TEXTS.map(evened)


def elements(table: Any, most: int) -> st.SearchStrategy[Any]:
    attribute = st.sampled_from(sorted(table.values(), key=lambda one: one.tag))

    def element(one: Attribute) -> st.SearchStrategy[Any]:
        vrs = [one.vr]
        if one.keyword != "SpecificCharacterSet":
            vrs += [one.vr, "UN"]
        if one.keyword != "SpecificCharacterSet" and one.kind in (Kind.CODE, Kind.TEXT):
            vrs += [vr for vr, kind in KIND_OF_VR.items() if kind in (Kind.CODE, Kind.TEXT)]
        return st.tuples(st.just(one.tag), st.sampled_from(vrs), values(one))

    chosen = st.lists(attribute.flatmap(element), max_size=most, unique_by=lambda one: one[0])
    return chosen.map(lambda found: sorted(found, key=lambda one: one[0]))


private = st.recursive(
    st.tuples(
        st.sampled_from([0x00091001, 0x00191002, 0x00291003]),
        st.sampled_from(["OB", "UN", "LO"]),
        st.binary(max_size=30).map(evened),
    ),
    lambda inner: st.tuples(
        st.sampled_from([0x00091004, 0x00291005]),
        st.sampled_from(["SQ", "UN"]),
        st.builds(Items, st.lists(st.lists(inner, max_size=2), max_size=2), st.booleans(), st.booleans()),
    ),
    max_leaves=4,
)


@st.composite
def data_sets(draw: Any) -> list[tuple[int, str, Any]]:
    wanted = {element[0]: element for element in draw(elements(WANTED, 12))}
    hidden = {element[0]: element for element in draw(st.lists(private, max_size=3))}
    pixels = [(0x7FE00010, "OW", bytes(20))] if draw(st.booleans()) else []
    whole = {**wanted, **hidden, **{uid[0]: uid for uid in UIDS}}
    return [*(whole[tag] for tag in sorted(whole)), *pixels]


def without_unknown_sequences(elements: Any) -> list[tuple[int, str, Any]]:
    return [
        (tag, "SQ", replace(value, items=[without_unknown_sequences(item) for item in value.items]))
        if isinstance(value, Items)
        else (tag, vr, value)
        for tag, vr, value in elements
    ]


@given(data_sets(), st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED]))
@settings(max_examples=300, deadline=None)
def test_same_answer_over_generated_data_sets(whole: list[tuple[int, str, Any]], syntax: str) -> None:
    if syntax == BIG:  # pydicom takes the items of UN for big endian
        whole = without_unknown_sequences(whole)
    if syntax == DEFLATED:
        data = zlib.compress(WRITERS[EXPLICIT].data_set(whole), wbits=-15)
    else:
        data = WRITERS[syntax].data_set(whole)
    found = read_header(data, syntax)
    assert "1.2.3.1" == found.sop_instance_uid
    assert read_by_pydicom(data, syntax) == found


@given(data_sets())
@settings(max_examples=150, deadline=None)
def test_every_encoding_says_the_same(whole: list[tuple[int, str, Any]]) -> None:
    plainly = [(tag, WANTED[tag].vr if tag in WANTED else vr, value) for tag, vr, value in whole]
    found = [read_header(WRITERS[syntax].data_set(plainly), syntax) for syntax in (IMPLICIT, EXPLICIT, BIG)]
    assert found[:1] * 3 == found


@given(data_sets(), st.sampled_from([IMPLICIT, EXPLICIT, BIG]), st.data())
@settings(max_examples=200, deadline=None)
def test_cut_or_garbled_never_escapes(whole: list[tuple[int, str, Any]], syntax: str, choice: Any) -> None:
    data = bytearray(WRITERS[syntax].data_set(whole))
    place = choice.draw(st.integers(0, len(data) - 1))
    if choice.draw(st.booleans()):
        del data[place:]
    else:
        data[place] = choice.draw(st.integers(0, 255))
    for read in (read_header, read_by_pydicom):
        assert isinstance(answer(read, bytes(data), syntax), Header | str)


@given(st.binary(max_size=200), st.sampled_from([IMPLICIT, EXPLICIT, BIG, DEFLATED, "1.2.3"]))
@settings(max_examples=300, deadline=None)
def test_noise_never_escapes(data: bytes, syntax: str) -> None:
    assert isinstance(answer(read_header, data, syntax), Header | str)


def test_big_endian_is_what_pydicom_calls_it() -> None:
    assert str(ExplicitVRBigEndian) == BIG
