"""Whether a data set that pydicom has read ends within a value."""

from io import BytesIO
from struct import pack

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from index.dicom.value_rules import cut_off

PATIENT_ID = b"\x10\x00\x20\x00LO\x06\x00P12345"
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
SERIES, IMAGES, UID = (0x0040, 0x0340), (0x0008, 0x1140), (0x0008, 0x1155)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (PATIENT_ID, ""),
        (PATIENT_ID[:-2], "PatientID"),
        # An element of a VR that does not exist and without a value: pydicom cannot decode it.
        (b"\x08\x00\x50\x00S\x00\x00\x00" + PATIENT_ID, ""),
        (b"\x08\x00\x50\x00S\x00\x00\x00" + PATIENT_ID[:-2], "PatientID"),
    ],
)
def test_the_element_that_is_cut_off_is_named(content: bytes, expected: str) -> None:
    assert expected == cut_off(dcmread(BytesIO(b"\x08\x00\x05\x00CS\x00\x00" + content), force=True))


class Encoder:
    """Encodes elements with lengths that may be wrong (PS3.5 Sections 7.1 and 7.5)."""

    def __init__(self, *, implicit: bool, little: bool = True) -> None:
        self.implicit = implicit
        self.little = little
        self._order = "<" if little else ">"

    def element(self, tag: tuple[int, int], vr: str, value: bytes, length: int | None = None) -> bytes:
        length = len(value) if length is None else length
        if self.implicit:
            return pack(f"{self._order}HHI", *tag, length) + value
        if vr in ("SQ", "UN"):
            return pack(f"{self._order}HH2sHI", *tag, vr.encode(), 0, length) + value
        return pack(f"{self._order}HH2sH", *tag, vr.encode(), length) + value

    def delimiter(self, element: int, length: int = 0) -> bytes:
        return pack(f"{self._order}HHI", 0xFFFE, element, length)

    def item(self, value: bytes, length: int | None = None) -> bytes:
        end = self.delimiter(ITEM_END) if length == UNDEFINED else b""
        return self.delimiter(ITEM, len(value) if length is None else length) + value + end

    def read(self, content: bytes) -> Dataset:
        return read_dataset(BytesIO(content), self.implicit, self.little)


ENCODERS = [
    Encoder(implicit=True),
    Encoder(implicit=False),
    Encoder(implicit=False, little=False),
]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("item_length", [None, UNDEFINED])
@pytest.mark.parametrize(("length", "expected"), [(8, ""), (30, "ReferencedSOPInstanceUID")])
def test_a_value_in_sequences_of_defined_length(
    encoder: Encoder, item_length: int | None, length: int, expected: str
) -> None:
    """Half a UID names another instance: a value has the length that it is given (PS3.5 Section 7.1.1)."""
    image = encoder.element(UID, "UI", b"1.2.3.4\0", length)
    images = encoder.element(IMAGES, "SQ", encoder.item(image, item_length))
    assert expected == cut_off(encoder.read(encoder.element(SERIES, "SQ", encoder.item(images))))


@pytest.mark.parametrize("length", [8, 30])
def test_a_sequence_of_vr_un(length: int) -> None:
    """Its value is encoded in Implicit VR Little Endian (PS3.5 Section 6.2.2)."""
    image = ENCODERS[0].element(UID, "UI", b"1.2.3.4\0", length)
    content = ENCODERS[1].element(IMAGES, "UN", ENCODERS[0].item(image))
    assert ("" if length == 8 else "ReferencedSOPInstanceUID") == cut_off(ENCODERS[1].read(content))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_sequence_within_an_item_of_undefined_length(encoder: Encoder) -> None:
    image = encoder.element(UID, "UI", b"1.2.3.4\0", 30)
    images = encoder.element(IMAGES, "SQ", encoder.item(image))
    value = encoder.item(images, UNDEFINED) + encoder.delimiter(SEQUENCE_END)
    content = encoder.element(SERIES, "SQ", value, UNDEFINED)
    assert "ReferencedSOPInstanceUID" == cut_off(encoder.read(content))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_value_that_goes_on_into_the_next_item(encoder: Encoder) -> None:
    first = encoder.element(UID, "UI", b"1.2.3.4\0", 24)
    second = encoder.element(UID, "UI", b"1.2.3.5\0")
    assert cut_off(encoder.read(encoder.element(IMAGES, "SQ", encoder.item(first) + encoder.item(second))))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_item_that_is_longer_than_its_sequence(encoder: Encoder) -> None:
    image = encoder.element(UID, "UI", b"1.2.3.4\0")
    content = encoder.element(IMAGES, "SQ", encoder.item(image, len(image) + 10))
    assert "ReferencedImageSequence" == cut_off(encoder.read(content))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_whole_items_of_every_kind(encoder: Encoder) -> None:
    """Some writers end items and sequences of defined length by a delimiter as well."""
    image = encoder.element(UID, "UI", b"1.2.3.4\0")
    for items in (
        b"",
        encoder.item(b""),
        encoder.item(image) + encoder.item(b"") + encoder.item(image, UNDEFINED),
        encoder.item(image, UNDEFINED) + encoder.item(image),
        encoder.item(image + encoder.delimiter(ITEM_END)),
        encoder.item(image) + encoder.delimiter(SEQUENCE_END),
    ):
        assert "" == cut_off(encoder.read(encoder.element(IMAGES, "SQ", items)))


def test_a_sequence_that_pydicom_cannot_read_is_left_to_the_caller() -> None:
    encoder = Encoder(implicit=False)
    assert "" == cut_off(encoder.read(encoder.element(IMAGES, "SQ", b"\xfe\xff\x00") + PATIENT_ID))


def test_sequences_without_end_do_not_exhaust_the_stack() -> None:
    encoder = Encoder(implicit=False)
    content = PATIENT_ID
    for _ in range(2000):
        content = encoder.element(IMAGES, "SQ", encoder.item(content))
    assert "" == cut_off(encoder.read(content))


def test_an_element_of_a_repeating_group() -> None:
    """PS3.6 has its keyword (Overlay Rows) without a tag that is its own."""
    encoder = Encoder(implicit=True)
    assert "" == cut_off(encoder.read(encoder.element((0x6000, 0x0010), "US", b"\1\0")))
    assert "OverlayRows" == cut_off(encoder.read(encoder.element((0x6000, 0x0010), "US", b"\1")[:-1]))
