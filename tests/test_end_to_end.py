"""The main job with foreign clients: DCMTK sends, resources are on disk."""

import json
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.daemon import Daemon, cli, eventually, run
from support.dicom import ROOT, data_set_of, instance, sample, save
from support.filling import files
from support.sender import CT_SIZE, Sender, template

# Of pydicom's CT_small.dcm.
SAMPLE_STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"


def two_studies(folder: Path, instances: int = 3) -> list[Path]:
    """Write 2 studies of 4 series."""
    return [
        save(instance(study, series, number), folder / f"{study}-{series}-{number}.dcm")
        for study in (1, 2)
        for series in (1, 2, 3, 4)
        for number in range(1, instances + 1)
    ]


def resource(daemon: Daemon, uid: str, instances: int, version: str = "dstu2") -> dict[str, object]:
    """Return a resource once it is current."""
    path = daemon.resource(uid, version)

    def current() -> bool:
        return path.exists() and instances == counted(json.loads(path.read_bytes()))

    assert eventually(current), path.read_text() if path.exists() else f"no {path}"
    return json.loads(path.read_bytes())


def counted(study: dict[str, object]) -> int:
    return sum(len(series["instance"]) for series in study.get("series", []))


def test_two_studies_by_dcmsend(daemon: Daemon, tmp_path: Path) -> None:
    sent = two_studies(tmp_path / "send")
    assert 0 == daemon.send(tmp_path / "send").returncode
    for study in (1, 2):
        current = resource(daemon, f"{ROOT}.{study}", 12)
        assert (4, 12) == (current["numberOfSeries"], current["numberOfInstances"])
        assert [3, 3, 3, 3] == [series["numberOfInstances"] for series in current["series"]]
        assert f"urn:oid:{ROOT}.{study}" == current["uid"]
        patient = current["patient"]["reference"].removeprefix("Patient/")
        assert daemon.resource(patient, kind="Patient").exists()
    assert [(4, 12), (4, 12)] == [(one["series"], one["instances"]) for one in daemon.studies()]

    before = files(daemon.data / "fhir") | files(daemon.data / "objects")
    assert 0 == daemon.send(tmp_path / "send").returncode
    daemon.wait_for(lambda event: event.get("outcome") == "duplicate")
    assert 0 == daemon.stop()
    assert before == files(daemon.data / "fhir") | files(daemon.data / "objects")
    data_sets = {data_set_of(path) for path in (daemon.data / "objects").rglob("*.dcm")}
    assert {data_set_of(path) for path in sent} == data_sets


def test_echo(shared_daemon: Daemon) -> None:
    assert 0 == run("echoscu", shared_daemon.host, str(shared_daemon.port)).returncode


def test_storescu_of_pynetdicom(shared_daemon: Daemon) -> None:
    """The README's way without DCMTK."""
    sent = run(
        sys.executable,
        "-m",
        "pynetdicom",
        "storescu",
        shared_daemon.host,
        str(shared_daemon.port),
        str(sample()),
    )
    assert 0 == sent.returncode, sent.stderr
    assert eventually(lambda: shared_daemon.resource(SAMPLE_STUDY).exists())
    assert [1] == [one["instances"] for one in shared_daemon.studies() if one["uid"] == SAMPLE_STUDY]


def test_a_crash_loses_nothing_that_was_acknowledged(start: Callable[..., Daemon], tmp_path: Path) -> None:
    for number in range(1, 401):
        save(instance(1, number % 4, number), tmp_path / "send" / f"{number}.dcm")
    daemon = start()
    command = ["storescu", "-v", "+sd", "-aec", "ANY", daemon.host, str(daemon.port), str(tmp_path / "send")]
    sender = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    expected_after = random.randint(20, 150)
    daemon.wait_for(lambda _: len(daemon.named("store")) >= expected_after)
    daemon.kill()
    output, _ = sender.communicate(timeout=300)
    acknowledged = output.count("Received Store Response (Success)")
    assert 0 < acknowledged < 400

    daemon = start()
    (study,) = daemon.studies()
    assert acknowledged <= study["instances"] <= acknowledged + 1
    resource(daemon, f"{ROOT}.1", study["instances"])
    assert study["instances"] == len(files(daemon.data / "objects"))
    assert {} == files(daemon.data / "incoming")


def test_stopping_lets_a_running_store_finish_and_publishes(daemon: Daemon, tmp_path: Path) -> None:
    two_studies(tmp_path / "send", 1)
    sent = run("dcmsend", "+sd", daemon.host, str(daemon.port), str(tmp_path / "send"))
    assert 0 == sent.returncode
    assert 0 == daemon.stop()
    assert 8 == sum(
        counted(json.loads(path.read_bytes())) for path in (daemon.data / "fhir/dstu2/ImagingStudy").iterdir()
    )
    assert ["stopping", "stopped"] == [
        e["event"] for e in daemon.events if e["event"] in ("stopping", "stopped")
    ]


def test_no_dicom_at_all_on_the_port(shared_daemon: Daemon) -> None:
    with socket.create_connection((shared_daemon.host, shared_daemon.port), 5) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nHost: scanner\r\n\r\n")
        caller.settimeout(10)
        assert b"\x07" == caller.recv(10)[:1]  # A-ABORT (PS3.8 Section 9.3.8)
    assert 0 == run("echoscu", shared_daemon.host, str(shared_daemon.port)).returncode


def test_a_called_ae_title_that_is_not_ours(start: Callable[..., Daemon]) -> None:
    daemon = start(IMAGINGSTUDYD_DICOM__CALLED_AETS='["OURS"]')
    refused = run("echoscu", "-aec", "THEIRS", daemon.host, str(daemon.port))
    assert 0 != refused.returncode
    assert "Called AE Title Not Recognized" in refused.stderr
    assert 0 == run("echoscu", "-aec", "OURS", daemon.host, str(daemon.port)).returncode


@pytest.mark.parametrize("end", [Sender.abort, Sender.close])
def test_an_abort_in_the_middle_of_an_object_leaves_nothing(
    daemon: Daemon, end: Callable[[Sender], None]
) -> None:
    sender = Sender((daemon.host, daemon.port))
    wire = sender.message(template(CT_SIZE)).wire
    sender.socket.sendall(memoryview(wire)[: len(wire) // 2])
    assert eventually(lambda: files(daemon.data / "incoming"))
    end(sender)
    daemon.wait_for(lambda event: event.get("event") == "store_discarded")
    assert {} == files(daemon.data / "incoming") | files(daemon.data / "objects")
    assert 0 == run("echoscu", daemon.host, str(daemon.port)).returncode


def test_import_and_read_beside_a_running_daemon(daemon: Daemon, tmp_path: Path) -> None:
    two_studies(tmp_path / "send" / "deep" / "deeper", 2)
    (tmp_path / "send" / "notes.txt").write_text("no DICOM")
    imported = cli(
        "import",
        str(tmp_path / "send"),
        "--data",
        str(daemon.data),
        "--json",
        IMAGINGSTUDYD_STORAGE__WATERMARK="0",
    )
    report = json.loads(imported.stdout)
    assert 0 == imported.returncode, imported.stderr
    assert {"stored": 16} == report["outcomes"]
    assert [str(tmp_path / "send" / "notes.txt")] == [one["path"] for one in report["passed_over"]]
    current = resource(daemon, f"{ROOT}.2", 8)
    shown = cli("show", f"{ROOT}.2", "--data", str(daemon.data), "--json")
    assert daemon.resource(f"{ROOT}.2").read_text() == shown.stdout
    assert current == json.loads(cli("show", f"{ROOT}.2", "--data", str(daemon.data)).stdout)


def test_import_without_a_daemon_publishes(tmp_path: Path) -> None:
    two_studies(tmp_path / "send", 1)
    data = tmp_path / "data"
    imported = cli(
        "import", str(tmp_path / "send"), "--data", str(data), IMAGINGSTUDYD_STORAGE__WATERMARK="0"
    )
    assert 0 == imported.returncode, imported.stderr
    assert "8 stored" in imported.stdout
    assert 2 == len(list((data / "fhir/dstu2/ImagingStudy").iterdir()))


def test_a_second_daemon_is_kept_out(shared_daemon: Daemon) -> None:
    second = cli("serve", "--data", str(shared_daemon.data), "--port", "0", "--no-http")
    assert (1, True) == (second.returncode, "is in use by a running imagingstudyd" in second.stderr)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (["studies", "--data", "/nonexistent"], 1),
        (["show", "1.2.3", "--data", "/nonexistent"], 1),
        (["serve", "--port", "99999"], 2),
        (["serve", "--nonsense"], 2),
        (["check", "--config", "/nonexistent.toml"], 2),
        (["check"], 0),
    ],
)
def test_exit_status(arguments: list[str], status: int) -> None:
    assert status == cli(*arguments).returncode


def test_show_of_a_study_that_is_not_there(shared_daemon: Daemon) -> None:
    missing = cli("show", "1.2.3", "--data", str(shared_daemon.data))
    assert (1, "imagingstudyd: study 1.2.3 is not in the index\n") == (missing.returncode, missing.stderr)


def test_the_disk_is_full(start: Callable[..., Daemon], tmp_path: Path) -> None:
    """A small tmpfs: A700, nothing partial, and the next instance that fits is taken."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
    try:
        daemon = start(data=disk / "data")
        big = instance(1, 1, 1)
        big.add_new(0x00091001, "OB", bytes(12_000_000))
        refused = run("storescu", "-v", daemon.host, str(daemon.port), str(save(big, tmp_path / "big.dcm")))
        assert "Refused: OutOfResources" in refused.stdout + refused.stderr
        assert {} == files(daemon.data / "incoming") | files(daemon.data / "objects")
        assert 0 == daemon.send(save(instance(2), tmp_path / "small.dcm"), tool="storescu").returncode
        resource(daemon, f"{ROOT}.2", 1)
        daemon.stop()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_nothing_in_the_log_names_a_patient(daemon: Daemon, tmp_path: Path) -> None:
    daemon.send(
        save(instance(PatientName="Secret^Name", PatientID="SECRET7"), tmp_path / "one.dcm"), tool="storescu"
    )
    daemon.stop()
    log = "".join(daemon.lines).upper()
    assert "STORE" in log
    assert "SECRET" not in log


assert shutil.which("dcmsend"), "DCMTK is needed: tests/run installs it"
