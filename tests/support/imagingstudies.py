"""Invented studies: one for each kind of department, with names in several scripts. No real patients."""

import hashlib
import json
from pathlib import Path
from typing import Any

from index.imagingstudy import VERSIONS, Resource, Rules, build
from index.records import Attributes, Instance, Order, Patient, ProcedureStep, Series, Study

GOLDEN = Path(__file__).parents[1] / "index" / "imagingstudy" / "golden"
ROOT = "1.2.826.0.1.3680043.8.498"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4.1"
KO, PR, SR = (f"1.2.840.10008.5.1.4.1.1.{leaf}" for leaf in ("88.59", "11.1", "88.22"))
RTSTRUCT, RTPLAN, RTDOSE, RTIMAGE = (f"1.2.840.10008.5.1.4.1.1.481.{leaf}" for leaf in (3, 5, 2, 1))
US = "1.2.840.10008.5.1.4.1.1.3.1"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"

RULES = Rules(
    dicomweb_base="https://pacs.example.org/dicom-web/",
    timezone="Europe/Berlin",
    patient_system="https://example.org/patients",
    accession_system="https://example.org/accessions",
    study_id_system="https://example.org/studies",
    issuer_systems={"CITY": "urn:oid:2.999.1"},
    coding_systems={"99RIS": "https://example.org/procedures"},
)


def resources(study: Study, version: str, rules: Rules) -> list[Resource]:
    """Return the resources of a build: the ImagingStudy first, then the Patient, then the others."""
    return build(study, version, rules).resources


def code(value: str, scheme: str, meaning: str) -> Attributes:
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


def person(value: str, scheme: str = "99STAFF") -> Attributes:
    return {"PersonIdentificationCodeSequence": [code(value, scheme, "Staff number")]}


def instance(uid: str, sop_class: str, size: int = 526_000, **attributes: Any) -> Instance:
    return Instance(uid, sop_class, size, hashlib.sha1(uid.encode()).hexdigest(), attributes)  # noqa: S324 - as DSTU2 wants


def series(uid: str, instances: list[Instance], **attributes: Any) -> Series:
    return Series(uid, attributes, instances)


def images(uid: str, count: int, sop_class: str, kind: list[str], size: int = 526_000) -> list[Instance]:
    return [
        instance(f"{uid}.{n}", sop_class, size, InstanceNumber=str(n), ImageType=kind)
        for n in range(1, count + 1)
    ]


def ct_two_series() -> Study:
    """A CT with two series, an order and its finished step: every element is filled."""
    uid = f"{ROOT}.1"
    chest = code("24627-2", "LN", "CT Chest")
    return Study(
        uid,
        Patient(
            "patient-1",
            {
                "PatientName": "Doe^Jane^Mary^Ms^PhD",
                "PatientID": "4711",
                "IssuerOfPatientID": "CITY",
                "OtherPatientIDsSequence": [{"PatientID": "0815", "IssuerOfPatientID": "ELSEWHERE"}],
                "PatientBirthDate": "19700228",
                "PatientSex": "F",
            },
        ),
        {
            "StudyDate": "20240702",
            "StudyTime": "101530.250",
            "AccessionNumber": "A-1",
            "StudyID": "S-1",
            "StudyDescription": "CT chest",
            "ReferringPhysicianName": "House^Gregory^^Dr",
            "ReferringPhysicianIdentificationSequence": [person("77")],
            "NameOfPhysiciansReadingStudy": ["Reader^First", "Reader^Second"],
            "ProcedureCodeSequence": [chest],
            "RequestedProcedureCodeSequence": [code("CTCH", "99RIS", "CT chest, local")],
            "ReasonForTheRequestedProcedure": "cough",
            "ReasonForRequestedProcedureCodeSequence": [code("49727002", "SCT", "Cough")],
            "AdmissionID": "V-1",
            "IssuerOfAdmissionIDSequence": [{"LocalNamespaceEntityID": "CITY"}],
        },
        [
            series(
                f"{uid}.1",
                images(f"{uid}.1", 2, CT, ["ORIGINAL", "PRIMARY", "LOCALIZER"]),
                Modality="CT",
                SeriesNumber="1",
                SeriesDescription="Scout",
                SeriesDate="20240702",
                SeriesTime="1016",
                BodyPartExamined="CHEST",
                PerformingPhysicianName=["Performer^Paul"],
                PerformingPhysicianIdentificationSequence=[person("78")],
                OperatorsName=["Operator^Olga"],
                InstitutionName="City Hospital",
                InstitutionalDepartmentName="Radiology",
            ),
            series(
                f"{uid}.2",
                images(f"{uid}.2", 3, CT, ["ORIGINAL", "PRIMARY", "AXIAL"]),
                Modality="CT",
                SeriesNumber="2",
                SeriesDescription="Left lung",
                SeriesDate="20240702",
                SeriesTime="101700",
                TimezoneOffsetFromUTC="+0300",
                AnatomicRegionSequence=[code("44029006", "SCT", "Left lung")],
                Laterality="L",
                SpecimenDescriptionSequence=[
                    {
                        "SpecimenIdentifier": "SP-1",
                        "SpecimenTypeCodeSequence": [code("119376003", "SCT", "Tissue specimen")],
                    }
                ],
            ),
        ],
        orders=[
            Order(
                "order-1",
                "COMPLETED",
                {
                    "AccessionNumber": "A-1",
                    "PlacerOrderNumberImagingServiceRequest": "P-1",
                    "FillerOrderNumberImagingServiceRequest": "F-1",
                    "RequestedProcedureID": "RP-1",
                    "RequestedProcedureCodeSequence": [chest],
                    "RequestedProcedurePriority": "HIGH",
                    "RequestingPhysician": "House^Gregory^^Dr",
                    "ReasonForTheRequestedProcedure": "cough",
                    "IssueDateOfImagingServiceRequest": "20240701",
                    "ScheduledProcedureStepSequence": [
                        {
                            "ScheduledProcedureStepStartDate": "20240702",
                            "ScheduledProcedureStepStartTime": "1000",
                        }
                    ],
                },
            )
        ],
        steps=[
            ProcedureStep(
                f"{uid}.9",
                "COMPLETED",
                {
                    "PerformedProcedureStepStartDate": "20240702",
                    "PerformedProcedureStepStartTime": "101500",
                    "PerformedProcedureStepEndDate": "20240702",
                    "PerformedProcedureStepEndTime": "103000",
                    "ProcedureCodeSequence": [chest],
                    "PerformedSeriesSequence": [{"OperatorsName": ["Operator^Olga"]}],
                },
            )
        ],
    )


def enhanced_mr() -> Study:
    """An enhanced MR: one large multi-frame object, codes of an old scheme, the configured zone."""
    uid = f"{ROOT}.2"
    frames = instance(
        f"{uid}.1.1",
        MR,
        3_000_000_000,
        InstanceNumber="1",
        NumberOfFrames="1200",
        ImageType=["ORIGINAL", "PRIMARY", "ANGIO", "NONE"],
    )
    brain = {"AnatomicRegionSequence": [code("T-A0100", "SRT", "Brain")], "BodyPartExamined": "BRAIN"}
    return Study(
        uid,
        Patient("patient-2", {"PatientName": "Roe^Richard", "PatientID": "2", "PatientSex": "M"}),
        {"StudyDate": "20241231", "StudyTime": "235959", "StudyDescription": "MR angiography"},
        [series(f"{uid}.1", [frames], Modality="MR", SeriesNumber="301", Laterality="U", **brain)],
    )


def report_key_objects_presentation() -> Study:
    """An SR with a KO, a PR and an encapsulated PDF, of a patient with an OID as issuer: no image at all."""
    uid = f"{ROOT}.3"
    title = [code("18748-4", "LN", "Diagnostic imaging report")]
    rejected = [code("113001", "DCM", "Rejected for Quality Reasons")]
    return Study(
        uid,
        Patient(
            "patient-3",
            {
                "PatientName": "Müller^Jürgen",
                "PatientID": "3",
                "IssuerOfPatientID": "STATE",
                "IssuerOfPatientIDQualifiersSequence": [
                    {"UniversalEntityID": "2.999.7", "UniversalEntityIDType": "ISO"}
                ],
                "PatientSex": "O",
            },
        ),
        {"StudyDate": "20240703", "StudyTime": "24:00", "TimezoneOffsetFromUTC": "-0330"},
        [
            series(
                f"{uid}.1", [instance(f"{uid}.1.1", SR, 9_000, ConceptNameCodeSequence=title)], Modality="SR"
            ),
            series(
                f"{uid}.2",
                [instance(f"{uid}.2.1", KO, 5_000, ConceptNameCodeSequence=rejected)],
                Modality="KO",
            ),
            series(f"{uid}.3", [instance(f"{uid}.3.1", PR, 4_000, ContentLabel="WINDOW_1")], Modality="PR"),
            series(f"{uid}.4", [instance(f"{uid}.4.1", PDF, 80_000, DocumentTitle="Letter")], Modality="DOC"),
        ],
    )


def radiotherapy() -> Study:
    """RT structure set, plan, dose and image; the dose is not at hand, the plan's series is not named."""
    uid = f"{ROOT}.4"
    return Study(
        uid,
        Patient("patient-4", {"PatientID": "4"}),
        {"StudyDate": "20240704", "StudyTime": "08", "RequestedProcedureDescription": "Planning"},
        [
            series(f"{uid}.1", [instance(f"{uid}.1.1", RTSTRUCT, InstanceNumber="-1")], Modality="RTSTRUCT"),
            series(f"{uid}.2", [instance(f"{uid}.2.1", RTPLAN)], SeriesNumber="0"),
            series(
                f"{uid}.3",
                [instance(f"{uid}.3.1", RTDOSE, InstanceAvailability="NEARLINE")],
                Modality="RTDOSE",
            ),
            series(
                f"{uid}.4",
                [instance(f"{uid}.4.1", RTIMAGE, ImageType=["DERIVED", "SECONDARY", "DRR"])],
                Modality="RTIMAGE",
            ),
        ],
    )


def ultrasound() -> Study:
    """Ultrasound loops of many frames, of both breasts, at an offset of the instances."""
    uid = f"{ROOT}.5"
    loops = images(f"{uid}.1", 2, US, ["ORIGINAL", "PRIMARY", "", "0001"], 48_000_000)
    return Study(
        uid,
        Patient("patient-5", {"PatientName": "Poe^Ann", "PatientID": "5", "PatientBirthDate": "1999.01.02"}),
        {"StudyDate": "20240705", "StudyTime": "070809", "TimezoneOffsetFromUTC": "+0530"},
        [
            series(
                f"{uid}.1",
                loops,
                Modality="US",
                SeriesNumber="1",
                BodyPartExamined="breast",
                ImageLaterality="B",
            )
        ],
    )


def japanese() -> Study:
    """A name in three component groups (PS3.5 H.3.1), of the patient and of the referring physician."""
    uid = f"{ROOT}.6"
    return Study(
        uid,
        Patient(
            "patient-6",
            {"PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう", "PatientID": "6", "PatientSex": "M"},
        ),
        {
            "StudyDate": "20240706",
            "StudyDescription": "頭部\u3000CT",
            "ReferringPhysicianName": "=鈴木^花子=すずき^はなこ",
        },
        [series(f"{uid}.1", images(f"{uid}.1", 1, CT, ["ORIGINAL", "PRIMARY"]), Modality="CT")],
    )


def korean() -> Study:
    """A name in three component groups (PS3.5 I.2)."""
    uid = f"{ROOT}.7"
    return Study(
        uid,
        Patient("patient-7", {"PatientName": "Hong^Gildong=洪^吉洞=홍^길동", "PatientID": "7"}),
        {"StudyDate": "20240707"},
        [series(f"{uid}.1", images(f"{uid}.1", 1, CT, ["ORIGINAL", "PRIMARY"]), Modality="CT")],
    )


STUDIES = {
    make.__name__: make
    for make in (
        ct_two_series,
        enhanced_mr,
        report_key_objects_presentation,
        radiotherapy,
        ultrasound,
        japanese,
        korean,
    )
}


def write_golden() -> None:
    """Writes the golden files anew; read the difference before you commit it."""
    for name, make in STUDIES.items():
        for version in VERSIONS:
            made = resources(make(), version, RULES)
            text = json.dumps(made, ensure_ascii=False, indent=1) + "\n"
            (GOLDEN / f"{name}.{version}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write_golden()
