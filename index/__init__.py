"""The index: it remembers instances and describes them. This module is its façade; scp knows no other.

Each name is imported when it is first used, so that a command loads only what it needs (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from index.database.settings import IndexSettings
    from index.dicom.part10 import IMPLEMENTATION_CLASS_UID
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
    from index.facade import Index, reindex
    from index.hooks import Observer, State
    from index.imagingstudy.settings import FhirSettings
    from index.maintenance.backup import BackedUp
    from index.maintenance.deletion import Deleted
    from index.maintenance.rebuild import Rebuilt
    from index.maintenance.retention import Expired
    from index.maintenance.verify import Finding
    from index.orders.records import Candidate, Listed, NewOrder, Source, Status
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
    from index.procedures.steps import Performed, Procedures
    from index.publication.feed import Entry
    from index.query.charsets import is_charset
    from index.query.matching import BadIdentifier
    from index.reception.group_commit import Outcome
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
    from index.worklist.query import Query as WorklistQuery

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
    "Index",
    "IndexFault",
    "IndexSettings",
    "InstanceReceiver",
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
    "everything",
    "is_charset",
    "is_served",
    "reindex",
    "take_over",
]

# Where each name is defined.
_HOMES = {
    "IMPLEMENTATION_CLASS_UID": "index.dicom.part10.IMPLEMENTATION_CLASS_UID",
    "AETitle": "index.settings.AETitle",
    "BackedUp": "index.maintenance.backup.BackedUp",
    "BadIdentifier": "index.query.matching.BadIdentifier",
    "BadStepValue": "index.procedures.rules.BadStepValue",
    "Candidate": "index.orders.records.Candidate",
    "CannotListen": "index.errors.CannotListen",
    "CommitmentReport": "index.reception.storage_commitment.Report",
    "Commitments": "index.reception.storage_commitment.Commitments",
    "Completeness": "index.procedures.completeness.Completeness",
    "DatabaseFault": "index.errors.DatabaseFault",
    "Deleted": "index.maintenance.deletion.Deleted",
    "Disagreed": "index.records.Disagreed",
    "Disagreement": "index.errors.Disagreement",
    "DuplicateStep": "index.procedures.rules.DuplicateStep",
    "Entry": "index.publication.feed.Entry",
    "Expired": "index.maintenance.retention.Expired",
    "FhirSettings": "index.imagingstudy.settings.FhirSettings",
    "Finding": "index.maintenance.verify.Finding",
    "GivenPath": "index.settings.GivenPath",
    "Host": "index.settings.Host",
    "Index": "index.facade.Index",
    "IndexFault": "index.errors.IndexFault",
    "IndexSettings": "index.database.settings.IndexSettings",
    "InstanceReceiver": "index.reception.instance.InstanceReceiver",
    "InvalidUID": "index.errors.InvalidUID",
    "Kept": "index.reception.instance.Kept",
    "Listed": "index.orders.records.Listed",
    "Locked": "index.errors.Locked",
    "MissingAttribute": "index.procedures.rules.MissingAttribute",
    "MissingValue": "index.procedures.rules.MissingValue",
    "NewOrder": "index.orders.records.NewOrder",
    "NoSuchStep": "index.procedures.rules.NoSuchStep",
    "NotExpressible": "index.errors.NotExpressible",
    "NotFound": "index.errors.NotFound",
    "NotKept": "index.errors.NotKept",
    "Observer": "index.hooks.Observer",
    "Orders": "index.orders.service.Orders",
    "Origin": "index.records.Origin",
    "Outcome": "index.reception.group_commit.Outcome",
    "Performed": "index.procedures.steps.Performed",
    "Procedures": "index.procedures.steps.Procedures",
    "PublishSettings": "index.settings.PublishSettings",
    "Rebuilt": "index.maintenance.rebuild.Rebuilt",
    "Report": "index.reception.import_files.Report",
    "RetentionSettings": "index.settings.RetentionSettings",
    "Section": "index.settings.Section",
    "Source": "index.orders.records.Source",
    "State": "index.hooks.State",
    "Status": "index.orders.records.Status",
    "StepEnded": "index.procedures.rules.StepEnded",
    "StepFault": "index.procedures.rules.StepFault",
    "StorageSettings": "index.settings.StorageSettings",
    "Supervisor": "index.supervisor.Supervisor",
    "TakenOver": "index.orders.upstream.TakenOver",
    "TooLarge": "index.errors.TooLarge",
    "Unique": "index.settings.Unique",
    "Unreadable": "index.errors.Unreadable",
    "UpstreamSettings": "index.orders.settings.UpstreamSettings",
    "WorkerState": "index.supervisor.WorkerState",
    "WorklistQuery": "index.worklist.query.Query",
    "WorklistSettings": "index.orders.settings.WorklistSettings",
    "everything": "index.orders.upstream.everything",
    "is_charset": "index.query.charsets.is_charset",
    "is_served": "index.storage.lock.is_served",
    "reindex": "index.facade.reindex",
    "take_over": "index.orders.upstream.take_over",
}


if not TYPE_CHECKING:  # it would let a type checker take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, _, attribute = _HOMES[name].rpartition(".")
        value = globals()[name] = getattr(import_module(module), attribute)
        return value
