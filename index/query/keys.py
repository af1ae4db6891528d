"""The attributes of the Modality Worklist Information Model (PS3.4 Table K.6-1), as a table.

Each entry is matching key type and return key type: R required, O optional, - none; 1, 1C, 2, 2C, 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.tag import BaseTag

from index.dicom.value_rules import tag_and_vr

Entry = tuple[str, str]
Entries = Mapping[str, "Entry | tuple[str, str, Entries]"]

_CODE: Entries = {
    "CodeValue": ("O", "1C"),
    "CodingSchemeDesignator": ("O", "1C"),
    "CodingSchemeVersion": ("O", "3"),
    "CodeMeaning": ("O", "1"),
    "LongCodeValue": ("O", "1C"),
    "URNCodeValue": ("O", "1C"),
}
_REFERENCE: Entries = {"ReferencedSOPClassUID": ("O", "1"), "ReferencedSOPInstanceUID": ("O", "1")}
_ISSUER: Entries = {
    "LocalNamespaceEntityID": ("O", "1C"),
    "UniversalEntityID": ("O", "1C"),
    "UniversalEntityIDType": ("O", "1C"),
}
_PERSON: Entries = {
    "PersonIdentificationCodeSequence": ("O", "1", _CODE),
    "InstitutionName": ("O", "1C"),
    "InstitutionCodeSequence": ("O", "1C", _CODE),
}

_SCHEDULED_PROCEDURE_STEP: Entries = {
    "ScheduledStationAETitle": ("R", "1"),
    "ScheduledProcedureStepStartDate": ("R", "1"),
    "ScheduledProcedureStepStartTime": ("R", "1"),
    "Modality": ("R", "1"),
    "ScheduledPerformingPhysicianName": ("R", "2"),
    "ScheduledProcedureStepDescription": ("O", "1C"),
    "ScheduledStationName": ("O", "2"),
    "ScheduledProcedureStepLocation": ("O", "2"),
    "ScheduledProtocolCodeSequence": (
        "O",
        "1C",
        {**_CODE, "ProtocolContextSequence": ("O", "3", {"ConceptNameCodeSequence": ("O", "1", _CODE)})},
    ),
    "PreMedication": ("O", "2C"),
    "ScheduledProcedureStepID": ("O", "1"),
    "RequestedContrastAgent": ("O", "2C"),
    "ScheduledProcedureStepStatus": ("O", "3"),
    "ScheduledProcedureStepEndDate": ("O", "3"),
    "ScheduledProcedureStepEndTime": ("O", "3"),
    "ScheduledPerformingPhysicianIdentificationSequence": ("O", "3", _PERSON),
    "CommentsOnTheScheduledProcedureStep": ("O", "3"),
}
_REQUESTED_PROCEDURE: Entries = {
    "RequestedProcedureID": ("O", "1"),
    "RequestedProcedureDescription": ("O", "1C"),
    "RequestedProcedureCodeSequence": ("O", "1C", _CODE),
    "StudyInstanceUID": ("O", "1"),
    "StudyDate": ("O", "3"),
    "StudyTime": ("O", "3"),
    "ReferencedStudySequence": ("O", "2", _REFERENCE),
    "RequestedProcedurePriority": ("O", "2"),
    "PatientTransportArrangements": ("O", "2"),
    "ReasonForTheRequestedProcedure": ("O", "3"),
    "ReasonForRequestedProcedureCodeSequence": ("O", "3", _CODE),
    "RequestedProcedureComments": ("O", "3"),
    "RequestedProcedureLocation": ("O", "3"),
    "ConfidentialityCode": ("O", "3"),
    "ReportingPriority": ("O", "3"),
    "NamesOfIntendedRecipientsOfResults": ("O", "3"),
}
_IMAGING_SERVICE_REQUEST: Entries = {
    "AccessionNumber": ("O", "2"),
    "IssuerOfAccessionNumberSequence": ("O", "3", _ISSUER),
    "RequestingPhysician": ("O", "2"),
    "RequestingPhysicianIdentificationSequence": ("O", "3", _PERSON),
    "ReferringPhysicianName": ("O", "2"),
    "ReferringPhysicianIdentificationSequence": ("O", "3", _PERSON),
    "RequestingService": ("O", "3"),
    "ImagingServiceRequestComments": ("O", "3"),
    "IssueDateOfImagingServiceRequest": ("O", "3"),
    "IssueTimeOfImagingServiceRequest": ("O", "3"),
    "PlacerOrderNumberImagingServiceRequest": ("O", "3"),
    "FillerOrderNumberImagingServiceRequest": ("O", "3"),
    "OrderPlacerIdentifierSequence": ("O", "3", _ISSUER),
    "OrderFillerIdentifierSequence": ("O", "3", _ISSUER),
    "OrderEnteredBy": ("O", "3"),
    "OrderEntererLocation": ("O", "3"),
    "OrderCallbackPhoneNumber": ("O", "3"),
}
_VISIT: Entries = {
    "AdmissionID": ("O", "2"),
    "IssuerOfAdmissionIDSequence": ("O", "3", _ISSUER),
    "CurrentPatientLocation": ("O", "2"),
    "PatientInstitutionResidence": ("O", "3"),
    "InstitutionName": ("O", "3"),
    "InstitutionAddress": ("O", "3"),
    "VisitComments": ("O", "3"),
    "AdmittingDate": ("O", "3"),
    "AdmittingDiagnosesDescription": ("O", "3"),
    "ReferencedPatientSequence": ("O", "2", _REFERENCE),
}
_PATIENT: Entries = {
    "PatientName": ("R", "1"),
    "PatientID": ("R", "1"),
    "IssuerOfPatientID": ("O", "3"),
    "IssuerOfPatientIDQualifiersSequence": ("O", "3", _ISSUER),
    "OtherPatientIDs": ("O", "3"),
    "OtherPatientIDsSequence": ("O", "3", {"PatientID": ("O", "1"), "IssuerOfPatientID": ("O", "3")}),
    "OtherPatientNames": ("O", "3"),
    "PatientBirthName": ("O", "3"),
    "PatientMotherBirthName": ("O", "3"),
    "PatientBirthDate": ("O", "2"),
    "PatientBirthTime": ("O", "3"),
    "PatientSex": ("O", "2"),
    "PatientAge": ("O", "3"),
    "PatientSize": ("O", "3"),
    "PatientWeight": ("O", "2"),
    "PatientAddress": ("O", "3"),
    "PatientTelephoneNumbers": ("O", "3"),
    "PatientComments": ("O", "3"),
    "EthnicGroup": ("O", "3"),
    "Occupation": ("O", "3"),
    "SmokingStatus": ("O", "3"),
    "LastMenstrualDate": ("O", "3"),
    "AdditionalPatientHistory": ("O", "3"),
    "ConfidentialityConstraintOnPatientDataDescription": ("O", "2"),
    "PatientState": ("O", "2"),
    "PregnancyStatus": ("O", "2"),
    "MedicalAlerts": ("O", "2"),
    "Allergies": ("O", "2"),
    "SpecialNeeds": ("O", "2"),
}

SCHEDULED_STEPS = "ScheduledProcedureStepSequence"
TABLE: Entries = {
    SCHEDULED_STEPS: ("R", "1", _SCHEDULED_PROCEDURE_STEP),
    **_REQUESTED_PROCEDURE,
    **_IMAGING_SERVICE_REQUEST,
    **_VISIT,
    **_PATIENT,
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its keyword, tag and VR, the types of Table K.6-1, and the keys of its items."""

    keyword: str
    tag: BaseTag
    vr: str
    matching: str
    returned: str
    items: Mapping[str, "Key"]


def _keys(entries: Entries) -> dict[str, Key]:
    made = {}
    for keyword, (matching, returned, *items) in entries.items():
        below = _keys(items[0]) if items else {}
        made[keyword] = Key(keyword, *tag_and_vr(keyword), matching, returned, below)
    return made


KEYS = _keys(TABLE)
"""By keyword, for the identifier itself."""


def is_key(keyword: str) -> bool:
    """Whether a worklist can be asked by this keyword."""
    return keyword in KEYS or keyword in KEYS[SCHEDULED_STEPS].items
