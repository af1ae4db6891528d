"""The tables as peewee models; `migrations/` creates them, a test holds the two together.

Attributes are JSON texts keyed by DICOM keyword. A *variant* is one distinct set of what instances say
of their study or series, with the number of instances that say it: electing a value then costs as many
rows as there are opinions, not as there are instances.
"""

from typing import Any

import orjson
import peewee


class JSONField(peewee.TextField):
    """A mapping or list, kept as canonical JSON text: equal values are equal texts."""

    def db_value(self, value: Any) -> str | None:
        """Encode with sorted keys."""
        return None if value is None else canonical(value)

    def python_value(self, value: str | None) -> Any:
        """Decode."""
        return None if value is None else orjson.loads(value)


def canonical(value: Any) -> str:
    """Return the one JSON text of `value`."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


class Table(peewee.Model):
    """Base of all tables."""

    class Meta:
        """Names as they are written: study_variant, not studyvariant."""

        legacy_table_names = False


class Patient(Table):
    """A patient. `key` is the FHIR id: a function of PatientID and issuer, or of the study without one.

    `attributes` are what the hospital said last (ADT). A merged patient has a survivor, which has none;
    `merged` is whom it was merged into itself, before that one was merged as well.
    """

    id = peewee.BigAutoField()
    key = peewee.TextField(unique=True)
    attributes = JSONField(default=dict)
    survivor = peewee.ForeignKeyField("self", null=True)
    merged = peewee.ForeignKeyField("self", null=True, backref="merged_patients")


class Study(Table):
    """A study with its counts. It is to be published while `revision` and `published` differ."""

    id = peewee.BigAutoField()
    uid = peewee.TextField(unique=True)
    patient = peewee.ForeignKeyField(Patient, null=True, backref="studies")
    attributes = JSONField(default=dict)
    series_count = peewee.IntegerField(default=0)
    instance_count = peewee.IntegerField(default=0)
    first_received = peewee.BigIntegerField()
    last_received = peewee.BigIntegerField()
    revision = peewee.BigIntegerField(default=1)
    published = peewee.BigIntegerField(default=0)
    withdrawn = peewee.IntegerField(default=0)


class StudyVariant(Table):
    """One distinct set of patient and study attributes, and how many instances carry it."""

    id = peewee.BigAutoField()
    study = peewee.ForeignKeyField(Study)
    digest = peewee.TextField()
    patient = peewee.ForeignKeyField(Patient)
    patient_attributes = JSONField()
    attributes = JSONField()
    instance_count = peewee.IntegerField()

    class Meta:
        """A set is there once."""

        indexes = ((("study", "digest"), True),)


class Series(Table):
    """A series of one study, with its count."""

    id = peewee.BigAutoField()
    study = peewee.ForeignKeyField(Study, backref="series")
    uid = peewee.TextField()
    attributes = JSONField(default=dict)
    instance_count = peewee.IntegerField(default=0)

    class Meta:
        """A Series Instance UID may be misused in two studies."""

        indexes = ((("study", "uid"), True),)


class SeriesVariant(Table):
    """One distinct set of series attributes, and how many instances carry it."""

    id = peewee.BigAutoField()
    series = peewee.ForeignKeyField(Series)
    digest = peewee.TextField()
    attributes = JSONField()
    instance_count = peewee.IntegerField()

    class Meta:
        """A set is there once."""

        indexes = ((("series", "digest"), True),)


class Source(Table):
    """A sender: calling and called AE title, and address."""

    id = peewee.BigAutoField()
    calling_aet = peewee.TextField()
    called_aet = peewee.TextField()
    address = peewee.TextField()

    class Meta:
        """A sender is there once."""

        indexes = ((("calling_aet", "called_aet", "address"), True),)


class Instance(Table):
    """A stored instance; `id` is the order of arrival, times are milliseconds since 1970 in UTC."""

    id = peewee.BigAutoField()
    uid = peewee.TextField(unique=True)
    series = peewee.ForeignKeyField(Series, backref="instances")
    study_variant = peewee.ForeignKeyField(StudyVariant, backref="instances")
    series_variant = peewee.ForeignKeyField(SeriesVariant, backref="instances")
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
    """A data set that came with the SOP Instance UID of another one, kept aside."""

    id = peewee.BigAutoField()
    uid = peewee.TextField(index=True)
    study_uid = peewee.TextField()
    series_uid = peewee.TextField()
    transfer_syntax = peewee.TextField()
    path = peewee.TextField()
    size = peewee.BigIntegerField()
    sha1 = peewee.TextField(unique=True)
    source = peewee.ForeignKeyField(Source)
    received = peewee.BigIntegerField()


class Resource(Table):
    """A resource that was published: the hash of its last content, and how often that changed."""

    id = peewee.BigAutoField()
    fhir = peewee.TextField()
    type = peewee.TextField()
    name = peewee.TextField()
    version = peewee.IntegerField()
    sha256 = peewee.TextField()
    deleted = peewee.IntegerField()

    class Meta:
        """A resource is there once for each FHIR version."""

        indexes = ((("fhir", "type", "name"), True),)


class StudyResource(Table):
    """A resource is written for these studies."""

    id = peewee.BigAutoField()
    study = peewee.ForeignKeyField(Study)
    resource = peewee.ForeignKeyField(Resource)

    class Meta:
        """Once for each pair."""

        indexes = ((("study", "resource"), True),)


class Change(Table):
    """An entry of the change feed; `id` is its place, `kind` created, updated or deleted."""

    id = peewee.BigAutoField()
    resource = peewee.ForeignKeyField(Resource)
    version = peewee.IntegerField()
    kind = peewee.TextField()
    changed = peewee.BigIntegerField()


class RemovedObject(Table):
    """An object whose row is deleted, until its file is gone as well."""

    id = peewee.BigAutoField()
    path = peewee.TextField()


class ImagingOrder(Table):
    """An order. `key` is its FHIR id, `patient_number` its PatientID, `patient_name` case-folded.

    `patient_attributes` follow merges and updates, `told_patient` are those that its source told last.
    `stamp` tells the versions of its source apart: of a file its size and time.
    """

    id = peewee.BigAutoField()
    key = peewee.TextField(unique=True)
    source = peewee.TextField()
    sender = peewee.TextField()
    identity = peewee.TextField()
    patient = peewee.ForeignKeyField(Patient)
    patient_number = peewee.TextField(index=True)
    patient_name = peewee.TextField()
    patient_attributes = JSONField()
    told_patient = JSONField(default=dict)
    attributes = JSONField()
    charset = peewee.TextField()
    stamp = peewee.TextField()
    placer = peewee.TextField(index=True)
    filler = peewee.TextField(index=True)
    accession = peewee.TextField(index=True)
    accession_issuer = peewee.TextField()
    procedure_id = peewee.TextField(index=True)
    study_uid = peewee.TextField(index=True)
    status = peewee.TextField()
    created = peewee.BigIntegerField()
    changed = peewee.BigIntegerField()

    class Meta:
        """A sender has one order of a name."""

        indexes = ((("source", "sender", "identity"), True),)


class ScheduledStep(Table):
    """A scheduled procedure step. `station` is its one AE title; empty where it has none, or several.

    Likewise `modality`. Columns hold what a worklist answers: values that fit their VR (vr.py).
    `by_modality`: its status is what a modality made of it (MPPS, images), not its order.
    """

    id = peewee.BigAutoField()
    order = peewee.ForeignKeyField(ImagingOrder, backref="steps")
    step_id = peewee.TextField(index=True)
    station = peewee.TextField()
    modality = peewee.TextField()
    start_date = peewee.TextField()
    start_time = peewee.TextField()
    status = peewee.TextField()
    by_modality = peewee.IntegerField(default=0)
    attributes = JSONField()

    class Meta:
        """A step is there once in its order."""

        indexes = ((("order", "step_id"), True), (("status", "start_date", "station"), False))


class StudyMatch(Table):
    """What matching came to for a study: by which rule, or by an operator, or what the doubt is."""

    id = peewee.BigAutoField()
    study_uid = peewee.TextField(unique=True)
    rule = peewee.TextField()
    operator = peewee.IntegerField()
    doubt = peewee.TextField()


class StudyOrder(Table):
    """A study is matched to an order."""

    id = peewee.BigAutoField()
    study_uid = peewee.TextField()
    order = peewee.ForeignKeyField(ImagingOrder)

    class Meta:
        """Once for each pair."""

        indexes = ((("study_uid", "order"), True),)


class StudyKey(Table):
    """What an order that comes later would find a study by: kind and value as in matching.py."""

    id = peewee.BigAutoField()
    study_uid = peewee.TextField()
    kind = peewee.TextField()
    value = peewee.TextField()

    class Meta:
        """Once for each study."""

        indexes = ((("study_uid", "kind", "value"), True), (("kind", "value"), False))


class PerformedStep(Table):
    """A performed procedure step; `dataset` is all of it as DICOM JSON (PS3.18 Annex F)."""

    id = peewee.BigAutoField()
    uid = peewee.TextField(unique=True)
    state = peewee.TextField()
    sender = peewee.TextField()
    dataset = JSONField()
    attributes = JSONField()
    created = peewee.BigIntegerField()
    changed = peewee.BigIntegerField()


class PerformedStepStudy(Table):
    """A step is of a study."""

    id = peewee.BigAutoField()
    step = peewee.ForeignKeyField(PerformedStep)
    study_uid = peewee.TextField(index=True)

    class Meta:
        """Once for each pair."""

        indexes = ((("step", "study_uid"), True),)


class PerformedFor(Table):
    """A step performs a scheduled one (row id)."""

    id = peewee.BigAutoField()
    step = peewee.ForeignKeyField(PerformedStep)
    scheduled = peewee.BigIntegerField(index=True)

    class Meta:
        """Once for each pair."""

        indexes = ((("step", "scheduled"), True),)


class PerformedInstance(Table):
    """An instance that a step says it made."""

    id = peewee.BigAutoField()
    step = peewee.ForeignKeyField(PerformedStep)
    uid = peewee.TextField()

    class Meta:
        """Once for each step."""

        indexes = ((("step", "uid"), True),)


class Node(Table):
    """A data directory; `path` and `host` are where it was first served from, `since` in ms since 1970."""

    id = peewee.BigAutoField()
    identity = peewee.TextField(unique=True)
    host = peewee.TextField()
    path = peewee.TextField()
    since = peewee.BigIntegerField()


class Verification(Table):
    """When the last `verify` that read every object began, in milliseconds since 1970: one row, or none."""

    id = peewee.BigAutoField()
    began = peewee.BigIntegerField()


class DamagedObject(Table):
    """An object that was not whole when it was last read."""

    id = peewee.BigAutoField()
    path = peewee.TextField(unique=True)


class CommitmentRow(Table):
    """A storage commitment; times are milliseconds since 1970 in UTC.

    `checked`: when the objects that it asks for were last read; 0 is never.
    """

    id = peewee.BigAutoField()
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

    class Meta:
        """A peer's transactions have different UIDs."""

        table_name = "commitment"
        indexes = ((("peer", "transaction_uid"), True), (("state", "due"), False))


class JournalPosition(Table):
    """The last record whose instance is in the index, and the last that is durable without it: one row."""

    id = peewee.BigAutoField()
    number = peewee.BigIntegerField()
    settled = peewee.BigIntegerField()


class UnindexedObject(Table):
    """An object that is kept though the database refused its row; `received` as for an instance."""

    id = peewee.BigAutoField()
    uid = peewee.TextField()
    path = peewee.TextField(unique=True)
    reason = peewee.TextField()
    received = peewee.BigIntegerField()


TABLES: tuple[type[Table], ...] = (
    Patient,
    Study,
    StudyVariant,
    Series,
    SeriesVariant,
    Source,
    Instance,
    Conflict,
    Resource,
    StudyResource,
    Change,
    RemovedObject,
    ImagingOrder,
    ScheduledStep,
    StudyMatch,
    StudyOrder,
    StudyKey,
    PerformedStep,
    PerformedStepStudy,
    PerformedFor,
    PerformedInstance,
    Node,
    Verification,
    DamagedObject,
    CommitmentRow,
    JournalPosition,
    UnindexedObject,
)
