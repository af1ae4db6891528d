"""DICOMweb of a running daemon: who may do what, and whole sessions of clients that nobody here wrote."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from support.daemon import Daemon, eventually, run, serving
from support.dicom import instance, sample, save
from support.dicomweb import pixels

PUBLIC = "https://pacs.example/imaging"
DICOM = {"content-type": "application/dicom"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """One whose callers on this machine may do all, with an address for others."""
    yield from serving(
        tmp_path_factory.mktemp("dicomweb") / "data",
        IMAGINGSTUDYD_HTTP__LOCAL="all",
        IMAGINGSTUDYD_HTTP__PUBLIC_URL=PUBLIC,
        IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS="all",
    )


def url_of(daemon: Daemon) -> str:
    host, port = daemon.http
    return f"http://{host}:{port}/dicom-web"


def here(daemon: Daemon, url: str) -> str:
    """Return where a URL for others leads on this machine."""
    assert url.startswith(f"{PUBLIC}/dicom-web")
    return url_of(daemon) + url.removeprefix(f"{PUBLIC}/dicom-web")


def stored(daemon: Daemon, dataset: pydicom.Dataset, folder: Path) -> dict[str, Any]:
    content = save(dataset, folder / f"{dataset.SOPInstanceUID}.dcm").read_bytes()
    response = httpx.post(f"{url_of(daemon)}/studies", content=content, headers=DICOM)
    assert 200 == response.status_code, response.text
    return response.json()


def test_a_session_of_dicomweb_client(daemon):
    client = DICOMwebClient(url_of(daemon))
    ct, color = (pydicom.dcmread(sample(name)) for name in ("CT_small.dcm", "SC_rgb_rle_2frame.dcm"))
    response = client.store_instances([ct, color])
    assert 2 == len(response.ReferencedSOPSequence)
    (found,) = client.search_for_studies(search_filters={"StudyInstanceUID": ct.StudyInstanceUID})
    assert ct.PatientID == found["00100020"]["Value"][0]
    (series,) = client.search_for_series(ct.StudyInstanceUID)
    (image,) = client.search_for_instances(ct.StudyInstanceUID, series["0020000E"]["Value"][0])
    uids = ct.StudyInstanceUID, ct.SeriesInstanceUID, image["00080018"]["Value"][0]
    assert ct.PixelData == client.retrieve_instance(*uids).PixelData
    assert [ct.Rows] == client.retrieve_instance_metadata(*uids)["00280010"]["Value"]
    assert [ct.PixelData] == client.retrieve_instance_frames(*uids, [1])
    uids = color.StudyInstanceUID, color.SeriesInstanceUID, color.SOPInstanceUID
    assert 2 == len(client.retrieve_instance_frames(*uids, [1, 2]))
    assert client.retrieve_instance_rendered(*uids, media_types=("image/jpeg",)).startswith(b"\xff\xd8")
    client.delete_study(color.StudyInstanceUID)
    assert [] == client.search_for_series(color.StudyInstanceUID)


def test_what_is_stored_is_what_a_scanner_could_have_sent(daemon, tmp_path):
    """C-FIND finds it at once, the resource comes, and its addresses lead to the objects."""
    dataset = pixels(instance(31, 1, 1, PatientID="STOW31"))
    study = str(dataset.StudyInstanceUID)
    stored(daemon, dataset, tmp_path)
    done = run("findscu", "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientID=STOW31", "-k",
               "StudyInstanceUID", "-aec", "ANY", daemon.host, str(daemon.port))  # fmt: skip
    assert study in done.stdout + done.stderr
    resource = daemon.resource(study)
    assert eventually(resource.exists)
    dstu2 = json.loads(resource.read_text())
    content = httpx.get(
        here(daemon, dstu2["series"][0]["instance"][0]["content"][0]["url"]),
        headers={"accept": "application/dicom"},
    ).content
    assert dataset.PixelData in content
    assert 200 == httpx.get(here(daemon, dstu2["url"])).status_code
    endpoint = next((daemon.data / "fhir" / "r4" / "Endpoint").glob("*.json"))
    address = here(daemon, json.loads(endpoint.read_text())["address"])
    (found,) = httpx.get(f"{address}/studies", params={"StudyInstanceUID": study}).json()
    assert [f"{PUBLIC}/dicom-web/studies/{study}"] == found["00081190"]["Value"]


def test_what_a_scanner_sends_is_found_at_once(daemon, tmp_path):
    path = save(instance(32, 1, 1, PatientID="CSTORE32"), tmp_path / "one.dcm")
    daemon.send(path)
    (found,) = httpx.get(f"{url_of(daemon)}/studies", params={"PatientID": "CSTORE32"}).json()
    assert ["IMAGINGSTUDYD"] == found["00080054"]["Value"]


@pytest.mark.parametrize(
    "query",
    [
        # OHIF's study list and its first look at a study.
        "studies?limit=101&offset=0&fuzzymatching=false&includefield=00081030%2C00080060",
        (
            "studies?limit=101&offset=0&fuzzymatching=true&includefield=00081030%2C00080060&PatientName=*Jane*"
            "&00100020=*OHIF33*&AccessionNumber=*33*&StudyDescription=*Head*&StudyDate=20200101-20301231"
            "&ModalitiesInStudy=CT%2CMR"
        ),
        "studies?StudyInstanceUID={study}&includefield=00081030%2C00080060&limit=101&offset=0&fuzzymatching=false",
        "studies?StudyInstanceUID={study}%5C1.2.3",
        "studies/{study}/series?includefield=0008103E%2C00080021",
        "studies/{study}/series/{study}.1/metadata",
        # Orthanc's plugin as a client (/dicom-web/servers/x/qido): keywords, and empty keys.
        "studies?PatientID=OHIF33&StudyDescription=&PatientName=&includefield=all",
        "studies?00100020=OHIF33&includefield=StudyInstanceUID&includefield=NumberOfStudyRelatedSeries",
        "instances?StudyInstanceUID={study}&includefield=SOPClassUID&limit=10",
        # Weasis, and dcmjs.
        "studies/{study}/series?includefield=0020000E&includefield=00200011&includefield=0008103E",
        "studies/{study}/instances?includefield=00280008&_count=5&_=1700000000",
    ],
)  # fmt: skip
def test_what_viewers_ask(daemon, tmp_path, query):
    dataset = pixels(instance(33, 1, 1, PatientID="OHIF33", AccessionNumber="A33", StudyDescription="Head"))
    study = str(dataset.StudyInstanceUID)
    stored(daemon, dataset, tmp_path)
    response = httpx.get(
        f"{url_of(daemon)}/{query.format(study=study)}", headers={"accept": "application/dicom+json"}
    )
    assert 200 == response.status_code, response.text
    assert study in [one["0020000D"]["Value"][0] for one in response.json()]


def test_frames_as_cornerstone_asks_for_them(daemon, tmp_path):
    dataset = pixels(instance(34, 1, 1))
    url = stored(daemon, dataset, tmp_path)["00081199"]["Value"][0]["00081190"]["Value"][0]
    accept = "multipart/related; type=application/octet-stream; transfer-syntax=*"
    answer = httpx.get(f"{here(daemon, url)}/frames/1", headers={"accept": accept})
    assert dataset.PixelData in answer.content
    assert (
        b"Content-Type: application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1\r\n" in answer.content
    )
    image = httpx.get(f"{here(daemon, url)}/rendered?accept=image/jpeg")
    assert "image/jpeg" == image.headers["content-type"]


def test_who_may_what(shared_daemon, tmp_path):
    """By default who works on this machine may read, and no more; a page elsewhere nothing."""
    content = save(instance(35, 1, 1), tmp_path / "one.dcm").read_bytes()
    url = f"{url_of(shared_daemon)}/studies"
    assert httpx.get(url).status_code in (200, 204)
    assert 403 == httpx.post(url, content=content, headers=DICOM).status_code
    assert 403 == httpx.delete(f"{url}/1.2.3").status_code
    assert 421 == httpx.get(url, headers={"host": "evil.example"}).status_code
    assert 404 == httpx.get(f"{url}/{instance(35, 1, 1).StudyInstanceUID}").status_code


def test_curl_stores_and_reads(daemon, tmp_path):
    path = save(pixels(instance(36, 1, 1)), tmp_path / "one.dcm")
    url = f"{url_of(daemon)}/studies"
    done = run("curl", "-sf", "-H", "Content-Type: application/dicom", "--data-binary", f"@{path}", url)
    assert [0, True] == [done.returncode, "00081199" in json.loads(done.stdout)]
    study = instance(36, 1, 1).StudyInstanceUID
    out = tmp_path / "out"
    done = run("curl", "-sf", "-o", str(out), "-H", "Expect: 100-continue", f"{url}/{study}")
    assert 0 == done.returncode
    assert pixels(instance(36, 1, 1)).PixelData in out.read_bytes()
