"""The same 40 queries asked of this daemon, of DCMTK's dcmqrscp and of Orthanc, with the same images."""

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from support.daemon import START_SECONDS, Daemon, run, serving
from support.dicom import ROOT, instance, save
from support.worklist import await_port

UTF_8 = "ISO_IR 192"
MR = "1.2.840.10008.5.1.4.1.1.4"
IMAGES = [
    *(instance(1, 1, number, PatientBirthDate="19700101", PatientSex="F") for number in (1, 2, 3)),
    instance(1, 2, 1, PatientBirthDate="19700101", PatientSex="F", Modality="MR", SOPClassUID=MR),
    instance(2, 1, 1, PatientID="P1", PatientBirthDate="19700101", PatientSex="F", StudyDate="20260105",
             StudyTime="081500", StudyID="S2"),
    instance(3, 1, 1, PatientName="Smith^John", PatientSex="M", StudyDate="20260110", StudyTime="235959",
             AccessionNumber="ACC-3", StudyDescription="Knee left"),
    instance(4, 1, 1, PatientName="Smithson^Ann", StudyDate="20251231", StudyTime="120000",
             SeriesDescription="Axial", StudyDescription="Knee right"),
    instance(5, 1, 1, SpecificCharacterSet=UTF_8, PatientName="Müller^Hans", StudyDate="20260201"),
    instance(5, 3, 7, SpecificCharacterSet=UTF_8, PatientName="Müller^Hans", StudyDate="20260201"),
]  # fmt: skip

P, S, I1, I2 = "-P", "-S", f"{ROOT}.1", f"{ROOT}.2"
STUDY, SERIES, IMAGE = f"StudyInstanceUID={I1}", f"SeriesInstanceUID={I1}.1", "SOPInstanceUID"

# Model, level, keys, the last parts of the UIDs (or PatientIDs) that are answered.
QUERIES = [
    (P, "PATIENT", ("PatientID",), ("P1", "P3", "P4", "P5")),
    (P, "PATIENT", ("PatientID=P1",), ("P1",)),
    (P, "PATIENT", ("PatientID=P9",), ()),
    (P, "PATIENT", ("PatientID", "PatientName=Smith*"), ("P3", "P4")),
    (P, "PATIENT", ("PatientID", "PatientName=Smith^John"), ("P3",)),
    (P, "PATIENT", ("PatientID=P?",), ("P1", "P3", "P4", "P5")),
    (P, "PATIENT", ("PatientID", "PatientSex=F"), ("P1",)),
    (P, "STUDY", ("PatientID=P1", "StudyInstanceUID"), ("1", "2")),
    (P, "STUDY", ("PatientID=P1", "StudyInstanceUID", "StudyDate=20260105"), ("2",)),
    (P, "SERIES", ("PatientID=P1", STUDY, "SeriesInstanceUID"), ("1.1", "1.2")),
    (P, "IMAGE", ("PatientID=P1", STUDY, SERIES, IMAGE), ("1.1.1", "1.1.2", "1.1.3")),
    (S, "STUDY", ("StudyInstanceUID",), ("1", "2", "3", "4", "5")),
    (S, "STUDY", (STUDY,), ("1",)),
    (S, "STUDY", (f"StudyInstanceUID={I1}\\{I2}",), ("1", "2")),
    (S, "STUDY", ("StudyInstanceUID=1.2.3",), ()),
    (S, "STUDY", ("StudyInstanceUID", "PatientName=Smith*"), ("3", "4")),
    (S, "STUDY", ("StudyInstanceUID", "PatientName=*mith*"), ("3", "4")),
    (S, "STUDY", ("StudyInstanceUID", "PatientName=Sm?th^John"), ("3",)),
    (S, "STUDY", ("StudyInstanceUID", "PatientName=*"), ("1", "2", "3", "4", "5")),
    (S, "STUDY", ("StudyInstanceUID", "PatientID=P1"), ("1", "2")),
    (S, "STUDY", ("StudyInstanceUID", "AccessionNumber=ACC-3"), ("3",)),
    (S, "STUDY", ("StudyInstanceUID", "AccessionNumber=A*"), ("1", "2", "3", "4", "5")),
    (S, "STUDY", ("StudyInstanceUID", "AccessionNumber=?1"), ("1",)),
    (S, "STUDY", ("StudyInstanceUID", "StudyID=S2"), ("2",)),
    (S, "STUDY", ("StudyInstanceUID", "StudyDate=20260110"), ("3",)),
    (S, "STUDY", ("StudyInstanceUID", "StudyDate=20260102-20260110"), ("1", "2", "3")),
    (S, "STUDY", ("StudyInstanceUID", "StudyDate=-20260102"), ("1", "4")),
    (S, "STUDY", ("StudyInstanceUID", "StudyDate=20260110-"), ("3", "5")),
    (S, "STUDY", ("StudyInstanceUID", "StudyTime=120000-"), ("3", "4")),
    (S, "STUDY", ("StudyInstanceUID", "StudyDate=20260101-20260131", "StudyTime=120000-235959"), ("3",)),
    (S, "STUDY", ("StudyInstanceUID", "StudyDescription=Knee*"), ("3", "4")),
    (S, "STUDY", ("StudyInstanceUID", "ModalitiesInStudy=MR"), ("1",)),
    (S, "STUDY", ("StudyInstanceUID", "PatientName=SMITH*"), ("3", "4")),
    (S, "STUDY", ("StudyInstanceUID", "PatientSex=M"), ("3",)),
    (S, "SERIES", (STUDY, "SeriesInstanceUID", "Modality=MR"), ("1.2",)),
    (S, "SERIES", (f"StudyInstanceUID={ROOT}.5", "SeriesInstanceUID", "SeriesNumber=3"), ("5.3",)),
    (S, "SERIES", ("SeriesInstanceUID",), ()),
    (S, "IMAGE", (STUDY, SERIES, IMAGE, "InstanceNumber=2"), ("1.1.2",)),
    (S, "IMAGE", (STUDY, SERIES, f"{IMAGE}={I1}.1.3"), ("1.1.3",)),
    (S, "PATIENT", ("PatientID",), ()),
]  # fmt: skip

EVERY_SERIES = ("1.1", "1.2", "2.1", "3.1", "4.1", "5.1", "5.3")
DIFFERENCES: dict[tuple[str, int], tuple[tuple[str, ...], str]] = {
    ("dcmqrscp", 31): (("1", "2", "3", "4", "5"), "does not match ModalitiesInStudy, an optional key"),
    ("dcmqrscp", 32): ((), "matches names with their case; PS3.4 C.2.2.2.1 leaves that to the SCP"),
    ("orthanc", 36): (EVERY_SERIES, "answers relational queries that were not negotiated; PS3.4 C.4.1.2.1"),
    ("orthanc", 39): (
        ("P1", "P3", "P4", "P5"),
        "answers a level that Study Root does not have; PS3.4 C.6.2.1",
    ),
}
"""What another program answers instead, by its name and the number of the query, and why."""

UNIQUE = {
    "PATIENT": "PatientID",
    "STUDY": "StudyInstanceUID",
    "SERIES": "SeriesInstanceUID",
    "IMAGE": "SOPInstanceUID",
}


@contextmanager
def listening(folder: Path, *command: str, port: int) -> Iterator[int]:
    """Run a server until it is left."""
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=folder,
            env={**os.environ, "TCP_NODELAY": "1"},
        )  # fmt: skip
    try:
        await_port(port)
        yield port
    finally:
        server.terminate()
        server.wait(START_SECONDS)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def dcmqrscp(folder: Path) -> Iterator[int]:
    port = free_port()
    (folder / "storage").mkdir(parents=True)
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nANY-SCP {folder}/storage RW (1000, 1gb) ANY\nAETable END\n"
    )
    with listening(folder, "dcmqrscp", "-c", str(folder / "dcmqrscp.cfg"), str(port), port=port):
        yield port


@contextmanager
def orthanc(folder: Path) -> Iterator[int]:
    port = free_port()
    folder.mkdir()
    settings = {
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowFind": True,
        "StorageDirectory": str(folder / "storage"),
        "HttpServerEnabled": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with listening(folder, "Orthanc", str(folder / "orthanc.json"), port=port):
        yield port


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """All three, with the same images."""
    folder = tmp_path_factory.mktemp("peers")
    for number, image in enumerate(IMAGES):
        save(image, folder / "images" / f"{number}.dcm")
    servers = serving(folder / "ours", IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS="all")
    ours: Daemon = next(servers)
    with dcmqrscp(folder / "dcmtk") as theirs, orthanc(folder / "orthanc") as orthancs:
        found = {"ours": ours.port, "dcmqrscp": theirs, "orthanc": orthancs}
        for port in found.values():
            sent = run("storescu", "-aec", "ANY-SCP", "+sd", "127.0.0.1", str(port), str(folder / "images"))
            assert 0 == sent.returncode, sent.stderr
        yield found
    servers.close()


def answers(
    port: int, query: tuple[str, str, tuple[str, ...], tuple[str, ...]], folder: Path
) -> list[Dataset]:
    model, level, keys, _ = query
    folder.mkdir()
    command = ["findscu", "-v", model, "-X", "-od", str(folder), "-aec", "ANY-SCP"]
    command += [part for key in (f"QueryRetrieveLevel={level}", *keys) for part in ("-k", key)]
    ended = run(*command, "127.0.0.1", str(port), TCP_NODELAY="1")
    assert 0 == ended.returncode, ended.stderr
    return [dcmread(path) for path in folder.glob("rsp*.dcm")]


def test_there_are_forty() -> None:
    assert 40 == len({query[:3] for query in QUERIES})


def test_the_page_has_every_difference() -> None:
    """When it fails: put the rows into docs/QUERY.md."""
    rows = ["| peer | query | it answers | we answer | why |", "|---|---|---|---|---|"]
    for (peer, number), (theirs, why) in DIFFERENCES.items():
        model, level, keys, ours = QUERIES[number]
        query = ", ".join([f"{MODELS[model]}, {level}", *(key.replace(f"{ROOT}.", "…") for key in keys)])
        rows.append(f"| {peer} | {query} | {matches(theirs)} | {matches(ours)} | {why} |")
    page = (Path(__file__).parents[3] / "docs/QUERY.md").read_text(encoding="utf-8")
    assert rows == [line for line in page.splitlines() if line.startswith("|")]


MODELS = {P: "Patient Root", S: "Study Root"}


def matches(uids: tuple[str, ...]) -> str:
    return {0: "nothing", 1: "one match"}.get(len(uids), f"{len(uids)} matches")


@pytest.mark.parametrize("number", range(len(QUERIES)))
def test_the_same_matches(number: int, ports: dict[str, int], tmp_path: Path) -> None:
    _, level, _, expected = query = QUERIES[number]
    found = {}
    for name, port in ports.items():
        uids = (str(answer.get(UNIQUE[level], "")) for answer in answers(port, query, tmp_path / name))
        found[name] = tuple(sorted(uid.removeprefix(f"{ROOT}.") for uid in uids))
    wanted = {name: DIFFERENCES.get((name, number), (expected,))[0] for name in ports}
    assert wanted == found
