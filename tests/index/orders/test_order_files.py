"""Orders from files: a folder that is followed, and imports of every kind."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from index import Index
from index.orders import dicom, fhir
from support.daemon import cli, eventually
from support.dicom import ROOT, instance, save
from support.filling import keep
from support.hl7 import END, START, message, msh, orm
from support.worklist import selected

WORKLIST_CLASS = "1.2.840.10008.5.1.4.31"


def item(number: int = 1, **attributes: Any) -> Dataset:
    """Return a worklist item as wlmscpfs keeps it."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = WORKLIST_CLASS, f"1.2.{number}"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.PatientID = "Müller^Zoë", f"P{number}"
    dataset.PatientWeight = "70.5"
    dataset.AccessionNumber = f"A{number}"
    dataset.RequestedProcedureID = f"RP{number}"
    dataset.StudyInstanceUID = f"1.2.3.{number}"
    step = Dataset()
    step.ScheduledStationAETitle = ["CT1", "CT2"] if number == 3 else "CT1"
    step.Modality = "CT"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20260105", "101500"
    step.ScheduledProcedureStepID = "S1"
    dataset.ScheduledProcedureStepSequence = [step]
    for keyword, value in attributes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


def accessions(index: Index) -> list[str]:
    return sorted(one.attributes["AccessionNumber"] for one in selected(index))


@pytest.fixture
def followed(served: Callable[..., Index], tmp_path: Path) -> Index:
    (tmp_path / "wl").mkdir()
    return served(folder=tmp_path / "wl")


def test_added_changed_and_removed_files_are_followed(followed: Index, tmp_path: Path) -> None:
    first = save(item(1), tmp_path / "wl" / "a.wl")
    save(item(2), tmp_path / "wl" / "deep" / "deeper" / "B.WL")
    save(item(4), tmp_path / "wl" / "not-a-worklist.dcm")
    assert eventually(lambda: ["A1", "A2"] == accessions(followed))
    (told, _) = followed.orders.listed()
    assert ("Müller^Zoë", "70.5", "1.2.3.1") == (
        told.attributes["PatientName"],
        told.attributes["PatientWeight"],
        told.study_uid,
    )
    assert "ISO_IR 100" == selected(followed)[0].charset

    save(item(1, AccessionNumber="A1-changed"), first)
    assert eventually(lambda: ["A1-changed", "A2"] == accessions(followed))
    first.unlink()
    assert eventually(lambda: ["A2"] == accessions(followed))
    assert eventually(lambda: 1 == len(followed.orders.listed()))


def test_a_file_that_goes_when_its_images_are_there_leaves_its_order(followed: Index, tmp_path: Path) -> None:
    path = save(item(1), tmp_path / "wl" / "a.wl")
    assert eventually(lambda: ["A1"] == accessions(followed))
    keep(followed, instance(1))
    assert eventually(lambda: (f"{ROOT}.1",) == followed.orders.listed()[0].studies)
    path.unlink()
    assert eventually(lambda: [] == accessions(followed))
    assert ["COMPLETED"] == [order.status for order in followed.orders.listed()]


def test_bad_files_are_passed_over_and_taken_when_mended(followed: Index, tmp_path: Path) -> None:
    folder = tmp_path / "wl"
    (folder / "0.wl").write_bytes(b"")
    (folder / "1.wl").write_bytes(os.urandom(2000))
    save(item(1), folder / "whole.wl")
    (folder / "cut.wl").write_bytes((folder / "whole.wl").read_bytes()[:300])
    save(item(5, ScheduledProcedureStepSequence=None), folder / "no-step.wl")
    save(item(6, PatientID=None, PatientName=None), folder / "nobody.wl")
    (folder / "dangling.wl").symlink_to(folder / "nowhere")
    save(item(2), folder / "z.wl")
    assert eventually(lambda: ["A1", "A2"] == accessions(followed))
    save(item(5), folder / "no-step.wl")
    assert eventually(lambda: ["A1", "A2", "A5"] == accessions(followed))


def test_what_changed_while_nobody_looked_is_seen(served: Callable[..., Index], tmp_path: Path) -> None:
    folder = tmp_path / "wl"
    gone = save(item(1), folder / "a.wl")
    save(item(2), folder / "b.wl")
    index = served(folder=folder)
    assert eventually(lambda: ["A1", "A2"] == accessions(index))
    uids = [order.study_uid for order in index.orders.listed()]
    served()
    gone.unlink()
    save(item(3), folder / "c.wl")
    index = served(folder=folder)
    assert eventually(lambda: ["A2", "A3"] == accessions(index))
    assert uids[1] == index.orders.listed()[0].study_uid
    assert {"CT1": 2, "CT2": 1, "XX": 1} == {
        station: len(selected(index, ScheduledStationAETitle=station)) for station in ("CT1", "CT2", "XX")
    }


def test_a_lost_share_does_not_empty_the_worklist(followed: Index, tmp_path: Path) -> None:
    save(item(1), tmp_path / "wl" / "a.wl")
    assert eventually(lambda: ["A1"] == accessions(followed))
    (tmp_path / "wl").rename(tmp_path / "away")
    followed.orders._folder.update()
    assert ["A1"] == accessions(followed)


def test_a_worklist_file_is_bounded(tmp_path: Path) -> None:
    big = tmp_path / "big.wl"
    big.write_bytes(bytes(dicom.MAX_FILE + 1))
    with pytest.raises(dicom.BadItem, match="bytes are more than"):
        dicom.read_file(big)
    nested = Dataset()
    for _ in range(dicom.MAX_DEPTH + 1):
        outer = Dataset()
        outer.ScheduledProcedureStepSequence = [nested]
        nested = outer
    with pytest.raises(dicom.BadItem, match="nested"):
        dicom.attributes_of(nested)


PATIENT = {
    "resourceType": "Patient",
    "id": "p",
    "identifier": [
        {"system": "urn:x", "value": "SSN1"},
        {"type": {"coding": [{"code": "MR"}]}, "system": "urn:oid:1.2.3", "value": "P1"},
    ],
    "name": [{"family": "Doe", "given": ["Jane", "Q"], "prefix": ["Dr"]}],
    "birthDate": "1970-01-02",
    "gender": "female",
}
REQUEST = {
    "resourceType": "ServiceRequest",
    "id": "sr1",
    "status": "active",
    "intent": "order",
    "priority": "urgent",
    "identifier": [
        {"type": {"coding": [{"code": "ACSN"}]}, "value": "A1"},
        {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.4"},
    ],
    "code": {"coding": [{"system": "http://snomed.info/sct", "code": "303653007", "display": "CT of head"}]},
    "orderDetail": [{"coding": [{"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}]}],
    "subject": {"reference": "#p"},
    "contained": [PATIENT],
    "occurrenceDateTime": "2026-01-05T10:15:00+01:00",
    "authoredOn": "2026-01-04",
    "requester": {"display": "Dr Roe"},
    "reasonCode": [{"text": "Headache"}],
    "performer": [{"type": "Device", "identifier": {"value": "CT1"}}],
}


def test_a_service_request_with_its_patient(index: Index) -> None:
    (row,) = index.orders.store.put_all(fhir.orders_of(REQUEST))
    (order,) = index.orders.listed(row)
    code = {"CodeValue": "303653007", "CodingSchemeDesignator": "SCT", "CodeMeaning": "CT of head"}
    expected = {
        "PatientID": "P1",
        "IssuerOfPatientIDQualifiersSequence": [
            {"UniversalEntityID": "1.2.3", "UniversalEntityIDType": "ISO"}
        ],
        "PatientName": "Doe^Jane^Q^Dr",
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "AccessionNumber": "A1",
        "RequestedProcedureID": "sr1",
        "RequestedProcedureDescription": "CT of head",
        "RequestedProcedureCodeSequence": [code],
        "RequestedProcedurePriority": "HIGH",
        "ReasonForTheRequestedProcedure": "Headache",
        "RequestingPhysician": "Dr Roe",
        "ReferringPhysicianName": "Dr Roe",
        "IssueDateOfImagingServiceRequest": "20260104",
        "StudyInstanceUID": "1.2.3.4",
        "ScheduledProcedureStepSequence": [
            {
                "Modality": "CT",
                "ScheduledStationAETitle": "CT1",
                "ScheduledProcedureStepID": "1-1",
                "ScheduledProcedureStepStatus": "SCHEDULED",
                "ScheduledProcedureStepStartDate": "20260105",
                "ScheduledProcedureStepStartTime": "101500",
                "ScheduledProcedureStepDescription": "CT of head",
                "ScheduledProtocolCodeSequence": [code],
            }
        ],
    }
    assert expected == order.attributes
    assert [row] == index.orders.store.put_all(fhir.orders_of({**REQUEST, "status": "revoked"}))
    assert ["CANCELLED"] == [one.status for one in index.orders.listed()]


def test_a_bundle(index: Index) -> None:
    request = {**REQUEST, "subject": {"reference": "urn:uuid:1"}, "contained": []}
    entries = [
        {"fullUrl": "urn:uuid:1", "resource": PATIENT},
        {"resource": request},
        {"resource": {**request, "id": "sr2"}},
    ]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": entries}
    assert 2 == len(index.orders.store.put_all(fhir.orders_of(bundle)))


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        ([], "not a FHIR resource"),
        ({"resourceType": "Patient"}, "resourceType 'Patient'"),
        ({**REQUEST, "status": "nonsense"}, "ServiceRequest.status 'nonsense' is none of draft"),
        ({**REQUEST, "subject": {"reference": "Patient/9"}}, "ServiceRequest.subject 'Patient/9'"),
        ({**REQUEST, "contained": [{**PATIENT, "identifier": []}]}, "Patient.identifier"),
        ({**REQUEST, "id": None, "identifier": []}, "neither id nor an identifier"),
    ],
)
def test_a_resource_that_is_no_order(resource: Any, reason: str) -> None:
    with pytest.raises(fhir.BadResource, match=reason):
        fhir.orders_of(resource)


def test_import_takes_every_kind_and_names_what_is_bad(index: Index, tmp_path: Path) -> None:
    save(item(1), tmp_path / "in" / "one.wl")
    two = orm(accession="A2", placer="L2", filler="F2", procedure="R2")
    three = orm(accession="A3", placer="L3", filler="F3", procedure="R3").replace(b"\r", b"\r\n")
    batch = b"BHS|^~\\&\r" + two + three + message(msh("ORM^O01")) + b"BTS|3\r"
    (tmp_path / "in" / "batch.hl7").write_bytes(batch)
    (tmp_path / "in" / "framed.bin").write_bytes(
        START + orm(accession="A4", placer="L4", filler="", procedure="R4") + END
    )
    (tmp_path / "in" / "sr.json").write_text(json.dumps(REQUEST))
    (tmp_path / "in" / "bad.json").write_text("{")
    (tmp_path / "in" / "notes.txt").write_text("no order")
    report = index.orders.import_files([tmp_path / "in", tmp_path / "missing"])
    assert (5, ["A1", "A1", "A2", "A3", "A4"]) == (report.taken, accessions(index))
    failed = {path.name: reason for path, reason in report.failed}
    assert {"batch.hl7", "bad.json", "notes.txt", "missing"} == failed.keys()
    assert failed["batch.hl7"].startswith("message 3: AE ORC: the segment is missing")


def test_the_command_line(tmp_path: Path) -> None:
    where = ("--data", str(tmp_path / "data"))
    environment = {"IMAGINGSTUDYD_STORAGE__WATERMARK": "0", "IMAGINGSTUDYD_FHIR__VERSIONS": '["r4"]'}
    patient = ("--patient-id", "P1", "--patient-name", "Doe^Jane")
    added = cli(
        "worklist",
        "add",
        *where,
        *patient,
        "--accession",
        "A1",
        "--modality",
        "CT",
        "--station",
        "CT1",
        "--date",
        "2026-01-05",
        "--time",
        "10:15",
        "--study-uid",
        "1.2.3.4",
        "--json",
        **environment,
    )
    assert 0 == added.returncode, added.stderr
    order = json.loads(added.stdout)
    assert ("1.2.3.4", "cli", "A1") == (
        order["study_uid"],
        order["source"],
        order["attributes"]["AccessionNumber"],
    )
    assert (
        "registered"
        == json.loads((tmp_path / "data/fhir/r4/ImagingStudy/1.2.3.4.json").read_bytes())["status"]
    )
    assert [order] == json.loads(cli("worklist", "list", "--json", *where, **environment).stdout)
    assert "Doe^Jane" in cli("worklist", "list", *where, **environment).stdout

    save(instance(1, AccessionNumber=None), tmp_path / "one.dcm")
    assert 0 == cli("import", str(tmp_path / "one.dcm"), *where, **environment).returncode
    (study,) = json.loads(cli("studies", "--unmatched", "--json", *where, **environment).stdout)
    assert (f"{ROOT}.1", "no order fits") == (study["uid"], study["doubt"])
    assert 0 == cli("match", "set", f"{ROOT}.1", str(order["id"]), *where, **environment).returncode
    assert [] == json.loads(cli("studies", "--unmatched", "--json", *where, **environment).stdout)
    shown = json.loads(cli("show", f"{ROOT}.1", *where, **environment).stdout)
    assert [f"ServiceRequest/{order['key']}"] == [one["reference"] for one in shown["basedOn"]]
    assert not (tmp_path / "data/fhir/r4/ImagingStudy/1.2.3.4.json").exists()
    assert 0 == cli("match", "undo", f"{ROOT}.1", *where, **environment).returncode
    assert 1 == cli("match", "set", "1.9", str(order["id"]), *where, **environment).returncode

    (tmp_path / "bad.hl7").write_bytes(message(msh("ORM^O01")))
    assert 1 == cli("worklist", "import", str(tmp_path / "bad.hl7"), *where, **environment).returncode
    assert 0 == cli("worklist", "remove", str(order["id"]), *where, **environment).returncode
    assert [1, 2] == [
        cli("worklist", "remove", str(order["id"]), *where, **environment).returncode,
        cli("worklist", "add", *where, *patient, "--date", "20261399", **environment).returncode,
    ]
