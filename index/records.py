"""The frozen records of the facade and between the modules of the index.

Attributes map DICOM keywords (PS3.6) to values. A value is text (decoded, trimmed); a list of texts where
dicom/attributes.py allows several; or, of a sequence, a list of such mappings. An attribute without a value
is absent. All can be written as JSON and compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Header:
    """The attributes of one instance by level (PS3.3 A.1.2).

    The UIDs are those of the data set without padding; missing ones are empty. `doubts` are short sentences
    about faults and values left out, without patient data.
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_uid: str
    series_uid: str
    patient: Attributes = field(default_factory=dict)
    study: Attributes = field(default_factory=dict)
    series: Attributes = field(default_factory=dict)
    instance: Attributes = field(default_factory=dict)
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Origin:
    """The sender of an instance. `association` is the id in log events."""

    calling_aet: str = ""
    called_aet: str = ""
    address: str = ""
    association: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """A stored instance as its ImagingStudy needs it. `size`: of the Part 10 file, in bytes."""

    uid: str
    sop_class_uid: str
    size: int
    sha1: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """An instance as a sender needs it. `path`: below the data directory; `size`: of its file, in bytes."""

    uid: str
    sop_class_uid: str
    transfer_syntax: str
    path: str
    size: int


@dataclass(frozen=True, slots=True)
class Disagreed:
    """An attribute that differs between instances: each value, and how many instances have it."""

    level: str
    uid: str
    keyword: str
    values: tuple[tuple[Any, int], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """A series with its elected attributes; instances in order of number (missing last), then UID.

    `body`: each distinct set of attributes of the patient's body (attributes.BODY), ordered by value. Where
    it is empty, the elected attributes are all there are.
    """

    uid: str
    attributes: Attributes
    instances: Sequence[Instance]
    body: Sequence[Attributes] = ()


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient with elected attributes. `id`: the FHIR id, a function of PatientID and its issuer."""

    id: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Order:
    """An order (requested procedure) to which a study is matched.

    `id` names it in the index. `status` is SCHEDULED, STARTED, COMPLETED, CANCELLED or DISCONTINUED.
    `attributes` are those of the Requested Procedure, Imaging Service Request and Visit modules (PS3.3 C.4),
    by keyword: AccessionNumber, IssuerOfAccessionNumberSequence, RequestedProcedureID,
    RequestedProcedureDescription, RequestedProcedureCodeSequence, ReasonForTheRequestedProcedure,
    ReasonForRequestedProcedureCodeSequence, ReferringPhysicianName, ReferringPhysicianIdentificationSequence,
    RequestingPhysician, PlacerOrderNumberImagingServiceRequest, FillerOrderNumberImagingServiceRequest,
    OrderPlacerIdentifierSequence, OrderFillerIdentifierSequence, RequestedProcedurePriority,
    IssueDateOfImagingServiceRequest, IssueTimeOfImagingServiceRequest, StudyInstanceUID and so on.
    `patient` is its patient; None: the study's patient.
    """

    id: str
    status: str
    attributes: Attributes = field(default_factory=dict)
    patient: Patient | None = None


@dataclass(frozen=True, slots=True)
class ProcedureStep:
    """A modality performed procedure step (PS3.4 Annex F) that made instances of a study.

    `uid` is its SOP Instance UID, `state` IN PROGRESS, COMPLETED or DISCONTINUED. `attributes` by keyword:
    PerformedProcedureStepStartDate, -StartTime, -EndDate, -EndTime, -Description, ProcedureCodeSequence,
    PerformedLocation, PerformedSeriesSequence (with PerformingPhysicianName, OperatorsName).
    """

    uid: str
    state: str
    attributes: Attributes = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Study:
    """The source of an ImagingStudy; series in order of number (missing last), then UID.

    `orders`: those to which the study is matched. `withdrawn`: its instances were deleted. `accessions`: all
    Accession Numbers of instances and their requests, the most frequent first, as AccessionNumber and
    IssuerOfAccessionNumberSequence.
    """

    uid: str
    patient: Patient
    attributes: Attributes
    series: Sequence[Series]
    disagreements: Sequence[Disagreed] = ()
    orders: Sequence[Order] = ()
    steps: Sequence[ProcedureStep] = ()
    withdrawn: bool = False
    accessions: Sequence[Attributes] = ()
