"""The tables of orders, their scheduled steps, and the studies matched to them."""

import peewee

from index.database.tables import JSONField, Patient, Table


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
