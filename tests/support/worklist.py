"""Worklist items and queries for tests, as data sets and as DCMTK's tools take them."""

import itertools
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from index import Index, OrderStatus
from index.database.tables import ScheduledStep
from index.query.identifiers import read_identifier
from index.worklist.selection import Selection, WorklistItem
from support.daemon import START_SECONDS, run

WORKLIST = "1.2.840.10008.5.1.4.31"
STEP_KEYS = (
    "ScheduledStationAETitle",
    "ScheduledProcedureStepStartDate",
    "ScheduledProcedureStepStartTime",
    "Modality",
    "ScheduledPerformingPhysicianName",
    "ScheduledProcedureStepID",
    "ScheduledProcedureStepDescription",
)
KEYS = ("PatientName", "PatientID", "AccessionNumber", "RequestedProcedureID", "StudyInstanceUID")


def item(number: int, **changes: Any) -> Dataset:
    """Return a worklist item with all required attributes; `changes` replace values at their level."""
    dataset, step = Dataset(), Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.AccessionNumber = f"A{number}"
    dataset.ReferringPhysicianName = "Refer^Ring"
    dataset.PatientName = f"Doe^Jane{number}"
    dataset.PatientID = f"P{number}"
    dataset.PatientBirthDate = "19700101"
    dataset.PatientSex = "F"
    dataset.StudyInstanceUID = f"1.2.826.0.1.3680043.10.1555.9.{number}"
    dataset.RequestingPhysician = "Request^Ing"
    dataset.RequestedProcedureDescription = "Head"
    dataset.RequestedProcedureID = f"RP{number}"
    dataset.RequestedProcedurePriority = "ROUTINE"
    step.Modality = "CT"
    step.ScheduledStationAETitle = "CT1"
    step.ScheduledProcedureStepStartDate = "20260102"
    step.ScheduledProcedureStepStartTime = "101500"
    step.ScheduledPerformingPhysicianName = "Perform^Ing"
    step.ScheduledProcedureStepDescription = "Head native"
    step.ScheduledProcedureStepID = f"SPS{number}"
    for keyword, value in changes.items():
        setattr(step if keyword in STEP_KEYS or keyword in step else dataset, keyword, value)
    dataset.ScheduledProcedureStepSequence = [step]
    return dataset


def query(**wanted: Any) -> Dataset:
    """Return an identifier with the usual keys; `wanted` gives some of them values."""
    dataset, step = Dataset(), Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in KEYS:
        setattr(dataset, keyword, wanted.pop(keyword, ""))
    for keyword in STEP_KEYS:
        setattr(step, keyword, wanted.pop(keyword, ""))
    for keyword, value in wanted.items():
        setattr(dataset, keyword, value)
    dataset.ScheduledProcedureStepSequence = [step]
    return dataset


def selected(index: Index, **wanted: Any) -> list[WorklistItem]:
    """Return what SQL selects for a query."""
    return list(Selection(index._database, read_identifier(query(**wanted))))


def set_step_status(index: Index, status: OrderStatus) -> None:
    """Set the state of the only scheduled step, as a modality does."""
    ((step,),) = index._database.rows(ScheduledStep.select(ScheduledStep.id))
    with index._database.writing():
        index.orders.store.set_step_status(step, status)


def write(dataset: Dataset, path: Path) -> Path:
    """Write an item or a query as a file that DCMTK reads."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = WORKLIST
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


_counter = itertools.count()


def findscu(
    port: int, asked: Dataset | Path, folder: Path, *options: str, aet: str = "CT1", called: str = "WL"
) -> tuple[list[Dataset], subprocess.CompletedProcess[str]]:
    """Query by DCMTK's findscu; return the answers and the ended command."""
    answers = folder / f"answers{next(_counter)}"
    answers.mkdir(parents=True)
    path = write(asked, answers / "query.dcm") if isinstance(asked, Dataset) else asked
    command = ["findscu", "-v", "-W", "-X", "-od", str(answers), "-aet", aet, "-aec", called, *options]
    ended = run(*command, "127.0.0.1", str(port), str(path), TCP_NODELAY="1")
    found = sorted(answers.glob("rsp*.dcm"), key=lambda p: int(re.sub(r"\D", "", p.stem)))
    return [dcmread(one) for one in found], ended


@contextmanager
def wlmscpfs(folder: Path, aet: str = "WL") -> Iterator[int]:
    """Serve the items of `folder/aet` by DCMTK's wlmscpfs; yield the port."""
    (folder / aet / "lockfile").touch()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        ["wlmscpfs", "--keep-char-set", "-dfp", str(folder), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TCP_NODELAY": "1"},
    )
    try:
        await_port(port)
        yield port
    finally:
        server.terminate()
        server.wait(START_SECONDS)


def await_port(port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nothing listens on {port}")
