"""Whatever is asked for is answered: no fault of our own, no trace, no hang (PS3.18 Section 8.5)."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index import Index
from support.dicom import instance, save
from support.dicomweb import IMAGES, STUDY, Served, pixels, serving

TYPE = 'multipart/related; type="application/dicom"; boundary=B'
STEPS = (
    "studies", "series", "instances", "frames", "metadata", "rendered", "thumbnail", "bulkdata",
    "wado", "", STUDY, f"{STUDY}.1", f"{STUDY}.1.1", f"{STUDY}.1.2", f"{STUDY}.2.1", "1", "2,1",
    "0", "1.2", "7FE00010", "..",
)  # fmt: skip
PATHS = (
    "/studies", "/series", "/instances", f"/studies/{STUDY}", f"/studies/{STUDY}/series",
    f"{IMAGES}/{STUDY}.1.1", f"{IMAGES}/{STUDY}.1.2/frames/1", f"{IMAGES}/{STUDY}.1.1/rendered",
    f"{IMAGES}/{STUDY}.1.1/bulkdata/7FE00010", f"/studies/{STUDY}/metadata", "/wado",
    f"{IMAGES}/{STUDY}.1.2/thumbnail",
)  # fmt: skip
NAMES = (
    "PatientName", "00100020", "StudyDate", "StudyTime", "ModalitiesInStudy", "StudyInstanceUID",
    "limit", "offset", "fuzzymatching", "includefield", "accept", "charset", "window", "viewport",
    "quality", "frameNumber", "rows", "requestType", "studyUID", "seriesUID", "objectUID",
    "contentType", "transferSyntax", "windowCenter",
    "RequestAttributesSequence.ScheduledProcedureStepID", "00400275.00400009", "InstanceNumber",
    "NumberOfFrames", "BitsAllocated", "TimezoneOffsetFromUTC",
    "IssuerOfPatientIDQualifiersSequence.UniversalEntityID",
)  # fmt: skip
VALUES = (
    "*", "?", "all", "true", "1", "0", "-1", "20260101-", "-", "\\", "a\\b", "1,2,linear", "nan",
    "1e999", "WADO", STUDY, f"{STUDY}.1", f"{STUDY}.1.1", "9" * 30, "image/png",
    "application/dicom", "*/*", "=", "^", "1.2.840.10008.1.2",
)  # fmt: skip
TYPES = (
    "*/*", "image/*", "image/png", "application/dicom", "application/dicom+json", "application/dicom+xml",
    "*", 'multipart/related; type="application/dicom"', "multipart/related", "application/octet-stream; q=0",
    ";q=1", "multipart/related; type=application/octet-stream; transfer-syntax=*", "a/b;q=.", '"',
    "image/jpeg; transfer-syntax=1.2",
)  # fmt: skip
# A value of a header, as the client can send it.
_HEADER = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=30
)

paths = st.one_of(
    st.sampled_from(PATHS),
    st.lists(st.one_of(st.sampled_from(STEPS), st.text(max_size=8)), max_size=9).map(
        lambda steps: "/" + "/".join(quote(one, safe=",", errors="replace") for one in steps)
    ),
)
queries = st.lists(
    st.tuples(
        st.one_of(st.sampled_from(NAMES), st.text(max_size=8)),
        st.one_of(st.sampled_from(VALUES), st.text(max_size=12)),
    ),
    max_size=5,
).map(
    lambda pairs: "&".join("=".join(quote(one, safe="", errors="replace") for one in pair) for pair in pairs)
)
accepts = st.one_of(
    st.lists(st.sampled_from(TYPES), min_size=1, max_size=4).map(", ".join), _HEADER.map(str.strip)
)
relaxed = settings(deadline=None, suppress_health_check=list(HealthCheck))


def check(response: httpx.Response) -> None:
    assert response.status_code < 500, response.text
    assert b"Traceback" not in response.content


def ask(served: Served, method: str, path: str, query: str, accept: str, span: str) -> None:
    headers = {"accept": accept.encode("latin_1"), "range": span.encode("latin_1")}
    response = served.client.request(method, f"{served.url}{path}?{query}", headers=headers)
    check(response)


asked = given(
    st.sampled_from(("GET", "GET", "HEAD", "OPTIONS", "PUT")), paths, queries, accepts,
    st.one_of(st.just("bytes=1-"), _HEADER.map(str.strip)),
)  # fmt: skip


@asked
@settings(relaxed, max_examples=100)
def test_any_address_is_answered(served, method, path, query, accept, span):
    ask(served, method, path, query, accept, span)


@pytest.mark.long
@asked
@settings(relaxed, max_examples=5_000)
def test_any_address_is_answered_long(served, method, path, query, accept, span):
    ask(served, method, path, query, accept, span)


@pytest.fixture(scope="module")
def receiving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Index(tmp_path_factory.mktemp("receiving") / "data") as index:
        index.serve()
        with serving(index, {}) as one:
            yield one


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("file") / "one.dcm"
    return save(pixels(instance(7, 1, 1)), path).read_bytes()


pieces = st.lists(
    st.one_of(
        st.sampled_from(
            (b"\r\n--B\r\n", b"--B", b"--B--", b"\r\n--B--\r\n", b"\r\n\r\n",
             b"Content-Type: application/dicom\r\n\r\n",
             b"Content-Type: text/plain\r\n\r\n", b"FILE", b"HALF", b"\r\n--B \t\r\n", b"\n--B\n")
        ),
        st.binary(max_size=40),
    ),
    max_size=12,
)  # fmt: skip
kinds = st.one_of(
    st.just(TYPE),
    st.sampled_from(
        ("application/dicom", "multipart/related", 'multipart/related; boundary="B"', "text/plain", "")
    ),
    _HEADER.map(str.strip),
)


def send(receiving: Served, file: bytes, parts: list[bytes], kind: str, path: str) -> None:
    known = {b"FILE": file, b"HALF": file[: len(file) // 2]}
    content = b"".join(known.get(one, one) for one in parts)
    headers = {"content-type": kind.encode("latin_1")}
    response = receiving.client.post(f"{receiving.url}{path}", content=content, headers=headers)
    check(response)
    assert response.status_code in (200, 202, 400, 409, 415)


places = st.sampled_from(("/studies", f"/studies/{STUDY[:-1]}7", "/studies/1.2.3"))


@given(pieces, kinds, places)
@settings(relaxed, max_examples=60)
def test_any_body_is_answered(receiving, file, parts, kind, path):
    send(receiving, file, parts, kind, path)


@pytest.mark.long
@given(pieces, kinds, places)
@settings(relaxed, max_examples=5_000)
def test_any_body_is_answered_long(receiving, file, parts, kind, path):
    send(receiving, file, parts, kind, path)


def test_ten_thousand_parts(receiving, file):
    """All of them fail but one: the response names each."""
    bad = b"\r\n--B\r\nContent-Type: application/dicom\r\n\r\nno DICOM"
    good = b"\r\n--B\r\n\r\n" + file
    content = bad * 5_000 + good + bad * 4_999 + b"\r\n--B--\r\n"
    response = receiving.client.post("/studies", content=content, headers={"content-type": TYPE})
    assert 202 == response.status_code
    assert (1, 9_999) == tuple(len(response.json()[tag]["Value"]) for tag in ("00081199", "0008119A"))


def damaged(file: bytes) -> st.SearchStrategy[bytes]:
    """Files whose meta information is whole, but not what follows."""
    start = len(file) - 300

    def apply(changes: list[tuple[int, int]]) -> bytes:
        content = bytearray(file)
        for place, value in changes:
            content[start + place % 300] = value
        return bytes(content)

    return st.lists(st.tuples(st.integers(0, 299), st.integers(0, 255)), min_size=1, max_size=6).map(apply)


def look(receiving: Served, content: bytes) -> None:
    """Store a damaged object, and ask for all that can be made of it."""
    response = receiving.client.post(
        "/studies", content=content, headers={"content-type": "application/dicom"}
    )
    check(response)
    for item in response.json().get("00081199", {}).get("Value", ()):
        url = item["00081190"]["Value"][0]
        for path in (
            "",
            "/metadata",
            "/rendered",
            "/thumbnail",
            "/frames/1",
            "/frames/1,2",
            "/bulkdata/7FE00010",
        ):
            # It may be cut off, as its reader must know.
            with contextlib.suppress(httpx.RemoteProtocolError):
                check(receiving.client.get(f"{url}{path}"))
        receiving.client.delete(url)


@given(st.data())
@settings(relaxed, max_examples=15)
def test_damaged_objects_are_answered(receiving, file, data):
    look(receiving, data.draw(damaged(file)))


@pytest.mark.long
@given(st.data())
@settings(relaxed, max_examples=5_000)
def test_damaged_objects_are_answered_long(receiving, file, data):
    look(receiving, data.draw(damaged(file)))


def test_a_search_opens_no_object(served, monkeypatch):
    """Nor does it look for one: viewers ask for lists of thousands of studies."""

    def refuse(*_: object) -> None:
        raise AssertionError("an object was opened")

    for place in ("index.query.retrieval.Retrieval.open", "index.storage.object_file.FolderReader.open",
                  "index.storage.object_file.FolderReader.state"):  # fmt: skip
        monkeypatch.setattr(place, refuse)
    for path in (
        "/studies",
        "/series",
        "/instances",
        f"/studies/{STUDY}/series",
        f"/studies/{STUDY}/instances",
    ):
        assert 200 == served.get(path, includefield="all").status_code
    assert 404 == served.get(f"/studies/{STUDY}/metadata").status_code  # which opens them all


def test_a_syntax_without_a_decoder_is_named(tmp_path: Path):
    """Frames are sent as stored where that is taken; else it is said what they are in."""
    video = "1.2.840.10008.1.2.4.102"
    dataset = pixels(instance(1, 1, 1))
    dataset.PixelData = pydicom.encaps.encapsulate([b"\0\0\0\1video!"])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    with Index(tmp_path / "data") as index:
        save(dataset, tmp_path / "one.dcm", video)
        index.import_files([tmp_path / "one.dcm"])
        with serving(index, {}) as one:
            url = f"{IMAGES}/{STUDY}.1.1"
            for path, accept in (
                ("/frames/1", 'multipart/related; type="application/octet-stream"'),
                ("/frames/1/rendered", "image/jpeg"), ("/rendered", "image/png"), ("/thumbnail", "*/*"),
                ("", "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"), ("/frames/1", "image/jpeg"),
            ):  # fmt: skip
                response = one.get(f"{url}{path}", accept)
                assert 406 == response.status_code, path
                assert video in response.text, path
            assert b"\0\0\0\1video!" in one.get(f"{url}/frames/1", "video/mp4").content
            whole = one.get(url, "application/dicom; transfer-syntax=*")
            assert video == pydicom.dcmread(io.BytesIO(whole.content)).file_meta.TransferSyntaxUID
