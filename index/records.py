"""The frozen records that pass through the façade and between the modules of the index.

Attributes are mappings from DICOM keyword (PS3.6) to value. A value is text (decoded, trimmed), a list of
texts where the attribute is multi-valued in the table of `header.py`, or, for sequences, a list of such
mappings. An attribute without a value is absent. All of it can be written as JSON and compared.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Attributes = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Header:
    """What one instance says of itself, by the level that it says it of (PS3.3 A.1.2).

    The UIDs are as they stand in the data set, padding trimmed; missing ones are empty.
    `doubts` are short sentences of what was odd and was left out, without patient data.
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
    """Where an instance came from. `association` is the id that log events carry."""

    calling_aet: str = ""
    called_aet: str = ""
    address: str = ""
    association: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """A stored instance as its ImagingStudy needs it. `size` is of the Part 10 file, in bytes."""

    uid: str
    sop_class_uid: str
    size: int
    sha1: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Disagreed:
    """An attribute on which instances disagree: each value seen, and how many instances carry it."""

    level: str
    uid: str
    keyword: str
    values: tuple[tuple[Any, int], ...]


@dataclass(frozen=True, slots=True)
class Series:
    """A series with its elected attributes; instances in order of number (missing last), then UID.

    `body` is each distinct set of what instances say of the patient's body (attributes.BODY), in an order of
    its own. Where it is empty, the elected attributes are all that is said.
    """

    uid: str
    attributes: Attributes
    instances: Sequence[Instance]
    body: Sequence[Attributes] = ()


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient with elected attributes. `id` is the FHIR id: a function of PatientID and its issuer."""

    id: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Order:
    """An order of the worklist (a requested procedure) that a study was matched to.

    `id` names it in the index. `status` is SCHEDULED, STARTED, COMPLETED, CANCELLED or DISCONTINUED.
    `attributes` are those of the Requested Procedure, Imaging Service Request and Visit modules (PS3.3 C.4),
    by keyword: AccessionNumber, IssuerOfAccessionNumberSequence, RequestedProcedureID,
    RequestedProcedureDescription, RequestedProcedureCodeSequence, ReasonForTheRequestedProcedure,
    ReasonForRequestedProcedureCodeSequence, ReferringPhysicianName, ReferringPhysicianIdentificationSequence,
    RequestingPhysician, PlacerOrderNumberImagingServiceRequest, FillerOrderNumberImagingServiceRequest,
    OrderPlacerIdentifierSequence, OrderFillerIdentifierSequence, RequestedProcedurePriority,
    IssueDateOfImagingServiceRequest, IssueTimeOfImagingServiceRequest, StudyInstanceUID and so on.
    `patient` is whom it is for; None: the study's patient.
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
    """All that an ImagingStudy is made from; series in order of number (missing last), then UID.

    `orders` are those that the study was matched to. A withdrawn study keeps its rows and says so.
    `accessions` are all Accession Numbers that instances and their requests name, the most frequent first, by
    AccessionNumber and IssuerOfAccessionNumberSequence.
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
