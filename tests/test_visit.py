"""A visit: order by HL7, worklist, step begun, images, step completed; the resources after each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.daemon import Daemon, cli, eventually
from support.dicom import instance, save
from support.hl7 import Sender, orm, verdict
from support.modality import begun, create, ended, update
from support.worklist import findscu, query

VERSIONS = ("dstu2", "r4", "r5")
ORDER = {"dstu2": "DiagnosticOrder", "r4": "ServiceRequest", "r5": "ServiceRequest"}
PROCEDURE = {"dstu2": "procedure", "r4": "procedureReference", "r5": "partOf"}
STEP_UID = "1.2.826.0.1.3680043.10.1555.88.1"


def start_visit(start: Callable[..., Daemon]) -> Daemon:
    return start(IMAGINGSTUDYD_DICOM__UNKNOWN_CALLERS="all", IMAGINGSTUDYD_WORKLIST__HL7_PORT="0")


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_bytes()) if path.exists() else {}


def study(daemon: Daemon, uid: str, version: str) -> dict[str, Any]:
    return read(daemon.resource(uid, version))


def referred(daemon: Daemon, version: str, reference: dict[str, str]) -> dict[str, Any]:
    kind, identity = reference["reference"].split("/")
    return read(daemon.resource(identity, version, kind))


def published(daemon: Daemon, uid: str) -> list[tuple[str, str | None, int, str, list[str]]]:
    """Return of each version: status, instances, and the status of order and procedures."""
    found = []
    for version in VERSIONS:
        one = study(daemon, uid, version)
        asked = one.get("order") or one.get("basedOn") or []
        done = one.get(PROCEDURE[version]) or []
        done = done if isinstance(done, list) else [done]
        of = [referred(daemon, version, reference) for reference in asked]
        assert {ORDER[version]} >= {order["resourceType"] for order in of}
        found.append(
            (
                version,
                one.get("status"),
                one.get("numberOfInstances", 0),
                " ".join(order["status"] for order in of),
                [referred(daemon, version, reference)["status"] for reference in done],
            )
        )
    return found


def becomes(daemon: Daemon, uid: str, expected: list[tuple[Any, ...]]) -> None:
    eventually(lambda: _published_or_none(daemon, uid) == expected)
    assert expected == published(daemon, uid)


def _published_or_none(daemon: Daemon, uid: str) -> list[Any] | None:
    try:
        return published(daemon, uid)
    except (KeyError, ValueError):
        return None  # between two files of one publication


def test_a_whole_visit(start: Callable[..., Daemon], tmp_path: Path) -> None:
    daemon = start_visit(start)
    hl7 = daemon.wait_for(lambda event: event.get("event") == "ready")["hl7"]
    ris = Sender(tuple(hl7))
    assert verdict(ris.send(orm())).startswith("AA")
    ris.close()

    asked = query(
        Modality="CT", ScheduledProcedureStepStartDate="20260105", RequestedProcedureCodeSequence=[]
    )
    (item,), _ = findscu(daemon.port, asked, tmp_path)
    uid = str(item.StudyInstanceUID)
    assert ("A1", "RP1", "P1") == (item.AccessionNumber, item.RequestedProcedureID, item.PatientID)
    becomes(
        daemon,
        uid,
        [
            ("dstu2", None, 0, "", []),
            ("r4", "registered", 0, "active", []),
            ("r5", "registered", 0, "active", []),
        ],
    )

    step = begun(item, ProcedureCodeSequence=item.RequestedProcedureCodeSequence)
    assert 0x0000 == create(daemon.port, STEP_UID, step).Status
    becomes(
        daemon,
        uid,
        [
            ("dstu2", None, 0, "", []),
            ("r4", "registered", 0, "active", ["in-progress"]),
            ("r5", "registered", 0, "active", ["in-progress"]),
        ],
    )
    assert ([], 0) == (findscu(daemon.port, query(), tmp_path)[0], 0)

    daemon = restarted(daemon, start)
    images = send_images(daemon, item, tmp_path)
    becomes(
        daemon,
        uid,
        [
            ("dstu2", None, 2, "in-progress", ["in-progress"]),
            ("r4", "available", 2, "active", ["in-progress"]),
            ("r5", "available", 2, "active", ["in-progress"]),
        ],
    )
    unfinished = json.loads(cli("studies", "--incomplete", "--json", "--data", str(daemon.data)).stdout)
    assert [(uid, 1, [])] == [(one["uid"], one["in_progress"], one["missing"]) for one in unfinished]

    assert (
        0x0000 == update(daemon.port, STEP_UID, ended("COMPLETED", f"{uid}.1", [*images, "1.2.3.4.5"])).Status
    )
    becomes(
        daemon,
        uid,
        [
            ("dstu2", None, 2, "completed", ["completed"]),
            ("r4", "available", 2, "completed", ["completed"]),
            ("r5", "available", 2, "completed", ["completed"]),
        ],
    )
    shown = cli("show", uid, "--fhir", "r4", "--data", str(daemon.data))
    assert "an instance that is not here: 1.2.3.4.5" in shown.stderr

    late = instance(
        SOPInstanceUID="1.2.3.4.5", StudyInstanceUID=uid, SeriesInstanceUID=f"{uid}.1", PatientID="P1"
    )
    daemon.send(save(late, tmp_path / "late" / "1.dcm"))
    assert [] == json.loads(cli("studies", "--incomplete", "--json", "--data", str(daemon.data)).stdout)


def restarted(daemon: Daemon, start: Callable[..., Daemon]) -> Daemon:
    """A power cut in the middle of the visit."""
    daemon.kill()
    return start_visit(start)


def send_images(daemon: Daemon, item: Any, folder: Path) -> list[str]:
    """Send two images with the identifiers that a scanner takes from the worklist."""
    uids = []
    for number in (1, 2):
        image = instance(
            SOPInstanceUID=f"1.2.826.0.1.3680043.10.1555.88.2.{number}",
            StudyInstanceUID=str(item.StudyInstanceUID),
            SeriesInstanceUID=f"{item.StudyInstanceUID}.1",
            PatientID=item.PatientID,
            PatientName=item.PatientName,
            AccessionNumber=item.AccessionNumber,
            InstanceNumber=str(number),
        )
        uids.append(image.SOPInstanceUID)
        save(image, folder / "images" / f"{number}.dcm")
    assert 0 == daemon.send(folder / "images").returncode
    return uids
