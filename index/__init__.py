"""The index: it remembers instances and describes them. This module is its façade; scp knows no other."""

from index.backup import BackedUp
from index.commitments import Commitments
from index.commitments import Report as CommitmentReport
from index.commits import Outcome
from index.deletion import Deleted
from index.errors import (
    CannotListen,
    DatabaseFault,
    Disagreement,
    IndexFault,
    InvalidUID,
    Locked,
    NotExpressible,
    NotFound,
    NotKept,
    TooLarge,
    Unreadable,
)
from index.facade import Index
from index.importing import Report
from index.lock import is_served
from index.maintenance import reindex
from index.observer import Observer
from index.orders.records import Candidate, Listed, NewOrder, Source, Status
from index.orders.vr import cut_off
from index.orders.worklist import Orders
from index.part10 import IMPLEMENTATION_CLASS_UID
from index.procedures.completeness import Completeness
from index.procedures.rules import (
    BadStepValue,
    DuplicateStep,
    MissingAttribute,
    MissingValue,
    NoSuchStep,
    StepEnded,
    StepFault,
)
from index.procedures.steps import Performed, Procedures
from index.publication.feed import Entry
from index.rebuild import Rebuilt
from index.receiving import Incoming, Kept
from index.reconcile import Finding
from index.records import Disagreed, Origin
from index.retention import Expired
from index.settings import (
    AETitle,
    FhirSettings,
    GivenPath,
    Host,
    IndexSettings,
    PublishSettings,
    RetentionSettings,
    Section,
    StorageSettings,
    Unique,
    UpstreamSettings,
    WorklistSettings,
)
from index.state import State
from index.supervisor import Supervisor, WorkerState
from index.worklist.charsets import is_charset
from index.worklist.query import Query as WorklistQuery
from index.worklist.upstream import TakenOver, everything, take_over
from index.worklist.values import BadIdentifier

__all__ = [
    "IMPLEMENTATION_CLASS_UID",
    "AETitle",
    "BackedUp",
    "BadIdentifier",
    "BadStepValue",
    "Candidate",
    "CannotListen",
    "CommitmentReport",
    "Commitments",
    "Completeness",
    "DatabaseFault",
    "Deleted",
    "Disagreed",
    "Disagreement",
    "DuplicateStep",
    "Entry",
    "Expired",
    "FhirSettings",
    "Finding",
    "GivenPath",
    "Host",
    "Incoming",
    "Index",
    "IndexFault",
    "IndexSettings",
    "InvalidUID",
    "Kept",
    "Listed",
    "Locked",
    "MissingAttribute",
    "MissingValue",
    "NewOrder",
    "NoSuchStep",
    "NotExpressible",
    "NotFound",
    "NotKept",
    "Observer",
    "Orders",
    "Origin",
    "Outcome",
    "Performed",
    "Procedures",
    "PublishSettings",
    "Rebuilt",
    "Report",
    "RetentionSettings",
    "Section",
    "Source",
    "State",
    "Status",
    "StepEnded",
    "StepFault",
    "StorageSettings",
    "Supervisor",
    "TakenOver",
    "TooLarge",
    "Unique",
    "Unreadable",
    "UpstreamSettings",
    "WorkerState",
    "WorklistQuery",
    "WorklistSettings",
    "cut_off",
    "everything",
    "is_charset",
    "is_served",
    "reindex",
    "take_over",
]
