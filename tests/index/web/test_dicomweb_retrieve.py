"""WADO-RS of objects, metadata and bulk data (PS3.18 Section 10.4), and WADO-URI (Section 9)."""

import contextlib
import hashlib
import io
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

from index import Index
from index.web.dicomweb.responses import THREADS
from support.dicom import data_set_of, instance, save
from support.dicomweb import IMAGES, STUDY, parts, pixels, serving

DICOM = 'multipart/related; type="application/dicom"'
AS_STORED = f"{DICOM}; transfer-syntax=*"


def uids_of(path) -> tuple[str, str, str]:
    dataset = pydicom.dcmread(path, stop_before_pixels=True)
    return dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.SOPInstanceUID


def url_of(path) -> str:
    return "/studies/{}/series/{}/instances/{}".format(*uids_of(path))


def data_set(content: bytes) -> bytes:
    buffer = io.BytesIO(content)
    pydicom.filereader.read_preamble(buffer, force=False)
    pydicom.filereader._read_file_meta_info(buffer)
    return buffer.read()


def test_a_study_comes_byte_for_byte(served):
    response = served.get(f"/studies/{STUDY}")
    assert response.headers["content-type"].startswith(DICOM)
    found = parts(response)
    assert {"application/dicom; transfer-syntax=1.2.840.10008.1.2.1"} == {kind for kind, _ in found}
    sent = [path for uid, path in served.files.items() if uid.startswith(STUDY)]
    assert {data_set_of(path) for path in sent} == {data_set(content) for _, content in found}
    assert 2 == len(parts(served.get(f"/studies/{STUDY}/series/{STUDY}.1", AS_STORED)))


def test_one_instance_alone(served):
    path = served.files[f"{STUDY}.1.1"]
    response = served.get(f"{IMAGES}/{STUDY}.1.1", "application/dicom")
    assert "application/dicom; transfer-syntax=1.2.840.10008.1.2.1" == response.headers["content-type"]
    assert data_set_of(path) == data_set(response.content)
    assert b"DICM" == response.content[128:132]
    assert 406 == served.get(f"/studies/{STUDY}", "application/dicom").status_code


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm"])
def test_compressed_as_stored_or_decompressed(served, name):
    path = served.files[name]
    ((kind, content),) = parts(served.get(url_of(path), AS_STORED))
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == kind.partition("=")[2]
    assert data_set_of(path) == data_set(content)
    # Where no transfer syntax is asked for, it is Explicit VR Little Endian (PS3.18 Section 8.7.3.5.2).
    ((kind, content),) = parts(served.get(url_of(path), DICOM))
    assert "application/dicom; transfer-syntax=1.2.840.10008.1.2.1" == kind
    plain = pydicom.dcmread(io.BytesIO(content))
    assert pydicom.dcmread(path).NumberOfFrames if "2frame" in name else True
    assert plain.pixel_array.shape == pydicom.dcmread(path).pixel_array.shape
    assert uids_of(path)[2] == plain.SOPInstanceUID
    assert 406 == served.get(url_of(path), f"{DICOM}; transfer-syntax=1.2.840.10008.1.2.4.80").status_code


def test_a_study_of_which_a_part_is_taken_is_206(tmp_path):
    rle = pydicom.dcmread(get_testdata_file("SC_rgb_rle_2frame.dcm"))
    rle.StudyInstanceUID, rle.SeriesInstanceUID = "1.2.9", "1.2.9.1"
    other = instance(9, 1, 1, StudyInstanceUID="1.2.9", SeriesInstanceUID="1.2.9.2")
    with Index(tmp_path / "data") as index:
        save(rle, tmp_path / "a.dcm", rle.file_meta.TransferSyntaxUID)
        save(other, tmp_path / "b.dcm")
        index.import_files([tmp_path / "a.dcm", tmp_path / "b.dcm"])
        with serving(index, {}) as one:
            taken = one.get("/studies/1.2.9", f"{DICOM}; transfer-syntax={rle.file_meta.TransferSyntaxUID}")
            assert 206 == taken.status_code
            assert 1 == len(parts(taken))


def test_metadata_is_what_pydicom_reads(served):
    path = served.files["CT_small.dcm"]
    (model,) = served.get(f"{url_of(path)}/metadata").json()
    expected = pydicom.dcmread(path, stop_before_pixels=True)
    read = Dataset.from_json({tag: one for tag, one in model.items() if "BulkDataURI" not in one})
    for element in expected:
        if element.VR not in ("OB", "OW", "UN", "SQ", "PN") and element.tag != 0x00080005:
            assert element.value == read[element.tag].value or str(element.value) == str(
                read[element.tag].value
            )
    assert [expected.file_meta.TransferSyntaxUID] == model["00083002"]["Value"]
    assert f"{served.url}{url_of(path)}/bulkdata/7FE00010" == model["7FE00010"]["BulkDataURI"]
    study = served.get(f"/studies/{STUDY}/metadata").json()
    assert 3 == len(study)
    assert 2 == len(served.get(f"/studies/{STUDY}/series/{STUDY}.1/metadata", "application/json").json())
    xml = parts(served.get(f"/studies/{STUDY}/metadata", 'multipart/related; type="application/dicom+xml"'))
    assert 3 == len(xml)


def test_long_values_are_bulk_data(tmp_path):
    dataset = instance(1, 1, 1)
    block = dataset.private_block(0x0009, "MAKER", create=True)
    block.add_new(1, "OB", bytes(100_000))
    block.add_new(2, "OB", b"short!")
    block.add_new(3, "OB", b"")
    item = Dataset()
    item.add_new(0x54001010, "OW", bytes(range(256)) * 8)
    dataset.WaveformSequence = [item]
    dataset.ImageComments = "ü" * 40_000
    dataset.SpecificCharacterSet = "ISO_IR 100"
    with Index(tmp_path / "data") as index:
        save(dataset, tmp_path / "one.dcm")
        index.import_files([tmp_path / "one.dcm"])
        with serving(index, {}, "https://pacs.example/archive/") as one:
            (model,) = one.get(f"{IMAGES}/{STUDY}.1.1/metadata").json()
            prefix = f"https://pacs.example/archive/dicom-web{IMAGES}/{STUDY}.1.1/bulkdata/"
            assert f"{prefix}00091001" == model["00091001"]["BulkDataURI"]
            assert "c2hvcnQh" == model["00091002"]["InlineBinary"]
            inner = model["54000100"]["Value"][0]["54001010"]["BulkDataURI"]
            assert f"{prefix}54000100/0/54001010" == inner
            assert "ü" * 40_000 == model["00204000"]["Value"][0]
            assert ["ISO_IR 192"] == model["00080005"]["Value"]
            path = f"{IMAGES}/{STUDY}.1.1/bulkdata"
            assert bytes(100_000) == one.get(f"{path}/00091001", "application/octet-stream").content
            ((_, content),) = parts(one.get(f"{path}/54000100/0/54001010"))
            assert bytes(range(256)) * 8 == content
            assert [b""] == [content for _, content in parts(one.get(f"{path}/00091003"))]
            for wrong in ("00091009", "54000100/1/54001010", "00100010"):
                assert 404 == one.get(f"{path}/{wrong}").status_code
            for wrong in ("x", "54000100/0", "54000100/x/54001010"):
                assert 400 == one.get(f"{path}/{wrong}").status_code


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"])
def test_metadata_and_frames_of_every_uncompressed_syntax(tmp_path, syntax):
    dataset = pixels(instance(1, 1, 1, PatientAge="007Y"))
    with Index(tmp_path / "data") as index:
        swap = syntax == "1.2.840.10008.1.2.2"
        if swap:
            dataset.PixelData = b"".join(bytes((n + 1, n)) for n in range(0, 32, 2))
        save(dataset, tmp_path / "one.dcm", syntax)
        index.import_files([tmp_path / "one.dcm"])
        with serving(index, {}) as one:
            (model,) = one.get(f"{IMAGES}/{STUDY}.1.1/metadata").json()
            assert ([4], ["007Y"]) == (model["00280010"]["Value"], model["00101010"]["Value"])
            assert [syntax] == model["00083002"]["Value"]
            ((_, frame),) = parts(one.get(f"{IMAGES}/{STUDY}.1.1/frames/1"))
            assert bytes(range(32)) == frame


def test_an_object_that_is_damaged_cuts_the_answer_off_behind_the_others(tmp_path):
    with Index(tmp_path / "data") as index:
        for number in (1, 2):
            save(instance(1, 1, number), tmp_path / f"{number}.dcm")
        index.import_files([tmp_path / "1.dcm", tmp_path / "2.dcm"])
        first, _ = sorted((tmp_path / "data" / "objects").rglob("*.dcm"), key=lambda path: path.name)
        first.write_bytes(first.read_bytes()[:-4])
        with serving(index, {}) as one:
            import httpx

            for path in ("", "/metadata"):
                received: list[bytes] = []
                with one.client.stream("GET", f"/studies/{STUDY}{path}") as response:
                    assert 200 == response.status_code
                    with pytest.raises(httpx.RemoteProtocolError):
                        received.extend(response.iter_raw())
                assert any(received)
            statuses = [
                one.get(f"{IMAGES}/{STUDY}.1.{number}", "application/dicom").status_code for number in (1, 2)
            ]
            assert [200, 404] == sorted(statuses)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studies/1.2.3", 404),
        ("/studies/1.2.3/metadata", 404),
        (f"/studies/{STUDY}/series/1.2", 404),
        (f"/studies/1.2/series/{STUDY}.1", 404),
        (f"{IMAGES}/1.2/frames/1", 404),
        ("/studies/x", 400),
        (f"{IMAGES}/{STUDY}.1.1/frames/0", 400),
        (f"{IMAGES}/{STUDY}.1.1/frames/x", 400),
        (f"{IMAGES}/{STUDY}.1.1/frames/2", 404),
        (f"/studies/{STUDY}/series/{STUDY}.2/instances/{STUDY}.2.1/frames/1", 404),
        ("/nothing", 404),
    ],
)
def test_what_is_not_there(served, path, status):
    response = served.get(path)
    assert status == response.status_code
    assert "Traceback" not in response.text


def test_head_reads_no_object(served, monkeypatch):
    monkeypatch.setattr("index.web.dicomweb.retrieve.open_object", None)
    for path in (f"/studies/{STUDY}", f"/studies/{STUDY}/metadata"):
        response = served.client.head(path)
        assert (200, b"") == (response.status_code, response.content)


def test_what_is_not_accepted(served):
    for path in (f"/studies/{STUDY}", f"/studies/{STUDY}/metadata", f"{IMAGES}/{STUDY}.1.1/frames/1"):
        assert 406 == served.get(path, "text/html").status_code
        assert 400 == served.get(path, "nonsense").status_code
        assert 200 == served.client.get(path, params={"accept": "*/*"}, headers={"accept": "x/y"}).status_code


def test_wado_uri(served):
    names = dict(
        zip(("studyUID", "seriesUID", "objectUID"), uids_of(served.files["CT_small.dcm"]), strict=True)
    )
    asked = {"requestType": "WADO", **names}
    for path in ("", "/wado"):
        answer = served.get(path, contentType="application/dicom", transferSyntax="*", **asked)
        assert data_set_of(served.files["CT_small.dcm"]) == data_set(answer.content)
    image = served.get("/wado", rows="50", columns="200", windowCenter="40", windowWidth="400", **asked)
    assert "image/jpeg" == image.headers["content-type"]
    for wrong in (
        {"requestType": "X"}, {"objectUID": ""}, {"rows": "0"}, {"windowWidth": "0"}, {"frameNumber": "x"},
        {"anonymize": "yes"}, {"objectUID": "1.2.x"}, {"contentType": "x"},
    ):  # fmt: skip
        assert 400 == served.get("/wado", **{**asked, **wrong}).status_code, wrong
    assert 404 == served.get("/wado", **{**asked, "objectUID": "1.2.3"}).status_code
    assert 404 == served.get("/wado", frameNumber="2", **asked).status_code


def test_delete(tmp_path):
    with Index(tmp_path / "data") as index:
        for series, number in ((1, 1), (1, 2), (2, 1)):
            save(instance(1, series, number), tmp_path / f"{series}{number}.dcm")
        index.import_files(list(tmp_path.glob("*.dcm")))
        with serving(index, {}) as one:
            assert 404 == one.client.delete(f"/studies/1.2/series/{STUDY}.1").status_code
            for path, left in (
                (f"{IMAGES}/{STUDY}.1.1", 2),
                (f"/studies/{STUDY}/series/{STUDY}.2", 1),
                (f"/studies/{STUDY}", 0),
            ):
                assert 204 == one.client.delete(path).status_code
                found = one.get("/instances")
                assert left == (len(found.json()) if found.content else 0)
                assert 404 == one.client.delete(path).status_code
        assert not list((tmp_path / "data" / "objects").rglob("*.dcm"))


def test_frames_as_stored_and_decoded(served):
    path = served.files["JPEG2000.dcm"]
    url = f"{url_of(path)}/frames/1"
    stored = pydicom.dcmread(path)
    (expected,) = pydicom.encaps.generate_frames(stored.PixelData, number_of_frames=1)
    for accept, kind in (
        ("*/*", "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91"),
        ('multipart/related; type="image/jp2"', "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91"),
        (
            'multipart/related; type="application/octet-stream"; transfer-syntax=*',
            "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.91",
        ),
    ):
        assert [(kind, expected)] == parts(served.get(url, accept))
    single = served.get(url, "image/jp2")
    assert ("image/jp2; transfer-syntax=1.2.840.10008.1.2.4.91", expected) == (
        single.headers["content-type"],
        single.content,
    )
    ((kind, native),) = parts(served.get(url, 'multipart/related; type="application/octet-stream"'))
    assert "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1" == kind
    assert stored.pixel_array.tobytes() == native
    assert 406 == served.get(url, 'multipart/related; type="image/jls"').status_code
    assert [expected] == [content for _, content in parts(served.get(f"{url_of(path)}/bulkdata/7FE00010"))]


def test_frames_of_several(served):
    path = served.files["SC_rgb_rle_2frame.dcm"]
    stored = pydicom.dcmread(path)
    expected = list(pydicom.encaps.generate_frames(stored.PixelData, number_of_frames=2))
    assert expected == [one for _, one in parts(served.get(f"{url_of(path)}/frames/1,2"))]
    assert expected[1:] == [one for _, one in parts(served.get(f"{url_of(path)}/frames/2"))]
    octets = 'multipart/related; type="application/octet-stream"'
    decoded = [one for _, one in parts(served.get(f"{url_of(path)}/frames/2,1", octets))]
    assert [stored.pixel_array[1].tobytes(), stored.pixel_array[0].tobytes()] == decoded
    assert 406 == served.get(f"{url_of(path)}/frames/1,2", "image/dicom-rle").status_code


def test_frames_of_bits_need_not_begin_with_a_byte(tmp_path):
    dataset = instance(1, 1, 1, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    dataset = pixels(dataset)
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = 3, 3, 3
    dataset.BitsAllocated = dataset.BitsStored = 1
    dataset.HighBit = 0
    frames = [0b101010101, 0b111000111, 0b000111000]
    dataset.PixelData = sum(bits << 9 * number for number, bits in enumerate(frames)).to_bytes(4, "little")
    with Index(tmp_path / "data") as index:
        save(dataset, tmp_path / "one.dcm")
        index.import_files([tmp_path / "one.dcm"])
        with serving(index, {}) as one:
            found = parts(one.get(f"{IMAGES}/{STUDY}.1.1/frames/1,2,3"))
            assert frames == [int.from_bytes(content, "little") for _, content in found]


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "JPEG2000.dcm", "SC_rgb_rle_2frame.dcm", "examples_ybr_color.dcm"]
)
def test_rendered(served, name):
    from PIL import Image

    path = served.files[name]
    stored = pydicom.dcmread(path)
    for accept, kind in (("*/*", "JPEG"), ("image/png", "PNG"), ("image/gif", "GIF")):
        response = served.get(f"{url_of(path)}/rendered", accept)
        assert 200 == response.status_code, response.text
        image = Image.open(io.BytesIO(response.content))
        assert (kind, (stored.Columns, stored.Rows)) == (image.format, image.size)
    small = Image.open(io.BytesIO(served.get(f"{url_of(path)}/frames/1/rendered", viewport="20,10").content))
    assert small.width <= 20
    assert small.height <= 10
    assert 128 == max(Image.open(io.BytesIO(served.get(f"{url_of(path)}/thumbnail").content)).size)
    study, series, _ = uids_of(path)
    for above in (f"/studies/{study}/thumbnail", f"/studies/{study}/series/{series}/thumbnail"):
        assert 200 == served.get(above).status_code


def test_rendered_by_a_window(served):
    from PIL import Image

    path = f"{IMAGES}/{STUDY}.1.1/rendered"

    def levels(**parameters):
        image = Image.open(io.BytesIO(served.get(path, "image/png", **parameters).content))
        return list(image.tobytes())

    # PS3.3 Section C.11.2.1.2: the pixels are 256, 770, ... by steps of 514.
    values = [256 + 514 * number for number in range(16)]
    linear = [min(255, max(0, int(((v - (4000 - 0.5)) / 1999 + 0.5) * 255))) for v in values]
    assert linear == levels(window="4000,2000,linear")
    assert [0] * 8 + [255] * 8 == levels(window="4100,1,linear")
    assert (0, 255) == (levels()[0], levels()[-1])
    region = Image.open(io.BytesIO(served.get(path, "image/png", viewport="2,2,0,0,2,2").content))
    assert [0, 17, 68, 85] == list(region.tobytes())
    for wrong in ({"window": "1"}, {"window": "1,0,linear"}, {"viewport": "0,1"}, {"quality": "101"},
                  {"viewport": "1,1,-1,0,1,1"}, {"viewport": "99999,1"}):  # fmt: skip
        assert 400 == served.get(path, **wrong).status_code, wrong
    report = f"/studies/{STUDY}/series/{STUDY}.2/instances/{STUDY}.2.1"
    assert 406 == served.get(f"{report}/rendered").status_code
    assert 406 == served.get(path, "image/webp").status_code


def test_a_slow_reader_and_one_that_vanishes(tmp_path):
    """Of a large object a part is read; memory and descriptors are as before."""
    import resource

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    dataset = pixels(instance(1, 1, 1))
    dataset.Rows = dataset.Columns = 4096
    dataset.NumberOfFrames = 6
    dataset.PixelData = bytes(4096 * 4096 * 2 * 6)
    path = save(dataset, tmp_path / "large.dcm")
    size = path.stat().st_size
    dataset.PixelData = b""
    with Index(tmp_path / "data") as index:
        index.import_files([path])
        path.unlink()
        with serving(index, {}) as one:
            one.get(f"/studies/{STUDY}/metadata")
            before, open_before = (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
                open_files(),
            )
            with one.client.stream("GET", f"/studies/{STUDY}") as response:
                received = next(response.iter_raw(65536))
                # Others are answered meanwhile.
                assert 200 == one.get("/studies").status_code
                assert received
            with one.client.stream("GET", f"{IMAGES}/{STUDY}.1.1/frames/1,2,3,4,5,6") as response:
                assert 200 == response.status_code
            # More of them than threads, each with an answer that it does not read.
            with contextlib.ExitStack() as stack:
                for _ in range(2 * THREADS):
                    stalled = stack.enter_context(one.client.stream("GET", f"/studies/{STUDY}"))
                    assert next(stalled.iter_raw(65536))
                assert 200 == one.get(f"/studies/{STUDY}/metadata").status_code
            with one.client.stream(
                "GET", f"{IMAGES}/{STUDY}.1.1", headers={"accept": "application/dicom"}
            ) as all_:
                digest, count = hashlib.sha1(usedforsecurity=False), 0
                for block in all_.iter_raw(1 << 20):
                    count += len(block)
                    digest.update(block)
            assert size - 64 < count < size + 256
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < 48 * 1024  # kB; the object has 200 MB
            from support.daemon import eventually

            assert eventually(lambda: open_files() <= open_before + 2)


def test_ranges_and_what_is_known_already(served):
    """RFC 9110 Sections 13 and 14: of what is sent alone, as stored."""
    path = served.files["CT_small.dcm"]
    single = "application/dicom; transfer-syntax=*"
    url, pixels_ = url_of(path), "application/octet-stream"
    for place, accept in ((url, single), (f"{url}/bulkdata/7FE00010", pixels_), (url, "application/dicom")):
        whole = served.get(place, accept)
        assert len(whole.content) == int(whole.headers["content-length"])
        tag = whole.headers["etag"]
        for asked, start, stop in (("0-0", 0, 1), ("100-399", 100, 400), ("-7", -7, None), ("5-", 5, None)):
            headers = {"accept": accept, "range": f"bytes={asked}"}
            part = served.client.get(place, headers=headers)
            assert 206 == part.status_code
            assert whole.content[start:stop] == part.content, asked
            assert part.headers["content-range"].endswith(f"/{len(whole.content)}")
            assert whole.content == served.client.get(place, headers={**headers, "if-range": "x"}).content
        for asked in ("bytes=9-3", "bytes=0-1,5-6", "bytes=-", "lines=1-2"):
            assert 200 == served.client.get(place, headers={"accept": accept, "range": asked}).status_code
        for asked in ("bytes=99999999-", "bytes=-0"):
            assert 416 == served.client.get(place, headers={"accept": accept, "range": asked}).status_code
        known = served.client.get(place, headers={"accept": accept, "if-none-match": f'"x", {tag}'})
        assert (304, b"", tag) == (known.status_code, known.content, known.headers["etag"])
        assert 200 == served.client.get(place, headers={"accept": accept, "if-none-match": '"x"'}).status_code
