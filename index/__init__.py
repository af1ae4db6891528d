"""The index: it remembers instances and describes them. This module is its façade; scp knows no other.

Each name is imported when it is first used, so that a command loads only what it needs (PEP 562).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from index.commitment.storage_commitment import Commitments
    from index.commitment.storage_commitment import Report as CommitmentReport
    from index.completion.completions import Completion, Completions
    from index.database.attribute_tables import outdated_instances
    from index.database.server_facts import server_facts
    from index.database.settings import IndexSettings
    from index.database.study_facts import StudyFacts
    from index.dicom.part10 import IMPLEMENTATION_CLASS_UID
    from index.dicom.transcoding import DEFLATED, TRANSCODE_LIMIT, TRANSCODED, NotTranscodable, transcode
    from index.dicom.uids import is_uid
    from index.dicom.value_rules import cut_off
    from index.errors import (
        CannotListen,
        ChangesPruned,
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
    from index.forwarding.listing import OutboxFilter
    from index.forwarding.notifications import MOST_REFERENCES, Notification, Notifications
    from index.forwarding.outbox import Outbox, Outgoing
    from index.forwarding.queue import Queue, Waiting
    from index.forwarding.settings import RouteSettings
    from index.hooks import ACTOR, Actor, Observer, State
    from index.imagingstudy.settings import FhirSettings
    from index.maintenance.backup import BackedUp
    from index.maintenance.deletion import Deleted
    from index.maintenance.migrate_index import Migrated, migrate_index
    from index.maintenance.migrate_storage import MigratedStorage, migrate_storage
    from index.maintenance.rebuild import Rebuilt
    from index.maintenance.retention import Expired
    from index.maintenance.verify import Finding
    from index.orders.by_hand import BadOrder, date_of, order_by_hand, short_of, time_of, uid_of
    from index.orders.listing import ListedOrder
    from index.orders.records import NewOrder, OrderStatus, Source
    from index.orders.service import Orders
    from index.orders.settings import UpstreamSettings, WorklistSettings
    from index.orders.upstream import TakenOver, everything, take_over
    from index.procedures.completeness import Completeness
    from index.procedures.rules import CREATED_ONLY as STEP_CREATED_ONLY
    from index.procedures.rules import REQUIRED as STEP_REQUIRED
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
    from index.publication.resources import Resources, StoredResource
    from index.publication.subscriptions.service import Subscriptions
    from index.publication.targets.checks.probe import probe_target, same_servers
    from index.publication.targets.http.client import NoAnswer
    from index.publication.targets.listing import TargetEntry, TargetFilter
    from index.publication.targets.service import Targets
    from index.publication.targets.settings import PublishSettings, TargetSettings
    from index.query.charsets import is_charset
    from index.query.information_models import KEYS as QUERY_KEYS
    from index.query.information_models import PATIENT_ROOT, STUDY_ROOT
    from index.query.keys import NOT_MATCHED, Key
    from index.query.retrieval import InstanceSelection, Retrieval
    from index.query.retrieve_keys import RetrieveKeys
    from index.query.study_filter import SORTS, STATES, BadFilter, StudyFilter
    from index.query.study_query import QueryOptions, StudyQuery
    from index.query.value_matching import BadIdentifier
    from index.query.worklist_keys import KEYS as WORKLIST_KEYS
    from index.reception.arrival import Outcome
    from index.reception.import_files import Report
    from index.reception.instance import InstanceReceiver, Kept, keep_all
    from index.reception.received import Received, ReceivedStudy
    from index.records import Disagreed, Origin, StoredInstance
    from index.reindexing import reindex
    from index.settings import (
        AETitle,
        GivenPath,
        Host,
        RetentionSettings,
        Section,
        StorageSettings,
        Unique,
    )
    from index.storage.data_set_file import DataSetFile
    from index.storage.durable import NAMES as DATA_NAMES
    from index.storage.lock import is_served
    from index.storage.opening import store_fault
    from index.storage.room import free_space
    from index.supervisor import Supervisor, Worker, WorkerState
    from index.web.dicomweb.service import DicomWeb, DicomWebSettings
    from index.web.feed import FeedService
    from index.web.fhir.face import Fhir
    from index.web.page.live_state import (
        STORED_NUMBERS,
        STORED_SECONDS,
        LiveAssociation,
        LiveState,
        Refusal,
    )
    from index.web.page.page import Page
    from index.web.rights import Caller, Right
    from index.web.safety.callers import Callers
    from index.web.safety.guard import Access, Guard
    from index.web.safety.origins import Origins
    from index.web.safety.tokens import check_tokens, new_token, parse_token, token_lines
    from index.web.settings import AccessSettings
    from index.worklist.query import WorklistQuery

__all__ = [
    "ACTOR",
    "DATA_NAMES",
    "DEFLATED",
    "IMPLEMENTATION_CLASS_UID",
    "MOST_REFERENCES",
    "NOT_MATCHED",
    "PATIENT_ROOT",
    "QUERY_KEYS",
    "SORTS",
    "STATES",
    "STEP_CREATED_ONLY",
    "STEP_REQUIRED",
    "STORED_NUMBERS",
    "STORED_SECONDS",
    "STUDY_ROOT",
    "TRANSCODED",
    "TRANSCODE_LIMIT",
    "WORKLIST_KEYS",
    "AETitle",
    "Access",
    "AccessSettings",
    "Actor",
    "BackedUp",
    "BadFilter",
    "BadIdentifier",
    "BadOrder",
    "BadStepValue",
    "Caller",
    "Callers",
    "CannotListen",
    "ChangesPruned",
    "CommitmentReport",
    "Commitments",
    "Completeness",
    "Completion",
    "Completions",
    "DataSetFile",
    "DatabaseFault",
    "Deleted",
    "DicomWeb",
    "DicomWebSettings",
    "Disagreed",
    "Disagreement",
    "DuplicateStep",
    "Entry",
    "Expired",
    "FeedService",
    "Fhir",
    "FhirSettings",
    "Finding",
    "GivenPath",
    "Guard",
    "Host",
    "Index",
    "IndexFault",
    "IndexSettings",
    "InstanceReceiver",
    "InstanceSelection",
    "InvalidUID",
    "Kept",
    "Key",
    "ListedOrder",
    "LiveAssociation",
    "LiveState",
    "Locked",
    "Migrated",
    "MigratedStorage",
    "MissingAttribute",
    "MissingValue",
    "NewOrder",
    "NoAnswer",
    "NoSuchStep",
    "NotExpressible",
    "NotFound",
    "NotKept",
    "NotTranscodable",
    "Notification",
    "Notifications",
    "Observer",
    "OrderStatus",
    "Orders",
    "Origin",
    "Origins",
    "Outbox",
    "OutboxFilter",
    "Outcome",
    "Outgoing",
    "Page",
    "Procedures",
    "PublishSettings",
    "QueryOptions",
    "Queue",
    "Rebuilt",
    "Received",
    "ReceivedStudy",
    "Refusal",
    "Report",
    "Resources",
    "RetentionSettings",
    "Retrieval",
    "RetrieveKeys",
    "Right",
    "RouteSettings",
    "Section",
    "Source",
    "State",
    "StepEnded",
    "StepFault",
    "StepResult",
    "StorageSettings",
    "StoredInstance",
    "StoredResource",
    "StudyFacts",
    "StudyFilter",
    "StudyQuery",
    "Subscriptions",
    "Supervisor",
    "TakenOver",
    "TargetEntry",
    "TargetFilter",
    "TargetSettings",
    "Targets",
    "TooLarge",
    "Unique",
    "Unreadable",
    "UpstreamSettings",
    "Waiting",
    "Worker",
    "WorkerState",
    "WorklistQuery",
    "WorklistSettings",
    "check_tokens",
    "cut_off",
    "date_of",
    "everything",
    "free_space",
    "is_charset",
    "is_served",
    "is_uid",
    "keep_all",
    "migrate_index",
    "migrate_storage",
    "new_token",
    "order_by_hand",
    "outdated_instances",
    "parse_token",
    "probe_target",
    "reindex",
    "same_servers",
    "server_facts",
    "short_of",
    "store_fault",
    "take_over",
    "time_of",
    "token_lines",
    "transcode",
    "uid_of",
]

# The names of each module; "Name=Other" where it is Other in the module.
_MODULES = {
    "index.commitment.storage_commitment": "CommitmentReport=Report Commitments",
    "index.completion.completions": "Completion Completions",
    "index.database.attribute_tables": "outdated_instances",
    "index.database.server_facts": "server_facts",
    "index.database.settings": "IndexSettings",
    "index.database.study_facts": "StudyFacts",
    "index.dicom.part10": "IMPLEMENTATION_CLASS_UID",
    "index.dicom.transcoding": "DEFLATED NotTranscodable TRANSCODED TRANSCODE_LIMIT transcode",
    "index.dicom.uids": "is_uid",
    "index.dicom.value_rules": "cut_off",
    "index.errors": "CannotListen ChangesPruned DatabaseFault Disagreement IndexFault InvalidUID"
    " Locked NotExpressible NotFound NotKept TooLarge Unreadable",
    "index.facade": "Index",
    "index.forwarding.listing": "OutboxFilter",
    "index.forwarding.notifications": "MOST_REFERENCES Notification Notifications",
    "index.forwarding.outbox": "Outbox Outgoing",
    "index.forwarding.queue": "Queue Waiting",
    "index.forwarding.settings": "RouteSettings",
    "index.hooks": "ACTOR Actor Observer State",
    "index.imagingstudy.settings": "FhirSettings",
    "index.maintenance.backup": "BackedUp",
    "index.maintenance.deletion": "Deleted",
    "index.maintenance.migrate_index": "Migrated migrate_index",
    "index.maintenance.migrate_storage": "MigratedStorage migrate_storage",
    "index.maintenance.rebuild": "Rebuilt",
    "index.maintenance.retention": "Expired",
    "index.maintenance.verify": "Finding",
    "index.orders.by_hand": "BadOrder date_of order_by_hand short_of time_of uid_of",
    "index.orders.listing": "ListedOrder",
    "index.orders.records": "NewOrder OrderStatus Source",
    "index.orders.service": "Orders",
    "index.orders.settings": "UpstreamSettings WorklistSettings",
    "index.orders.upstream": "TakenOver everything take_over",
    "index.procedures.completeness": "Completeness",
    "index.procedures.rules": "BadStepValue DuplicateStep MissingAttribute MissingValue NoSuchStep"
    " STEP_CREATED_ONLY=CREATED_ONLY STEP_REQUIRED=REQUIRED StepEnded StepFault",
    "index.procedures.steps": "Procedures StepResult",
    "index.publication.feed": "Entry",
    "index.publication.resources": "Resources StoredResource",
    "index.publication.subscriptions.service": "Subscriptions",
    "index.publication.targets.checks.probe": "probe_target same_servers",
    "index.publication.targets.http.client": "NoAnswer",
    "index.publication.targets.listing": "TargetEntry TargetFilter",
    "index.publication.targets.service": "Targets",
    "index.publication.targets.settings": "PublishSettings TargetSettings",
    "index.query.charsets": "is_charset",
    "index.query.information_models": "PATIENT_ROOT QUERY_KEYS=KEYS STUDY_ROOT",
    "index.query.keys": "Key NOT_MATCHED",
    "index.query.retrieval": "InstanceSelection Retrieval",
    "index.query.retrieve_keys": "RetrieveKeys",
    "index.query.study_filter": "BadFilter SORTS STATES StudyFilter",
    "index.query.study_query": "QueryOptions StudyQuery",
    "index.query.value_matching": "BadIdentifier",
    "index.query.worklist_keys": "WORKLIST_KEYS=KEYS",
    "index.reception.arrival": "Outcome",
    "index.reception.import_files": "Report",
    "index.reception.instance": "InstanceReceiver Kept keep_all",
    "index.reception.received": "Received ReceivedStudy",
    "index.records": "Disagreed Origin StoredInstance",
    "index.reindexing": "reindex",
    "index.settings": "AETitle GivenPath Host RetentionSettings Section StorageSettings Unique",
    "index.storage.data_set_file": "DataSetFile",
    "index.storage.durable": "DATA_NAMES=NAMES",
    "index.storage.lock": "is_served",
    "index.storage.opening": "store_fault",
    "index.storage.room": "free_space",
    "index.supervisor": "Supervisor Worker WorkerState",
    "index.web.dicomweb.service": "DicomWeb DicomWebSettings",
    "index.web.feed": "FeedService",
    "index.web.fhir.face": "Fhir",
    "index.web.page.live_state": "LiveAssociation LiveState Refusal STORED_NUMBERS STORED_SECONDS",
    "index.web.page.page": "Page",
    "index.web.rights": "Caller Right",
    "index.web.safety.callers": "Callers",
    "index.web.safety.guard": "Access Guard",
    "index.web.safety.origins": "Origins",
    "index.web.safety.tokens": "check_tokens new_token parse_token token_lines",
    "index.web.settings": "AccessSettings",
    "index.worklist.query": "WorklistQuery",
}
_HOMES = {
    name: (module, own or name)
    for module, names in _MODULES.items()
    for name, _, own in (entry.partition("=") for entry in names.split())
}

if not TYPE_CHECKING:  # it would let a type checker take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _HOMES[name]
        value = globals()[name] = getattr(import_module(module), attribute)
        return value
