"""The commands that mend, as processes beside a real daemon."""

import json
from pathlib import Path

import pytest

from support.daemon import Daemon, cli, eventually
from support.dicom import ROOT, instance, save
from support.filling import files


@pytest.fixture
def filled(daemon: Daemon, tmp_path: Path) -> Daemon:
    for study in (1, 2):
        for number in (1, 2, 3):
            save(instance(study, 1, number), tmp_path / "send" / f"{study}-{number}.dcm")
    assert 0 == daemon.send(tmp_path / "send").returncode
    assert eventually(lambda: all(daemon.resource(f"{ROOT}.{study}", "r5").exists() for study in (1, 2)))
    return daemon


def test_delete_beside_a_running_daemon(filled: Daemon) -> None:
    deleted = cli("delete", f"{ROOT}.1", "--data", str(filled.data), "--json")
    assert 0 == deleted.returncode, deleted.stderr
    assert ("study", 3) == (json.loads(deleted.stdout)["level"], json.loads(deleted.stdout)["instances"])
    assert eventually(lambda: not filled.resource(f"{ROOT}.1").exists())
    assert [f"{ROOT}.2"] == [study["uid"] for study in filled.studies()]
    assert 3 == len(files(filled.data / "objects"))
    assert 1 == cli("delete", f"{ROOT}.1", "--data", str(filled.data)).returncode


def test_verify_beside_a_running_daemon(filled: Daemon) -> None:
    data = str(filled.data)
    assert eventually(lambda: 0 == cli("verify", "--data", data, "--grace", "0").returncode)
    before = files(filled.data / "fhir")
    filled.resource(f"{ROOT}.1", "r4").write_text("{}")
    filled.resource(f"{ROOT}.2").unlink()
    found = cli("verify", "--data", data, "--grace", "0", "--json")
    assert 1 == found.returncode
    kinds = {json.loads(line)["kind"] for line in found.stdout.splitlines()}
    assert {"resource-altered", "resource-missing"} == kinds
    assert 0 == cli("verify", "--data", data, "--grace", "0", "--repair").returncode
    assert eventually(lambda: before == files(filled.data / "fhir"))
    (filled.data / "objects/000000/000.dcm").unlink()
    lost = cli("verify", "--data", data, "--repair")
    assert (1, True) == (lost.returncode, "object-missing" in lost.stdout)


def test_reindex_after_the_index_was_deleted(filled: Daemon) -> None:
    data = str(filled.data)
    refused = cli("reindex", "--data", data)
    assert (1, True) == (refused.returncode, "in use by a running imagingstudyd" in refused.stderr)
    filled.stop()
    before = files(filled.data / "fhir")
    for path in filled.data.glob("index.sqlite*"):
        path.unlink()
    again = cli("reindex", "--data", data)
    assert (0, "6 instances\n") == (again.returncode, again.stdout), again.stderr
    assert before == files(filled.data / "fhir")
    assert 2 == len(filled.studies())
