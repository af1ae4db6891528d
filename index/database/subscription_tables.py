"""The tables of FHIR Subscriptions, as peewee models: see tables.py."""

from enum import StrEnum

import peewee

from index.database.tables import Table


class SubscriptionStatus(StrEnum):
    """Subscription.status (http://hl7.org/fhir/subscription-status)."""

    # Its endpoint has not taken the handshake yet.
    REQUESTED = "requested"
    ACTIVE = "active"
    # Its endpoint has failed too often: nothing is sent until its owner asks for it again.
    ERROR = "error"
    # Its owner, or its endpoint, wants nothing.
    OFF = "off"


class SubscriptionRow(Table):
    """A subscription. Unique by `fhir` and `name`, its id: see the migration for the columns."""

    fhir = peewee.TextField()
    name = peewee.TextField()
    version = peewee.IntegerField()
    changed = peewee.BigIntegerField()
    owner = peewee.TextField()
    base = peewee.TextField()
    status = peewee.TextField()
    definition = peewee.TextField()
    position = peewee.BigIntegerField()
    events = peewee.BigIntegerField(default=0)
    delivered = peewee.BigIntegerField(default=0)
    attempts = peewee.IntegerField(default=0)
    due = peewee.BigIntegerField(default=0)
    sent = peewee.BigIntegerField(default=0)
    error = peewee.TextField(default="")

    class Meta:
        """The class name is not the table's."""

        table_name = "subscription"


class SubscriptionEvent(Table):
    """An event of a subscription. Unique by subscription and number."""

    subscription = peewee.ForeignKeyField(SubscriptionRow, on_delete="CASCADE")
    number = peewee.BigIntegerField()
    change_number = peewee.BigIntegerField()
    name = peewee.TextField()
    kind = peewee.TextField()
    changed = peewee.BigIntegerField()
