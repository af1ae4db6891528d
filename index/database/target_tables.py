"""The tables of publishing to targets, as peewee models: see tables.py."""

from enum import StrEnum

import peewee

from index.database.tables import Table


class PublishState(StrEnum):
    """What is to become of something in the outbox."""

    WAITING = "waiting"
    # The server is the master of the patient, and does not have it yet.
    HELD = "held"
    # A dead letter: it is not tried again until an operator says so, or until it changes.
    DEAD = "dead"


class PublishTarget(Table):
    """A target. `filled`: the last resource of those that were there before; None: all are in the outbox."""

    name = peewee.TextField(unique=True)
    url = peewee.TextField()
    fhir = peewee.TextField()
    position = peewee.BigIntegerField()
    position_at = peewee.BigIntegerField()
    filled = peewee.BigIntegerField(null=True)


class PublishOutbox(Table):
    """What is to be published to a target. Unique by target, type and name.

    `number`: the last entry of the feed that it is of. `due`: it is not tried before; 0 is at once.
    """

    target = peewee.TextField()
    type = peewee.TextField()
    name = peewee.TextField()
    number = peewee.BigIntegerField()
    state = peewee.TextField()
    attempts = peewee.IntegerField()
    due = peewee.BigIntegerField()
    created = peewee.BigIntegerField()
    error = peewee.TextField()
    outcome = peewee.TextField()


class PublishedAtTarget(Table):
    """A resource that a target has. Unique by target, type and name."""

    target = peewee.TextField()
    type = peewee.TextField()
    name = peewee.TextField()
    server_id = peewee.TextField()
    etag = peewee.TextField()
    sha256 = peewee.TextField()

    class Meta:
        """The class name is not the table's."""

        table_name = "published_resource"
