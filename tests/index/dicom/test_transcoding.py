"""Data sets in another transfer syntax: pydicom and DCMTK read the same values of them (PS3.5 Section 10)."""

import struct
import zlib
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from index import DEFLATED, TRANSCODED, NotTranscodable, transcode
from index.dicom import transcoding
from support.dicom import data_set_of, encoded, instance, sample

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
RLE = "1.2.840.10008.1.2.5"
UNCOMPRESSED = [
    "CT_small.dcm",
    "MR_small.dcm",
    "MR_small_bigendian.dcm",
    "MR_small_implicit.dcm",
    "SC_rgb_expb_16bit.dcm",
    "rtdose.dcm",
    "rtplan.dcm",
    "reportsi.dcm",
    "nested_priv_SQ.dcm",
    "image_dfl.dcm",
    "examples_overlay.dcm",
]
COMPRESSED = {
    "MR_small_RLE.dcm": "MR_small.dcm",
    "MR_small_jp2klossless.dcm": "MR_small.dcm",
    "MR_small_jpeg_ls_lossless.dcm": "MR_small.dcm",
    "emri_small_RLE.dcm": "emri_small.dcm",
    "SC_rgb_rle_16bit_2frame.dcm": "SC_rgb_16bit_2frame.dcm",
}


def stored(name: str) -> tuple[bytes, str]:
    return data_set_of(sample(name)), str(pydicom.dcmread(sample(name)).file_meta.TransferSyntaxUID)


def read(data: bytes, syntax: str) -> Dataset:
    if syntax == DEFLATED:
        assert len(data) % 2 == 0
        data = zlib.decompress(data.rstrip(b"\0") + b"\0\0", -zlib.MAX_WBITS)
    return read_dataset(BytesIO(data), syntax == IMPLICIT, syntax != BIG)


def values(dataset: Dataset, *, is_big: bool = False) -> dict[object, object]:
    """Return all values by tag, in sequences too; words that pydicom does not interpret in little endian."""
    found: dict[object, object] = {}
    for element in dataset:
        value = element.value
        if element.VR == "SQ":
            value = [values(item, is_big=is_big) for item in value]
        elif element.VR == "OW" and is_big:
            value = b"".join(value[at : at + 2][::-1] for at in range(0, len(value), 2))
        elif element.tag.is_private or element.VR == "UN":
            continue  # in Implicit VR their VR is not known
        if element.tag.element:
            found[element.tag] = value
    return found


@pytest.mark.parametrize("wanted", TRANSCODED)
@pytest.mark.parametrize("name", UNCOMPRESSED)
def test_the_values_stay(name: str, wanted: str) -> None:
    data, syntax = stored(name)
    before = values(pydicom.dcmread(sample(name)), is_big=syntax == BIG)
    assert before == values(read(transcode(data, syntax, wanted), wanted), is_big=wanted == BIG)


@pytest.mark.parametrize("through", TRANSCODED)
@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"])
def test_there_and_back_gives_the_same_bytes(name: str, through: str) -> None:
    data, syntax = stored(name)
    assert data == transcode(transcode(data, syntax, through), through, syntax)


@pytest.mark.parametrize("wanted", TRANSCODED)
@pytest.mark.parametrize("name", COMPRESSED)
def test_lossless_pixel_data_is_decompressed(name: str, wanted: str) -> None:
    data, syntax = stored(name)
    made = values(read(transcode(data, syntax, wanted), wanted), is_big=wanted == BIG)
    original = pydicom.dcmread(sample(COMPRESSED[name]))
    assert original.PixelData == made[original["PixelData"].tag]
    for keyword in ("SOPInstanceUID", "Rows", "BitsAllocated", "PhotometricInterpretation"):
        assert pydicom.dcmread(sample(name)).get(keyword) == made[original[keyword].tag]


def test_text_is_copied_whatever_its_character_set() -> None:
    """Bytes that the character set does not have, or that a decoder would change, stay as they are."""
    data = encoded(instance(PatientName=None, StudyDescription=None))
    name = b"\x10\0\x10\0PN\x08\0\xff\xfe\x1b$B\\ \0"
    at = data.index(b"\x10\0\x20\0LO")
    data = data[:at] + name + data[at:]
    assert data == transcode(data, EXPLICIT, EXPLICIT)
    assert name[8:] in transcode(data, EXPLICIT, IMPLICIT)


def test_a_value_too_long_for_its_vr_is_un() -> None:
    """PS3.5 Section 6.2.2."""
    value = b"1.2\\" * 20_000
    data = struct.pack("<HHL", 0x0008, 0x0058, len(value)) + value
    made = transcode(data, IMPLICIT, EXPLICIT)
    assert struct.pack("<HH2sHL", 0x0008, 0x0058, b"UN", 0, len(value)) + value == made


@pytest.mark.parametrize(
    ("vr", "value", "swapped"),
    [
        ("US", "0102", "0201"),
        ("AT", "01020304", "02010403"),
        ("FL", "01020304", "04030201"),
        ("FD", "0102030405060708", "0807060504030201"),
        ("LO", "01020304", "01020304"),
    ],
)
def test_numbers_are_swapped(vr: str, value: str, swapped: str) -> None:
    number = bytes.fromhex(value)
    data = struct.pack("<HH2sH", 0x0009, 0x1001, vr.encode(), len(number)) + number
    made = transcode(data, EXPLICIT, BIG)
    assert struct.pack(">HH2sH", 0x0009, 0x1001, vr.encode(), len(number)) + bytes.fromhex(swapped) == made


@pytest.mark.parametrize(
    ("data", "syntax", "wanted", "why"),
    [
        (encoded(instance())[:-1], EXPLICIT, IMPLICIT, "ends within its value"),
        (encoded(instance()), EXPLICIT, RLE, "only uncompressed ones and deflated"),
        (encoded(instance()), RLE, EXPLICIT, "5"),  # it has no pixel data
        (b"\xff" * 40, DEFLATED, EXPLICIT, "1.2.1.99: "),
        (stored("MR_small_RLE.dcm")[0][:-200], RLE, EXPLICIT, "."),
        (encoded(instance()), "1.2.840.10008.1.2.4.102", EXPLICIT, "4.102"),
    ],
)
def test_what_cannot_be_made(data: bytes, syntax: str, wanted: str, why: str) -> None:
    with pytest.raises(NotTranscodable, match=why):
        transcode(data, syntax, wanted)


def test_what_is_too_large_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcoding, "TRANSCODE_LIMIT", 5000)
    bomb = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    deflated = bomb.compress(bytes(100_000)) + bomb.flush()
    for data, syntax in (
        (bytes(5001), EXPLICIT),
        (deflated, DEFLATED),
        (stored("MR_small_RLE.dcm")[0][:4990], RLE),
    ):
        with pytest.raises(NotTranscodable):
            transcode(data, syntax, IMPLICIT)


def test_dcmtk_reads_it(tmp_path: Path) -> None:
    from support.daemon import run
    from support.dicom import part10

    data, syntax = stored("MR_small_implicit.dcm")
    dataset = pydicom.dcmread(sample("MR_small_implicit.dcm"))
    made = part10(transcode(data, syntax, EXPLICIT), dataset.SOPInstanceUID, dataset.SOPClassUID)
    (tmp_path / "made.dcm").write_bytes(made)
    done = run("dcmdump", "-q", "-E", str(tmp_path / "made.dcm"))
    assert (0, "") == (done.returncode, done.stderr)
