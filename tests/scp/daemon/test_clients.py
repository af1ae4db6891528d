"""Whole sessions of FHIR clients that nobody here wrote, and the addresses that resources name."""

import base64
import hashlib
import io
import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import fhirclient
import httpx
import pydicom
import pytest

from index.imagingstudy import VERSIONS
from support.daemon import Daemon, eventually, run, serving
from support.dicom import ROOT, instance, save
from support.dicomweb import parts, pixels
from support.fhirjudges import model
from support.programs import free_port

TESTS = Path(__file__).parent.parent.parent
STUDIES = [f"{ROOT}.{number}" for number in (81, 82, 83)]
DATASETS = [
    pixels(instance(81, 1, 1, PatientID="P81", InstitutionName="Hospital")),
    pixels(instance(81, 1, 2, PatientID="P81", InstitutionName="Hospital")),
    pixels(instance(82, 1, 1, PatientID="P81", StudyDate="20260103")),
    pixels(instance(83, 1, 1, PatientID="P83", ReferringPhysicianName="Ref^Er")),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon that tells others the address at which it is reached."""
    folder, port = tmp_path_factory.mktemp("clients"), free_port()
    environment = {
        "IMAGINGSTUDYD_HTTP__LOCAL": "all",
        "IMAGINGSTUDYD_HTTP__PUBLIC_URL": f"http://127.0.0.1:{port}",
    }
    for daemon in serving(folder / "data", "--http-port", str(port), **environment):
        for number, dataset in enumerate(DATASETS):
            save(dataset, folder / "send" / f"{number}.dcm")
        assert 0 == daemon.send(folder / "send").returncode
        resources = [daemon.resource(uid, "r5") for uid in STUDIES]
        assert eventually(lambda found=resources: all(path.exists() for path in found))
        yield daemon


def url_of(site: Daemon) -> str:
    host, port = site.http
    return f"http://{host}:{port}"


# --- what resources name ---


def read(url: str, accept: str = "*/*") -> httpx.Response:
    answer = httpx.get(url, headers={"Accept": accept})
    assert 200 == answer.status_code, (url, answer.text)
    return answer


def test_url_and_content_of_dstu2_lead_to_the_objects(site: Daemon) -> None:
    """DSTU2 ImagingStudy.url, series.url and series.instance.content."""
    study = read(f"{url_of(site)}/fhir/dstu2/ImagingStudy/{STUDIES[0]}").json()
    assert 2 == len(parts(read(study["url"])))
    (series,) = study["series"]
    assert 2 == len(parts(read(series["url"])))
    for one, sent in zip(series["instance"], DATASETS, strict=False):
        (content,) = one["content"]
        answer = read(content["url"], content["contentType"])
        assert content["contentType"] == answer.headers["content-type"].partition(";")[0]
        assert f"urn:oid:{pydicom.dcmread(io.BytesIO(answer.content)).SOPInstanceUID}" == one["uid"]
        assert sent.SOPInstanceUID == one["uid"].removeprefix("urn:oid:")
        assert (len(answer.content), hashlib.sha1(answer.content).digest()) == (  # noqa: S324  FHIR's
            content["size"],
            base64.b64decode(content["hash"]),
        )


@pytest.mark.parametrize("fhir", ["r4", "r5"])
def test_endpoints_lead_to_dicomweb(site: Daemon, fhir: str) -> None:
    """ImagingStudy.endpoint: an address of WADO-RS (dicom-wado-rs), below which studies are."""
    base = f"{url_of(site)}/fhir/{fhir}"
    study = read(f"{base}/ImagingStudy/{STUDIES[0]}").json()
    for reference in (*study["endpoint"], *study["series"][0]["endpoint"]):
        endpoint = read(f"{base}/{reference['reference']}").json()
        kind = endpoint["connectionType"]
        assert "dicom-wado-rs" in json.dumps(kind)
        url = f"{endpoint['address']}/studies/{study['id']}"
        assert 2 == len(parts(read(url)))
        for series in study["series"]:
            for one in series["instance"]:
                found = read(f"{url}/series/{series['uid']}/instances/{one['uid']}", "application/dicom")
                assert one["uid"] == pydicom.dcmread(io.BytesIO(found.content)).SOPInstanceUID


@pytest.mark.parametrize("fhir", VERSIONS)
def test_every_bundle_is_valid(site: Daemon, fhir: str) -> None:
    base = f"{url_of(site)}/fhir/{fhir}"
    patient = read(f"{base}/Patient?identifier=P81").json()["entry"][0]["resource"]["id"]
    order = {"dstu2": "order", "r4": "basedon", "r5": "based-on"}[fhir]
    for path in (
        f"ImagingStudy?_include=ImagingStudy:patient&_include=ImagingStudy:{order}&_count=2&nonsense=1",
        "ImagingStudy?_summary=count",
        "Patient?_revinclude=ImagingStudy:patient&_elements=name",
        f"ImagingStudy/{STUDIES[0]}/_history",
        f"Patient/{patient}/$everything",
        f"ImagingStudy/{STUDIES[0]}/$bundle",
        "metadata",
    ):
        model(read(f"{base}/{path}").json(), fhir)


# --- fhirclient, of SMART ---


@pytest.fixture
def smart(site: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """fhirclient 1.0.6, for DSTU2. Its modules know each other by bare names, as in Python 2."""
    monkeypatch.syspath_prepend(str(Path(fhirclient.__file__).parent))
    before = set(sys.modules)
    from client import FHIRClient

    yield FHIRClient(settings={"app_id": "test", "api_base": f"{url_of(site)}/fhir/dstu2"})
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("client", "server", "auth", "models"):
            del sys.modules[name]


def test_a_session_of_fhirclient(smart: Any) -> None:
    assert smart.prepare()
    assert "imagingstudyd" == smart.server.conformance.software.name
    from models.bundle import Bundle
    from models.imagingstudy import ImagingStudy

    study = ImagingStudy.read(STUDIES[0], smart.server)
    assert (f"urn:oid:{STUDIES[0]}", 2) == (study.uid, study.numberOfInstances)
    search = ImagingStudy.where({"patient.identifier": "P81", "_sort": "started", "_count": "1"})
    page, pages = search.perform(smart.server), []
    while True:
        assert 2 == page.total
        pages.append([entry.resource.id for entry in page.entry])
        links = [link.url for link in page.link if link.relation == "next"]
        if not links:
            break
        page = Bundle.read_from(links[0], smart.server)
    assert [STUDIES[:1], STUDIES[1:2]] == pages
    (found,) = ImagingStudy.where({"accession": "A83"}).perform_resources(smart.server)
    assert STUDIES[2] == found.id
    with pytest.raises(Exception, match="404"):
        ImagingStudy.read("1.2.3", smart.server)


# --- @medplum/core ---


def test_a_session_of_medplum(site: Daemon) -> None:
    session = str(TESTS / "support/medplum_session.cjs")
    done = run("node", session, str(TESTS / "node_modules"), f"{url_of(site)}/", STUDIES[0], "P81")
    assert 0 == done.returncode, done.stderr
    found = json.loads(done.stdout)
    assert "imagingstudyd" == found["software"]
    assert [[STUDIES[1]], [STUDIES[0]]] == found["pages"]
    assert (1, ["Patient"], "P81") == (found["total"], found["included"], found["identifier"])
    assert [f"{STUDIES[0]}.1.1", f"{STUDIES[0]}.1.2"] == found["instances"]
    assert "none" not in found
    assert all(newer > older for newer, older in pairwise(found["history"]))
    assert STUDIES[0] == found["version"]
    assert 2 == found["everything"].count("ImagingStudy")
    assert ("transaction", "not-found") == (found["transaction"], found["fault"])
