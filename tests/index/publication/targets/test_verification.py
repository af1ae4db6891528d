"""`publish verify`, and the export of all."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.daemon import eventually
from support.dicom import ROOT, instance
from support.fhir_server import FhirServer, Response
from support.filling import keep
from support.targets import Site, here, target, there

Sites = Callable[..., Site]


def differences(site: Site, *, mends: bool) -> list[tuple[str, str, bool]]:
    found = site.index.targets.verify("ehr", mends=mends).run()
    return sorted((f"{one.type}/{one.name}", one.what, one.is_mended) for one in found)


@pytest.mark.parametrize("write", ["put", "conditional"])
def test_what_differs_is_named_and_sent_again(site: Sites, server: FhirServer, write: str) -> None:
    made = site(target(server, write=write))
    for study in (1, 2, 3):
        keep(made.index, instance(study, ReferringPhysicianName="House^Greg"))
    assert made.is_published()
    before = dict(server.resources)
    work = made.index.targets.verify("ehr", mends=True)
    assert [] == list(work.run())
    assert len(before) == work.count
    by_uid = {one["identifier"][0]["value"]: name for name, one in before.items() if "Study" in name}
    first, second = (by_uid[f"urn:oid:{ROOT}.{study}"] for study in (1, 2))
    (person,) = (name for name in before if name.startswith("Practitioner"))
    server.resources[first] = {**before[first], "description": "Other", "status": "cancelled"}
    del server.resources[second], server.resources[person]
    expected = {"differs: description, status": False, "is missing": False}
    assert expected == {what: mended for _, what, mended in differences(made, mends=False)}
    assert 3 == len(differences(made, mends=True))
    made.index.targets.study_published(1, None, False)
    assert made.is_published()
    assert [] == differences(made, mends=False)
    assert len(before) == len(server.resources)
    if write == "put":
        assert before == server.resources


@pytest.mark.parametrize("version", ["dstu2", "r4"])
def test_what_is_there_twice_is_named(site: Sites, version: str) -> None:
    server = FhirServer(version)
    made = site(target(server))
    for study in (1, 2):
        keep(made.index, instance(study, AccessionNumber="A1"))
    assert made.is_published()
    study = server.resources[f"ImagingStudy/{ROOT}.1"]
    (patient, *_) = server.of("Patient")
    server.resources["ImagingStudy/x"] = {**study, "id": "x"}
    server.resources["Patient/y"] = {**patient, "id": "y"}
    expected = [
        ("ImagingStudy/x", f"is a second ImagingStudy/{ROOT}.1", False),
        ("Patient/y", f"is a second Patient/{patient['id']}", False),
    ]
    assert expected == differences(made, mends=True)
    # One that cannot be searched is only compared.
    server.script = lambda request: Response(403) if "?" in request.path else None
    assert [] == differences(made, mends=False)
    server.close()


def test_what_was_deleted_and_is_still_there(site: Sites, server: FhirServer) -> None:
    made = site(target(server))
    keep(made.index, instance(1))
    assert made.is_published()
    made.index.delete(f"{ROOT}.1")
    assert eventually(lambda: not there(server).get(f"ImagingStudy/{ROOT}.1"))
    assert made.is_published()
    assert [] == differences(made, mends=False)


def test_an_export_and_what_has_changed_since(site: Sites, tmp_path: Path) -> None:
    made = site()
    for study in (1, 2):
        keep(made.index, instance(study))
    assert made.is_published()
    folder = tmp_path / "out"
    folder.mkdir()
    # An earlier one was interrupted.
    (folder / "Location.ndjson.part").write_text("{")
    done = made.index.targets.export("r4", folder)
    lines = {
        f"{one['resourceType']}/{one['id']}": one
        for file in folder.glob("*.ndjson")
        for one in map(json.loads, file.read_text().splitlines())
    }
    assert eventually(lambda: here(tmp_path / "data") == lines), lines  # files follow the index
    assert {"ImagingStudy": 2, "Patient": 2, "Endpoint": 1} == done.counts
    assert [] == list(folder.glob("*.part"))
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {"ImagingStudy", "Patient", "Endpoint"} == {one["type"] for one in manifest["output"]}
    assert [] == manifest["deleted"] == manifest["error"]
    since = datetime.fromisoformat(manifest["transactionTime"])
    assert since <= datetime.now(UTC)
    made.index.delete(f"{ROOT}.1")
    keep(made.index, instance(3))
    assert eventually(lambda: f"ImagingStudy/{ROOT}.1" not in here(tmp_path / "data"))
    assert made.is_published()
    made.index.targets.export("r4", folder, since)
    studies = (folder / "ImagingStudy.ndjson").read_text().splitlines()
    assert [f"{ROOT}.3"] == [json.loads(one)["id"] for one in studies]
    (deleted,) = map(json.loads, (folder / "deleted.ndjson").read_text().splitlines())
    urls = [entry["request"]["url"] for entry in deleted["entry"]]
    assert f"ImagingStudy/{ROOT}.1" in urls
    assert 2 == len(urls)
