"""The tables of performed procedure steps."""

import peewee

from index.database.tables import JSONField, Table


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
