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
)
