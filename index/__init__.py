"""The index: it remembers instances and describes them. This module is its façade; scp knows no other."""

from index.database.settings import IndexSettings
from index.dicom.part10 import IMPLEMENTATION_CLASS_UID
from index.dicom.value_rules import cut_off
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
from index.facade import Index, outdated_instances, reindex
from index.hooks import Observer, State
from index.imagingstudy.settings import FhirSettings
from index.maintenance.backup import BackedUp
from index.maintenance.deletion import Deleted
from index.maintenance.rebuild import Rebuilt
from index.maintenance.retention import Expired
from index.maintenance.verify import Finding
from index.orders.listing import ListedOrder
from index.orders.records import NewOrder, OrderStatus, Source
from index.orders.service import Orders
from index.orders.settings import UpstreamSettings, WorklistSettings
from index.orders.upstream import TakenOver, everything, take_over
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
from index.procedures.steps import Procedures, StepResult
from index.publication.feed import Entry
from index.query.charsets import is_charset
from index.query.value_matching import BadIdentifier
from index.reception.arrival import Outcome
from index.reception.import_files import Report
from index.reception.instance import InstanceReceiver, Kept
from index.reception.storage_commitment import Commitments
from index.reception.storage_commitment import Report as CommitmentReport
from index.records import Disagreed, Origin
from index.settings import (
    AETitle,
    GivenPath,
    Host,
    PublishSettings,
    RetentionSettings,
    Section,
    StorageSettings,
    Unique,
)
from index.storage.lock import is_served
from index.supervisor import Supervisor, WorkerState
from index.worklist.query import WorklistQuery

__all__ = [
    "IMPLEMENTATION_CLASS_UID",
    "AETitle",
    "BackedUp",
    "BadIdentifier",
    "BadStepValue",
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
    "Index",
    "IndexFault",
    "IndexSettings",
    "InstanceReceiver",
    "InvalidUID",
    "Kept",
    "ListedOrder",
    "Locked",
    "MissingAttribute",
    "MissingValue",
    "NewOrder",
    "NoSuchStep",
    "NotExpressible",
    "NotFound",
    "NotKept",
    "Observer",
    "OrderStatus",
    "Orders",
    "Origin",
    "Outcome",
    "Procedures",
    "PublishSettings",
    "Rebuilt",
    "Report",
    "RetentionSettings",
    "Section",
    "Source",
    "State",
    "StepEnded",
    "StepFault",
    "StepResult",
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
    "outdated_instances",
    "reindex",
    "take_over",
]
