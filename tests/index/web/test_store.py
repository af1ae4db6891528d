"""STOW-RS (PS3.18 Section 10.5)."""

import io
import socket
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from index import Index
from support.daemon import eventually
from support.dicom import encoded, instance, part10, sample, save
from support.dicomweb import IMAGES, STUDY, Served, pixels, serving

TYPE = 'multipart/related; type="application/dicom"; boundary=B'
FAILED, STORED, OTHER, REASON = "00081198", "00081199", "0008119A", "00081197"


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Served]:
    with Index(tmp_path / "data") as index:
        index.serve()
        with serving(index, {}) as one:
            yield one


def file_of(dataset, tmp_path: Path, syntax: str = "1.2.840.10008.1.2.1") -> bytes:
    return save(dataset, tmp_path / "one.dcm", syntax).read_bytes()


def body(*files: bytes, head: bytes = b"Content-Type: application/dicom\r\n") -> bytes:
    return b"".join(b"\r\n--B\r\n" + head + b"\r\n" + file for file in files) + b"\r\n--B--\r\n"


def post(served: Served, content: bytes, path: str = "/studies", kind: str = TYPE, **headers: str):
    return served.client.post(path, content=content, headers={"content-type": kind, **headers})


def stored(data: Path) -> list[str]:
    """Return the SOP Instance UIDs of all objects; the journal is read until they are written."""
    files = [path.read_bytes() for path in (data / "objects").rglob("*.dcm")]
    return sorted(
        pydicom.dcmread(io.BytesIO(file)).SOPInstanceUID for file in files if b"DICM" == file[128:132]
    )


def test_instances_are_kept_and_named(empty, tmp_path):
    files = [file_of(instance(1, 1, 1), tmp_path), file_of(pixels(instance(1, 2, 1)), tmp_path)]
    response = post(empty, body(*files))
    assert 200 == response.status_code
    model = response.json()
    assert [f"{empty.url}/studies/{STUDY}"] == model["00081190"]["Value"]
    items = model[STORED]["Value"]
    assert [f"{STUDY}.1.1", f"{STUDY}.2.1"] == [one["00081155"]["Value"][0] for one in items]
    # What the response names can be had at once, and is what was sent.
    for item, file in zip(items, files, strict=True):
        url = item["00081190"]["Value"][0]
        answer = empty.client.get(url, headers={"accept": "application/dicom; transfer-syntax=*"})
        assert pydicom.dcmread(io.BytesIO(file)) == pydicom.dcmread(io.BytesIO(answer.content))
    assert FAILED not in model
    again = post(empty, body(files[0]))
    assert (200, 1) == (again.status_code, len(again.json()[STORED]["Value"]))


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "CT_small.dcm", "ExplVR_BigEnd.dcm", "image_dfl.dcm"])
def test_any_transfer_syntax(empty, name):
    response = post(empty, sample(name).read_bytes(), kind="application/dicom")
    assert 200 == response.status_code, response.text


def test_some_fail(empty, tmp_path):
    good = file_of(instance(1, 1, 1), tmp_path)
    bad_uid = file_of(instance(2, 1, 1, StudyInstanceUID="1.2.x"), tmp_path)
    response = post(empty, body(good, b"no DICOM", bad_uid))
    assert 202 == response.status_code
    model = response.json()
    assert 1 == len(model[STORED]["Value"])
    assert [{REASON: {"vr": "US", "Value": [0xC000]}}] == model[OTHER]["Value"]
    (failed,) = model[FAILED]["Value"]
    assert [f"{STUDY[:-1]}2.1.1"] == failed["00081155"]["Value"]
    assert [0xC000] == failed[REASON]["Value"]
    nothing = post(empty, body(b"no DICOM"))
    assert 409 == nothing.status_code


def test_a_study_that_is_named_must_be_theirs(empty, tmp_path):
    files = [file_of(instance(number, 1, 1), tmp_path) for number in (1, 2)]
    response = post(empty, body(*files), f"/studies/{STUDY}")
    assert 202 == response.status_code
    assert 1 == len(response.json()[FAILED]["Value"])
    assert eventually(lambda: [f"{STUDY}.1.1"] == stored(tmp_path / "data"))
    assert 409 == post(empty, body(files[1]), f"/studies/{STUDY}").status_code
    assert 400 == post(empty, body(files[1]), "/studies/x").status_code


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"x", "application/json", 415),
        (b"x", "", 415),
        (b"x", 'multipart/related; type="application/dicom+json"; boundary=B', 415),
        (b"x", "multipart/related", 400),
        (b"x", TYPE, 400),
        (b"", TYPE, 400),
        (b"\r\n--B--\r\n", TYPE, 400),
        (b"\r\n--B" + b"x" * 10_000, TYPE, 400),
        (b"\r\n--B\r\nA: " + b"x" * 10_000, TYPE, 400),
        (b"\r\n--B\r\n\r\nno end", TYPE, 409),
        (b"", "application/dicom", 409),
    ],
)
def test_bad_bodies(empty, content, kind, status):
    assert status == post(empty, content, kind=kind).status_code


def test_what_ends_too_early_is_not_kept(empty, tmp_path):
    whole, half = (file_of(pixels(instance(1, 1, number)), tmp_path) for number in (1, 2))
    response = post(empty, body(whole, half)[:-30])
    assert 202 == response.status_code
    assert eventually(lambda: [f"{STUDY}.1.1"] == stored(tmp_path / "data"))
    assert not list((tmp_path / "data" / "incoming").glob("*.dcm"))


def test_a_large_instance_and_one_that_is_cut_off(empty, tmp_path):
    dataset = instance(1, 1, 1)
    dataset = pixels(dataset)
    dataset.Rows = dataset.Columns = 1024
    dataset.PixelData = bytes(range(256)) * 8192
    large = file_of(dataset, tmp_path)
    assert 200 == post(empty, body(large, large, head=b"")).status_code
    host, port = empty.url.split("/")[2].split(":")
    with socket.create_connection((host, int(port))) as peer:
        lines = (
            "POST /dicom-web/studies HTTP/1.1",
            "Host: x",
            f"Content-Type: {TYPE}",
            "Content-Length: 9000000",
        )
        peer.sendall("\r\n".join((*lines, "", "")).encode() + body(large)[: len(large) // 2])
    incoming = tmp_path / "data" / "incoming"
    assert eventually(lambda: 200 == empty.get("/studies").status_code)
    assert [f"{STUDY}.1.1"] == [one["00080018"]["Value"][0] for one in empty.get("/instances").json()]
    assert eventually(lambda: not [one for one in incoming.iterdir() if one.stat().st_size])


def test_many_small_ones(empty, tmp_path):
    files = [file_of(instance(1, 1, number), tmp_path) for number in range(1, 51)]
    response = post(empty, body(*files))
    assert 50 == len(response.json()[STORED]["Value"])
    assert 50 == len(empty.get(f"/studies/{STUDY}/instances").json())


def test_the_data_set_counts(empty):
    """The meta information of files is often wrong; files of no meta information have been seen too."""
    dataset = instance(1, 1, 1)
    assert 200 == post(empty, body(part10(encoded(dataset), "1.2.3.4"))).status_code
    assert 200 == post(empty, body(encoded(instance(1, 1, 2)))).status_code
    assert 2 == len(empty.get("/instances").json())


def test_the_response_in_xml(empty, tmp_path):
    response = post(empty, body(file_of(instance(1, 1, 1), tmp_path)), accept="application/dicom+xml")
    assert "application/dicom+xml" == response.headers["content-type"]
    names = {"n": "http://dicom.nema.org/PS3.19/models/NativeDICOM"}
    root = ET.fromstring(response.content)  # noqa: S314  our own
    assert root.find("n:DicomAttribute[@keyword='ReferencedSOPSequence']/n:Item", names) is not None


def test_a_study_uid_behind_long_values(empty, tmp_path):
    dataset = instance(1, 1, 1)
    dataset.add_new(0x00091001, "OB", bytes(300_000))
    dataset.add_new(0x00090010, "LO", "MAKER")
    content = body(file_of(dataset, tmp_path))
    response = post(empty, content, f"/studies/{STUDY}")
    assert 200 == response.status_code, response.text
    (item,) = response.json()[STORED]["Value"]
    assert item["00081190"]["Value"] == [f"{empty.url}{IMAGES}/{STUDY}.1.1"]
    assert 409 == post(empty, content, "/studies/1.2.3").status_code


def test_what_is_truncated_is_stored_with_a_warning(empty, tmp_path):
    content = file_of(pixels(instance(1, 1, 1)), tmp_path)
    response = post(empty, content[:-4], kind="application/dicom")
    assert 202 == response.status_code
    (item,) = response.json()[STORED]["Value"]
    assert [0xB007] == item["00081196"]["Value"]  # PS3.18 Table I.2-1
    assert 1 == len(empty.get("/instances").json())


def test_parts_have_a_limit(empty, tmp_path, monkeypatch):
    monkeypatch.setattr("index.web.dicomweb.upload.PARTS_LIMIT", 3)
    files = [file_of(instance(1, 1, number), tmp_path) for number in range(1, 6)]
    response = post(empty, body(*files))
    assert 202 == response.status_code
    assert 3 == len(response.json()[STORED]["Value"])


def test_a_fault_of_our_own_is_named_and_the_others_are_stored(empty, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    good, bad = (file_of(instance(1, 1, number), tmp_path) for number in (1, 2))
    found = empty.index.receive
    monkeypatch.setattr(
        empty.index, "receive", lambda *args: fail() if args[2].endswith(".2") else found(*args)
    )
    response = post(empty, body(bad, good))
    assert (202, 1) == (response.status_code, len(response.json()[STORED]["Value"]))


def test_a_body_that_trickles_is_not_waited_for(empty, monkeypatch):
    """A byte now and then keeps no connection: so many must come in a time (408)."""
    monkeypatch.setattr("index.web.dicomweb.store.BODY_SECONDS", 0.3)
    host, port = empty.url.split("/")[2].split(":")
    lines = ("POST /dicom-web/studies HTTP/1.1", "Host: x", "Content-Type: application/dicom")
    with socket.create_connection((host, int(port))) as peer:
        peer.sendall("\r\n".join((*lines, "Content-Length: 100000000", "", "")).encode())
        peer.settimeout(0.02)
        answer = bytearray()

        def is_answered() -> bool:
            try:
                peer.sendall(b"x")
                answer.extend(peer.recv(100))
            except (TimeoutError, ConnectionError):
                pass
            return bool(answer)

        assert eventually(is_answered)
    assert answer.startswith(b"HTTP/1.1 408")
