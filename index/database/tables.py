"""All tables as peewee models. `migrations/` creates them with their indexes; a test compares the columns.

Attributes are JSON objects keyed by DICOM keyword (PS3.6). A *variant* is one distinct set of attributes of a
study or series, with the number of instances that have it: an election reads variants, not instances. Times
are milliseconds since 1970 in UTC.
"""

from enum import StrEnum
from typing import Any

import orjson
import peewee


class JSONField(peewee.TextField):
    """A mapping or list as canonical JSON text: equal values are equal texts."""

    def db_value(self, value: Any) -> str | None:
        """Encode with sorted keys."""
        return None if value is None else canonical(value)

    def python_value(self, value: str | None) -> Any:
        """Decode."""
        return None if value is None else orjson.loads(value)


def canonical(value: Any) -> str:
    """Return the JSON text of `value` with sorted keys."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


class Table(peewee.Model):
    """Base of all tables."""

    id = peewee.BigAutoField()

    class Meta:
        """Table names have underscores: study_variant, not studyvariant."""

        legacy_table_names = False


class Patient(Table):
    """A patient. `key` is the FHIR id: a function of PatientID and issuer, or of the study without PatientID.

    `attributes` are those of the last ADT message. `merged` is the patient that this one was merged into,
    `survivor` the last of such a chain: it has no survivor.
    """

    key = peewee.TextField(unique=True)
    attributes = JSONField(default=dict)
    survivor = peewee.ForeignKeyField("self", null=True)
    merged = peewee.ForeignKeyField("self", null=True, backref="merged_patients")


class Study(Table):
    """A study with its counts. It waits for publication while `revision` and `published` differ.

    `paused_until`: while it grows it is not published before, by the clock of the database.
    """

    uid = peewee.TextField(unique=True)
    patient = peewee.ForeignKeyField(Patient, null=True)
    attributes = JSONField(default=dict)
    series_count = peewee.IntegerField(default=0)
    instance_count = peewee.IntegerField(default=0)
    first_received = peewee.BigIntegerField()
    last_received = peewee.BigIntegerField()
    revision = peewee.BigIntegerField(default=1)
    published = peewee.BigIntegerField(default=0)
    paused_until = peewee.BigIntegerField()
    withdrawn = peewee.IntegerField(default=0)


class StudyListing(Table):
    """What `studies` lists of a study (`id`), as of a `revision` of it; -1: still to be made.

    Columns are for search and order: the name without case and accents, empty where there is no value.
    """

    revision = peewee.BigIntegerField()
    state = peewee.TextField()
    patient_id = peewee.TextField()
    accession = peewee.TextField()
    name = peewee.TextField()
    started = peewee.TextField()
    last_received = peewee.BigIntegerField()
    bytes = peewee.BigIntegerField()
    details = JSONField()


class StudyTerm(Table):
    """A value by which a study is found; `kind`: name or modality. Unique by all three."""

    study = peewee.ForeignKeyField(Study)
    kind = peewee.TextField()
    value = peewee.TextField()


class StudyVariant(Table):
    """A distinct set of patient and study attributes, and how many instances have it. Unique by digest."""

    study = peewee.ForeignKeyField(Study)
    digest = peewee.TextField()
    patient = peewee.ForeignKeyField(Patient)
    patient_attributes = JSONField()
    attributes = JSONField()
    instance_count = peewee.IntegerField()


class Series(Table):
    """A series of a study, with its count. Unique by study and UID: one UID may be misused in two studies."""

    study = peewee.ForeignKeyField(Study)
    uid = peewee.TextField()
    attributes = JSONField(default=dict)
    instance_count = peewee.IntegerField(default=0)


class SeriesVariant(Table):
    """A distinct set of series attributes, and how many instances have it. Unique by digest."""

    series = peewee.ForeignKeyField(Series)
    digest = peewee.TextField()
    attributes = JSONField()
    instance_count = peewee.IntegerField()


class Source(Table):
    """A sender, unique by calling AE title, called AE title and address."""

    calling_aet = peewee.TextField()
    called_aet = peewee.TextField()
    address = peewee.TextField()


class Instance(Table):
    """A stored instance. `id` is the order of arrival."""

    uid = peewee.TextField(unique=True)
    series = peewee.ForeignKeyField(Series)
    study_variant = peewee.ForeignKeyField(StudyVariant)
    series_variant = peewee.ForeignKeyField(SeriesVariant)
    sop_class_uid = peewee.TextField()
    transfer_syntax = peewee.TextField()
    attributes = JSONField()
    doubts = JSONField()
    path = peewee.TextField()
    size = peewee.BigIntegerField()
    sha1 = peewee.TextField()
    source = peewee.ForeignKeyField(Source)
    received = peewee.BigIntegerField()


class Conflict(Table):
    """A data set that was received with the SOP Instance UID of another one; kept in `conflicts/`."""

    uid = peewee.TextField()
    study_uid = peewee.TextField()
    series_uid = peewee.TextField()
    transfer_syntax = peewee.TextField()
    path = peewee.TextField()
    size = peewee.BigIntegerField()
    sha1 = peewee.TextField(unique=True)
    source = peewee.ForeignKeyField(Source)
    received = peewee.BigIntegerField()


class Resource(Table):
    """A published resource, unique by FHIR version, type and name. `version` counts its contents.

    `sha256`, `size` (in bytes) and `changed` are of the content. Size 0: none is kept.
    `terms`: the number of the tables that its terms were made by; 0: they are still to be made.
    """

    fhir = peewee.TextField()
    type = peewee.TextField()
    name = peewee.TextField()
    version = peewee.IntegerField()
    sha256 = peewee.TextField()
    deleted = peewee.IntegerField()
    changed = peewee.BigIntegerField(default=0)
    size = peewee.BigIntegerField(default=0)
    terms = peewee.BigIntegerField(default=0)


class ResourceTerm(Table):
    """A value that a resource is found by (FHIR search): index/publication/terms/.

    `value` is folded, `exact` is a text as it stands. `low` and `high` (excluded): what a date covers.
    """

    resource = peewee.ForeignKeyField(Resource)
    parameter = peewee.BigIntegerField()
    system = peewee.TextField()
    value = peewee.TextField()
    exact = peewee.TextField()
    low = peewee.BigIntegerField(null=True)
    high = peewee.BigIntegerField(null=True)


class ResourceContent(Table):
    """The content of a resource (`id`), compressed by gzip."""

    content = peewee.BlobField()


class StudyResource(Table):
    """A study for which a resource is written. Unique by both."""

    study = peewee.ForeignKeyField(Study)
    resource = peewee.ForeignKeyField(Resource)


class Change(Table):
    """An entry of the change feed, in the order of `id`. `kind`: created, updated, deleted or complete.

    `reason`: why its study is complete; empty otherwise.
    """

    resource = peewee.ForeignKeyField(Resource)
    version = peewee.IntegerField()
    kind = peewee.TextField()
    changed = peewee.BigIntegerField()
    reason = peewee.TextField(default="")


class ChangePruned(Table):
    """The number up to which the change feed was pruned: one row, or none."""

    number = peewee.BigIntegerField()


class RemovedObject(Table):
    """An object whose row is deleted and whose file is not yet; `aside`: where it is kept aside before."""

    path = peewee.TextField()
    aside = peewee.TextField(default="")


class StoreRow(Table):
    """The store that the objects are in, where that is not the data directory: one row, or none.

    `swept`: the last day (YYYYMMDD) whose keys without a row were removed; `looked`: when, in ms since 1970.
    """

    url = peewee.TextField()
    identity = peewee.TextField()
    swept = peewee.IntegerField(default=0)
    looked = peewee.BigIntegerField(default=0)

    class Meta:
        """The class name is not the table's."""

        table_name = "object_store"


class MigrationRow(Table):
    """A migration of the objects that has begun; the instances up to the row id `last` are copied."""

    url = peewee.TextField()
    identity = peewee.TextField()
    last = peewee.BigIntegerField(default=0)

    class Meta:
        """The class name is not the table's."""

        table_name = "storage_migration"


class ImagingOrder(Table):
    """An order. `key` is its FHIR id, `patient_number` its PatientID, `patient_name` is case-folded.

    Unique by source, sender and identity. `patient_attributes` follow merges and updates; `told_patient` are
    those that the source sent last. `stamp` is the version of the source: of a file its size and time.
    `is_completed`: whether the source has said so.
    """

    key = peewee.TextField(unique=True)
    source = peewee.TextField()
    sender = peewee.TextField()
    identity = peewee.TextField()
    patient = peewee.ForeignKeyField(Patient)
    patient_number = peewee.TextField()
    patient_name = peewee.TextField()
    patient_attributes = JSONField()
    told_patient = JSONField(default=dict)
    attributes = JSONField()
    charset = peewee.TextField()
    stamp = peewee.TextField()
    placer = peewee.TextField()
    filler = peewee.TextField()
    accession = peewee.TextField()
    accession_issuer = peewee.TextField()
    procedure_id = peewee.TextField()
    study_uid = peewee.TextField()
    status = peewee.TextField()
    created = peewee.BigIntegerField()
    changed = peewee.BigIntegerField()
    is_completed = peewee.IntegerField(default=0)


class ScheduledStep(Table):
    """A scheduled procedure step, unique by order and step id. Columns hold valid values (value_rules.py).

    `station` and `modality` are empty where the step has none or several. `by_modality`: the status is from a
    modality (MPPS, images), not from the order.
    """

    order = peewee.ForeignKeyField(ImagingOrder)
    step_id = peewee.TextField()
    station = peewee.TextField()
    modality = peewee.TextField()
    start_date = peewee.TextField()
    start_time = peewee.TextField()
    status = peewee.TextField()
    by_modality = peewee.IntegerField(default=0)
    attributes = JSONField()


class StudyMatch(Table):
    """The result of matching a study: the rule, or the operator's choice, or the doubt."""

    study_uid = peewee.TextField(unique=True)
    rule = peewee.TextField()
    operator = peewee.IntegerField()
    doubt = peewee.TextField()


class StudyOrder(Table):
    """An order to which a study is matched. Unique by both."""

    study_uid = peewee.TextField()
    order = peewee.ForeignKeyField(ImagingOrder)


class StudyKey(Table):
    """A key by which later orders find a study: `kind`: accession, patient, procedure or step."""

    study_uid = peewee.TextField()
    kind = peewee.TextField()
    value = peewee.TextField()


class PerformedStep(Table):
    """A performed procedure step. `dataset` is all of it as DICOM JSON (PS3.18 Annex F)."""

    uid = peewee.TextField(unique=True)
    state = peewee.TextField()
    sender = peewee.TextField()
    dataset = JSONField()
    attributes = JSONField()
    created = peewee.BigIntegerField()
    changed = peewee.BigIntegerField()


class PerformedStepStudy(Table):
    """A study to which a performed step belongs. Unique by both."""

    step = peewee.ForeignKeyField(PerformedStep)
    study_uid = peewee.TextField()


class PerformedFor(Table):
    """A scheduled step (row id) that a performed step performs. Unique by both."""

    step = peewee.ForeignKeyField(PerformedStep)
    scheduled = peewee.BigIntegerField()


class PerformedInstance(Table):
    """An instance that a performed step lists. Unique by step and UID."""

    step = peewee.ForeignKeyField(PerformedStep)
    uid = peewee.TextField()


class Node(Table):
    """A data directory. `path`, `host` and `since`: where and when it was first served.

    `seen`: when it last told that it is served, by the clock of the database; 0: it is not served.
    """

    identity = peewee.TextField(unique=True)
    host = peewee.TextField()
    path = peewee.TextField()
    since = peewee.BigIntegerField()
    seen = peewee.BigIntegerField(default=0)


class Verification(Table):
    """When the last `verify` that read every object of a node began: one row, or none, for each."""

    began = peewee.BigIntegerField()
    node = peewee.BigIntegerField(default=0)


class DamagedObject(Table):
    """An object that was damaged when it was last read."""

    path = peewee.TextField(unique=True)


class CommitmentRow(Table):
    """A storage commitment, unique by peer and transaction UID.

    `checked`: when the objects that it asks for were last read; 0 is never. `node`: the one that reports.
    """

    peer = peewee.TextField()
    transaction_uid = peewee.TextField()
    asked = JSONField()
    state = peewee.TextField()
    committed = peewee.IntegerField(default=0)
    failed = peewee.IntegerField(default=0)
    attempts = peewee.IntegerField(default=0)
    due = peewee.BigIntegerField()
    created = peewee.BigIntegerField()
    checked = peewee.BigIntegerField(default=0)
    node = peewee.BigIntegerField(default=0)

    class Meta:
        """The class name is not the table's."""

        table_name = "commitment"


class CommitmentCheck(Table):
    """What a node answers for of a commitment's objects that it keeps. Unique by both.

    `checked`: when it began to look; 0: it is still to do so. `failed`: UIDs with their FailureReason.
    """

    commitment = peewee.ForeignKeyField(CommitmentRow)
    node = peewee.BigIntegerField()
    checked = peewee.BigIntegerField(default=0)
    committed = JSONField(default=list)
    failed = JSONField(default=dict)


class PeriodicWork(Table):
    """When work that one node does for all is due again, by the clock of the database."""

    name = peewee.TextField(unique=True)
    due = peewee.BigIntegerField()


class AttributeTable(Table):
    """An attribute table, by its digest; `first_instance` is the first row id that was made with it."""

    digest = peewee.TextField()
    first_instance = peewee.BigIntegerField()


class JournalPosition(Table):
    """The last record of a node's journal that is indexed, and the last that is durable without it."""

    node = peewee.BigIntegerField(unique=True, default=0)
    number = peewee.BigIntegerField()
    settled = peewee.BigIntegerField()


class UnindexedObject(Table):
    """An object that is kept though the database refused its row. `path` is unique."""

    uid = peewee.TextField()
    path = peewee.TextField()
    reason = peewee.TextField()
    received = peewee.BigIntegerField()


class OutboxState(StrEnum):
    """What is to become of an instance in the outbox."""

    WAITING = "waiting"
    # A dead letter: it is not tried again until an operator says so.
    DEAD = "dead"


class OutboxKind(StrEnum):
    """What is sent: an instance, or the notification that a study is complete."""

    INSTANCE = "instance"
    NOTIFICATION = "notification"


class OutboxRow(Table):
    """What is to be sent to a peer; `uid` is the instance's or the study's. Unique by these and `kind`.

    `due`: it is not tried before; 0 is at once. `node`: the one that sends it; empty where there is one only.
    """

    node = peewee.TextField()
    kind = peewee.TextField()
    peer = peewee.TextField()
    uid = peewee.TextField()
    state = peewee.TextField()
    attempts = peewee.IntegerField()
    due = peewee.BigIntegerField()
    created = peewee.BigIntegerField()
    error = peewee.TextField()

    class Meta:
        """The class name is not the table's."""

        table_name = "outbox"


class CompletionRow(Table):
    """A study that has instances, and whether it has been told that it is complete. `study_uid` is unique.

    `told`: when, 0: not yet; with its `reason`, the `instances` that it had, and how many came `later`.
    `due`: when it has been quiet for long enough; None: never. `covered`: the number of its instances when a
    storage commitment for all of them was reported.
    """

    study_uid = peewee.TextField()
    due = peewee.BigIntegerField(null=True)
    covered = peewee.IntegerField(default=0)
    told = peewee.BigIntegerField(default=0)
    reason = peewee.TextField(default="")
    instances = peewee.IntegerField(default=0)
    later = peewee.IntegerField(default=0)

    class Meta:
        """The class name is not the table's."""

        table_name = "completion"
