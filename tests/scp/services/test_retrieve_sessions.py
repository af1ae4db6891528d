"""Whole sessions with DCMTK and Orthanc: what is stored comes back, byte by byte."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from support.daemon import Daemon, cli, eventually, run
from support.dicom import ROOT, data_set_of, encoded, instance, sample, save
from support.programs import free_port, orthanc, process

# Every kind of transfer syntax; DCMTK's own tools send and take them all without a decoder.
SAMPLES = (
    "CT_small.dcm",
    "MR_small_implicit.dcm",
    "SC_rgb_rle.dcm",
    "examples_jpeg2k.dcm",
    "JPEG-LL.dcm",
    "SC_rgb_jpeg_dcmtk.dcm",
    "emri_small_jpeg_ls_lossless.dcm",
    "rtplan.dcm",
)


def configured(path: Path, **ports: int) -> tuple[str, str]:
    """Return the flag for a configuration whose peers are these AE titles, at these ports."""
    text = "".join(
        f'[[peers]]\naet = "{aet}"\nhost = "127.0.0.1"\nport = {port}\n' for aet, port in ports.items()
    )
    path.write_text(text)
    return "--config", str(path)


def imported(data: Path, folder: Path, *names: str) -> dict[str, bytes]:
    """Import samples; return their data sets by SOP Instance UID."""
    for name in names:
        shutil.copy(sample(name), folder)
    done = cli("import", str(folder), "--data", str(data), "--json", IMAGINGSTUDYD_STORAGE__WATERMARK="0")
    assert {"stored": len(names)} == json.loads(done.stdout)["outcomes"], done.stdout
    return {pydicom.dcmread(path).SOPInstanceUID: data_set_of(path) for path in folder.iterdir()}


def data_sets(folder: Path) -> dict[str, bytes]:
    return {pydicom.dcmread(path).SOPInstanceUID: data_set_of(path) for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name

    return make


def studies(daemon: Daemon) -> list[str]:
    return [study["uid"] for study in daemon.studies()]


def test_movescu_and_send_bring_back_every_transfer_syntax(
    start: Callable[..., Daemon], tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    port = free_port()
    sent = imported(tmp_path / "data", folder("in"), *SAMPLES)
    peers = configured(tmp_path / "c.toml", STORESCP=port, MOVESCU=1)
    daemon = start(*peers)
    with process("storescp", "+xa", "+B", "-aet", "STORESCP", str(port), folder=folder("out"), port=port):
        for uid in studies(daemon):
            keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={uid}")
            done = run("movescu", "-S", "-aem", "STORESCP", *keys, daemon.host, str(daemon.port))
            assert (0, "") == (done.returncode, done.stderr)
        assert sent == data_sets(folder("out"))
        assert len(studies(daemon)) == len(daemon.named("retrieve"))
        for path in folder("out").iterdir():
            path.unlink()
        # The same by the command, beside the daemon.
        for uid in studies(daemon):
            done = cli("send", uid, "STORESCP", "--data", str(daemon.data), *peers)
            assert (0, "sent ") == (done.returncode, done.stdout[:5]), done.stderr
    assert sent == data_sets(folder("out"))


def test_getscu_brings_back_what_was_stored(
    start: Callable[..., Daemon], tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    daemon = start(*configured(tmp_path / "c.toml", GETSCU=1))
    for study, series, number in ((1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)):
        save(instance(study, series, number, PatientID="P1"), folder("in") / f"{study}{series}{number}.dcm")
    # Without its trailing padding: dcmsend leaves that out.
    ct = pydicom.dcmread(sample("CT_small.dcm"))
    del ct.DataSetTrailingPadding
    save(ct, folder("in") / "ct.dcm")
    assert 0 == daemon.send(folder("in")).returncode
    sent = data_sets(folder("in"))

    def get(model: str, level: str, **keys: str) -> set[str]:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        wanted = [f"{keyword}={value}" for keyword, value in {"QueryRetrieveLevel": level, **keys}.items()]
        options = [option for one in wanted for option in ("-k", one)]
        command = ("getscu", model, "+B", "-od", str(folder("out")), *options)
        done = run(*command, daemon.host, str(daemon.port))
        assert (0, "") == (done.returncode, done.stderr)
        came = data_sets(folder("out"))
        assert {uid: sent[uid] for uid in came} == came
        return {uid.removeprefix(f"{ROOT}.") for uid in came}

    study, series = f"{ROOT}.1", f"{ROOT}.1.1"
    assert {"1.1.1", "1.1.2", "1.2.1", "2.1.1"} == get("-P", "PATIENT", PatientID="P1")
    assert {"1.1.1", "1.1.2", "1.2.1"} == get("-S", "STUDY", StudyInstanceUID=study)
    assert {"1.1.1", "1.1.2"} == get("-P", "SERIES", PatientID="P1", SeriesInstanceUID=series)
    both = f"{series}.1\\{series}.2"
    assert {"1.1.1", "1.1.2"} == get("-S", "IMAGE", StudyInstanceUID=study, SOPInstanceUID=both)
    assert {ct.SOPInstanceUID} == get("-S", "STUDY", StudyInstanceUID=ct.StudyInstanceUID)


def test_what_a_getscu_cannot_take_is_decompressed(
    start: Callable[..., Daemon], tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    imported(tmp_path / "data", folder("in"), "MR_small_RLE.dcm")
    daemon = start(*configured(tmp_path / "c.toml", GETSCU=1))
    keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={studies(daemon)[0]}")
    done = run("getscu", "-S", "+B", "-od", str(folder("out")), *keys, daemon.host, str(daemon.port))
    assert (0, "") == (done.returncode, done.stderr)
    (path,) = folder("out").iterdir()
    expected = pydicom.dcmread(sample("MR_small.dcm"))
    assert expected.PixelData == pydicom.dcmread(path).PixelData


def test_orthanc_retrieves_and_receives(
    start: Callable[..., Daemon], tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    port = free_port()
    names = ("CT_small.dcm", "MR_small_implicit.dcm", "SC_rgb_jpeg_dcmtk.dcm")
    imported(tmp_path / "data", folder("in"), *names)
    peers = configured(tmp_path / "c.toml", ORTHANC=port)
    daemon = start(*peers)
    with orthanc(folder("orthanc"), daemon.port, port) as call:
        assert {} == call("/modalities/us/echo", {})
        ct, mr, jpeg = (pydicom.dcmread(sample(name)) for name in names)
        for dataset in (ct, mr):
            wanted = {"Level": "Study", "Resources": [{"StudyInstanceUID": dataset.StudyInstanceUID}]}
            call("/modalities/us/move", {**wanted, "TargetAet": "ORTHANC", "Timeout": 60})
        done = cli("send", jpeg.SOPInstanceUID, "ORTHANC", "--data", str(daemon.data), *peers)
        assert 0 == done.returncode, done.stderr
        came = {}
        for one in call("/instances"):  # type: ignore[attr-defined]
            path = folder("out") / f"{one}.dcm"
            path.write_bytes(call(f"/instances/{one}/file"))  # type: ignore[arg-type]
            came[pydicom.dcmread(path).SOPInstanceUID] = data_set_of(path)
    assert data_sets(folder("in")) == came


def test_orthanc_queries_and_retrieves_by_its_own_interface(
    start: Callable[..., Daemon], tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    """A whole session: echo, store, query on all levels, retrieve the answers of a query by C-MOVE."""
    port = free_port()
    daemon = start(*configured(tmp_path / "c.toml", ORTHANC=port))
    for series, number in ((1, 1), (1, 2), (2, 1)):
        save(instance(1, series, number), folder("in") / f"{series}{number}.dcm")
    sent = data_sets(folder("in"))
    with orthanc(folder("orthanc"), daemon.port, port) as call:

        def post(path: str, body: object) -> dict[str, object]:
            answer = call(path, body)
            assert isinstance(answer, dict)
            return answer

        def query(level: str, **keys: str) -> str:
            return str(post("/modalities/us/query", {"Level": level, "Query": keys})["ID"])

        def answers(level: str, keyword: str, **keys: str) -> set[str]:
            number, found = query(level, **keys), set()
            for one in call(f"/queries/{number}/answers"):  # type: ignore[attr-defined]
                content = call(f"/queries/{number}/answers/{one}/content?simplify")
                found.add(content[keyword])  # type: ignore[index]
            return found

        assert {} == call("/modalities/us/echo", {})
        for path in sorted(folder("in").iterdir()):
            call("/instances", path.read_bytes())
        stored = post("/modalities/us/store", call("/instances"))
        assert (3, 0) == (stored["InstancesCount"], stored["FailedInstancesCount"])
        study, series = {"StudyInstanceUID": f"{ROOT}.1"}, {"SeriesInstanceUID": f"{ROOT}.1.1"}
        assert {"P1"} == answers("Patient", "PatientID", PatientID="P*")
        assert {f"{ROOT}.1"} == answers("Study", "StudyInstanceUID", PatientName="Doe*")
        assert {f"{ROOT}.1.1", f"{ROOT}.1.2"} == answers(
            "Series", "SeriesInstanceUID", PatientID="P1", **study
        )
        assert {f"{ROOT}.1.1.1", f"{ROOT}.1.1.2"} == answers(
            "Instance", "SOPInstanceUID", PatientID="P1", **study, **series
        )
        for one in call("/instances"):  # type: ignore[attr-defined]
            call(f"/instances/{one}", method="DELETE")
        assert [] == call("/instances")
        post(f"/queries/{query('Study', **study)}/retrieve", {"TargetAet": "ORTHANC", "Timeout": 60})
        came = {}
        for one in call("/instances"):  # type: ignore[attr-defined]
            path = folder("out") / f"{one}.dcm"
            path.write_bytes(call(f"/instances/{one}/file"))  # type: ignore[arg-type]
            came[pydicom.dcmread(path).SOPInstanceUID] = data_set_of(path)
    assert sent == came


def forwarding(daemon: Daemon) -> list[tuple[str, int, int]]:
    """What waits for each peer and what was given up, as ``forward status`` says it."""
    status = json.loads(cli("forward", "status", "--json", "--data", str(daemon.data)).stdout)
    return [(one["peer"], one["waiting"], one["dead"]) for one in status]


ROUTE = '[[routes]]\nto = "STORESCP"\nmodality = "CT"\ncalling_aet = "DCMSEND"\n'


def test_forwarding_outlives_its_peer_and_the_daemon(
    start: Callable[..., Daemon], tmp_path: Path, folder: Callable[[str], Path]
) -> None:
    """Both are killed: every instance arrives, as it was sent."""
    port, numbers = free_port(), range(1, 13)
    files = [save(instance(number=number), folder("in") / f"{number}.dcm") for number in numbers]
    peers = configured(tmp_path / "c.toml", STORESCP=port)
    with (tmp_path / "c.toml").open("a") as file:
        file.write(ROUTE)
    storescp = ("storescp", "+xa", "+B", "-aet", "STORESCP", str(port))
    daemon = start(*peers)
    with process(*storescp, folder=folder("out"), port=port):
        assert 0 == daemon.send(*files[:4]).returncode
        # Not by the folder alone: storescp files an instance before it answers.
        assert eventually(lambda: len(list(folder("out").iterdir())) == 4 and not forwarding(daemon))
    assert 0 == daemon.send(*files[4:8]).returncode
    daemon.wait_for(lambda event: event.get("event") == "forwarding_paused")
    daemon.kill()
    daemon = start(*peers)
    assert 0 == daemon.send(*files[8:]).returncode
    assert [("STORESCP", 8, 0)] == forwarding(daemon)
    with process(*storescp, folder=folder("out"), port=port):
        assert eventually(lambda: len(list(folder("out").iterdir())) == 12)
        assert 0 == daemon.stop()
    assert {instance(number=n).SOPInstanceUID: encoded(instance(number=n)) for n in numbers} == data_sets(
        folder("out")
    )
