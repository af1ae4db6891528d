"""Media types, multipart bodies and the DICOM JSON Model."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from index.web.dicomweb.formats.dicom_json import JsonEncoder
from index.web.dicomweb.formats.media_types import BadMediaType, accepted, choose
from index.web.dicomweb.formats.multipart import BadMultipart, MultipartReader, Part, PartEnd, multipart
from index.web.dicomweb.formats.native_xml import native_model


def read(data: bytes, cuts: list[int]) -> list[bytes]:
    reader, found = MultipartReader("B"), []
    ends = sorted(min(cut, len(data)) for cut in cuts)
    for start, end in zip([0, *ends], [*ends, len(data)], strict=True):
        for event in reader.feed(data[start:end]):
            if isinstance(event, Part):
                found.append(b"")
            elif not isinstance(event, PartEnd):
                found[-1] += event
    reader.end()
    return found


@given(st.lists(st.binary(max_size=60), max_size=4), st.lists(st.integers(0, 400), max_size=8))
def test_parts_are_read_wherever_the_body_is_cut(contents, cuts):
    body = b"".join(multipart("B", (({"Content-Type": "a/b"}, [one]) for one in contents)))
    assert contents == read(body, cuts)
    assert contents == read(body.lstrip() if contents else body, cuts)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    with contextlib.suppress(BadMultipart):
        read(data, [])
    with contextlib.suppress(BadMultipart):
        read(b"--B\r\n" + data, [3])


@given(st.text(max_size=80))
def test_any_accept_is_read_or_refused(text):
    with contextlib.suppress(BadMediaType):
        accepted([text])


def test_accept():
    ranges = accepted(['a/b;q=0.1, multipart/related; type="image/jp2,x"; transfer-syntax=1.2, c/d; q=0'])
    assert ["multipart/related", "a/b"] == [one.name for one in ranges]
    assert ("image/jp2,x", "1.2") == (ranges[0].content, ranges[0].transfer_syntax)
    assert "x/y" == choose(accepted(["x/*"]), ["a/b", "x/y"])
    assert None is choose(accepted(["x/z"]), ["a/b", "x/y"])
    assert "a/b" == choose(accepted([]), ["a/b"])
    java = accepted(["text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"])
    assert ["text/html", "image/gif", "image/jpeg", "*/*"] == [one.name for one in java]
    with pytest.raises(BadMediaType):
        accepted(["a/b;q=x"])


def test_values_of_every_kind_in_json():
    dataset = Dataset()
    for tag, vr, value in (
        (0x00091001, "DS", ["1.5", "", "x" * 3]), (0x00091002, "IS", "12"), (0x00091003, "FD", float("nan")),
        (0x00091004, "AT", [0x00100010, 0x00100020]), (0x00091005, "PN", "A^B=C=D"),
        (0x00091006, "UV", 2**63),
        (0x00091007, "UT", "a\\b"), (0x00091008, "LO", ["a", "", "b"]), (0x00091009, "OB", b""),
    ):  # fmt: skip
        from pydicom.dataelem import DataElement

        dataset.add(
            DataElement(tag, vr, value, validation_mode=0) if vr != "DS" else DataElement(tag, "LO", value)
        )
    found = JsonEncoder().encode(dataset)
    assert [12] == found["00091002"]["Value"]
    assert ["NaN"] == found["00091003"]["Value"]
    assert ["00100010", "00100020"] == found["00091004"]["Value"]
    assert [{"Alphabetic": "A^B", "Ideographic": "C", "Phonetic": "D"}] == found["00091005"]["Value"]
    assert [str(2**63)] == found["00091006"]["Value"]
    assert ["a\\b"] == found["00091007"]["Value"]
    assert ["a", None, "b"] == found["00091008"]["Value"]
    assert {"vr": "OB"} == found["00091009"]


def test_private_elements_in_xml():
    """PS3.19 Table A.1.5-2: by their creator, not by the block that is its in this data set."""
    dataset = Dataset()
    block = dataset.private_block(0x0009, "A & B", create=True)
    block.add_new(0x12, "LO", "x")
    dataset.add_new(0x000B1001, "LO", "no creator")
    text = native_model(JsonEncoder().encode(dataset)).decode()
    assert '<DicomAttribute tag="00090012" privateCreator="A &amp; B" vr="LO">' in text
    assert '<DicomAttribute tag="00090010" vr="LO">' in text
    assert '<DicomAttribute tag="000B1001" vr="LO">' in text


def test_boundaries():
    """Orthanc's plugin makes them of two UUIDs: 73 characters, where RFC 2046 allows 70."""
    boundary = "75cda6a9-4a51-4b40-a3a4-5a2fc39c1b7c-75cda6a9-4a51-4b40-a3a4-5a2fc39c1b7c"
    assert 73 == len(boundary)
    events = [
        *MultipartReader(boundary).feed(
            b"--" + boundary.encode() + b"\r\n\r\nx\r\n--" + boundary.encode() + b"--"
        )
    ]
    assert [Part({}), b"x", PartEnd()] == events
    for wrong in ("", "x" * 257, "\u00fc"):
        with pytest.raises(BadMultipart):
            MultipartReader(wrong)
