"""Subscriptions as rows: made, changed and deleted by those who ask, and what delivery notes of them."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
from peewee import SQL, fn

from index.database.connection import Database
from index.database.subscription_tables import SubscriptionEvent, SubscriptionRow, SubscriptionStatus
from index.errors import IndexFault, NotFound
from index.publication.feed import last_change
from index.publication.searching.conditions import condition
from index.publication.searching.values import BadSearch
from index.publication.subscriptions.definitions import (
    BadSubscription,
    Definition,
    masked,
    read_definition,
    unmasked,
)

MOST = 100
"""Subscriptions: each looks at every change."""

_COLUMNS = (
    SubscriptionRow.id,
    SubscriptionRow.fhir,
    SubscriptionRow.name,
    SubscriptionRow.version,
    SubscriptionRow.changed,
    SubscriptionRow.owner,
    SubscriptionRow.base,
    SubscriptionRow.status,
    SubscriptionRow.definition,
    SubscriptionRow.position,
    SubscriptionRow.events,
    SubscriptionRow.delivered,
    SubscriptionRow.attempts,
    SubscriptionRow.due,
    SubscriptionRow.sent,
    SubscriptionRow.error,
)
# What an owner may ask for: the server says the rest.
_ASKED_FOR = (SubscriptionStatus.REQUESTED, SubscriptionStatus.ACTIVE, SubscriptionStatus.OFF)


class TooMany(IndexFault):
    """There are as many subscriptions as may be."""


class VersionConflict(IndexFault):
    """It has changed since it was read."""


@dataclass(frozen=True)
class Subscription:
    """A subscription as it is: see the migration for the columns."""

    id: int
    fhir: str
    name: str
    version: int
    changed: int
    owner: str
    base: str
    # As SubscriptionStatus.
    status: str
    content: str
    position: int
    events: int
    delivered: int
    attempts: int
    due: int
    sent: int
    error: str

    @cached_property
    def definition(self) -> Definition:
        """What it asks for."""
        return read_definition(self.fhir, orjson.loads(self.content), self.base)

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.base}/Subscription/{self.name}"

    def resource(self) -> dict[str, Any]:
        """Return the resource, without the values of its headers."""
        head = {"resourceType": "Subscription", "id": self.name, "status": str(self.status)}
        failed = {"error": self.error} if self.fhir == "r4" and self.error else {}
        return head | masked(self.fhir, orjson.loads(self.content)) | failed


@dataclass(frozen=True, slots=True)
class Event:
    """An event. `name` is its study, `kind` what became of it, `at` when, in ms since 1970."""

    number: int
    name: str
    kind: str
    at: int


def now() -> int:
    """Return the time, in ms since 1970."""
    return time.time_ns() // 1_000_000


def conditions(database: Database, definition: Definition) -> list[Any]:
    """Return the conditions of Resource that are its filters. Raises BadSubscription."""
    try:
        return [condition(database, one) for one in definition.filters]
    except BadSearch as error:
        raise BadSubscription(f"filter {error}") from error


class SubscriptionStore:
    """The subscriptions of an index. Safe to use from many threads; its methods raise NotKept."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def find(self, fhir: str, name: str) -> Subscription | None:
        """Return one by its id."""
        row = SubscriptionRow
        found = self._found((row.fhir == fhir) & (row.name == name))
        return found[0] if found else None

    def all(self, fhir: str | None = None) -> list[Subscription]:
        """Return all, in the order in which they were made."""
        return self._found(SubscriptionRow.fhir == fhir if fhir else SQL("1 = 1"))

    def served(self) -> list[Subscription]:
        """Return all that can be served. One that an earlier version took, and this one not, is in error."""
        readable = []
        for one in self.all():
            try:
                one.definition  # noqa: B018  it is read once
                readable.append(one)
            except BadSubscription as error:
                if one.status != SubscriptionStatus.ERROR:
                    self.note(one, status=SubscriptionStatus.ERROR.value, error=str(error), changed=now())
        return readable

    def _found(self, which: Any) -> list[Subscription]:
        query = SubscriptionRow.select(*_COLUMNS).where(which).order_by(SubscriptionRow.id)
        return [Subscription(*values) for values in self.database.rows(query)]

    def counts(self) -> dict[str, int]:
        """Return how many there are, by status."""
        row = SubscriptionRow
        rows = self.database.rows(row.select(row.status, fn.COUNT(SQL("*"))).group_by(row.status))
        return {str(status): 0 for status in SubscriptionStatus} | dict(rows)

    def put(
        self,
        fhir: str,
        name: str,
        resource: Mapping[str, Any],
        base: str,
        owner: str,
        version: int | None = None,
    ) -> tuple[Subscription, bool]:
        """Make a subscription or change it; return it, and whether it is new.

        It begins with the next change, and its endpoint is asked first. `version`: what it must be now.
        Raises BadSubscription, TooMany, VersionConflict.
        """
        before = self.find(fhir, name)
        if version is not None and version != (before.version if before else 0):
            raise VersionConflict(f"Subscription/{name}: is version {before.version if before else 0} now")
        if before:
            resource = unmasked(fhir, resource, orjson.loads(before.content))
        status = _status(resource)
        definition = read_definition(fhir, resource, base)
        conditions(self.database, definition)
        values = {
            "version": before.version + 1 if before else 1,
            "changed": now(),
            "base": base,
            "status": str(status),
            "definition": orjson.dumps(definition.resource).decode(),
            "attempts": 0,
            "due": 0,
            "error": "",
        }
        row = SubscriptionRow
        with self.database.writing():
            if before is None:
                ((count,),) = self.database.rows(row.select(fn.COUNT(SQL("*"))))
                if count >= MOST:
                    raise TooMany(f"there are {MOST} subscriptions, which is as many as may be")
                begin = {"position": last_change(self.database), "owner": owner}
                self.database.execute(row.insert(fhir=fhir, name=name, **begin, **values))
            else:
                if before.status == SubscriptionStatus.OFF:
                    values["position"] = last_change(self.database)
                same = (row.id == before.id) & (row.version == before.version)
                if not self.database.execute(row.update(values).where(same)):
                    raise VersionConflict(f"Subscription/{name}: has been changed at the same time")
        return found(self, fhir, name), before is None

    def delete(self, fhir: str, name: str) -> bool:
        """Delete one; return whether it was there."""
        row = SubscriptionRow
        with self.database.writing():
            return bool(self.database.execute(row.delete().where((row.fhir == fhir) & (row.name == name))))

    def note(self, subscription: Subscription, **changes: Any) -> bool:
        """Note what came of something, unless it has been changed meanwhile; return whether that was so."""
        row = SubscriptionRow
        same = (row.id == subscription.id) & (row.version == subscription.version)
        with self.database.writing(durable=False):
            return bool(self.database.execute(row.update(**changes).where(same)))

    def events(self, subscription: Subscription, first: int, last: int, count: int) -> list[Event]:
        """Return the events that are still known with these numbers, at most so many."""
        row = SubscriptionEvent
        query = row.select(row.number, row.name, row.kind, row.changed).where(
            (row.subscription == subscription.id) & (row.number >= first) & (row.number <= last)
        )
        return [Event(*values) for values in self.database.rows(query.order_by(row.number).limit(count))]


def new_name() -> str:
    """Return an id that no other subscription has."""
    return str(uuid.uuid4())


def found(store: SubscriptionStore, fhir: str, name: str) -> Subscription:
    """Return a subscription. Raises NotFound."""
    subscription = store.find(fhir, name)
    if subscription is None:
        raise NotFound(f"Subscription/{name[:100]} is not known")
    return subscription


def _status(resource: Mapping[str, Any]) -> SubscriptionStatus:
    """Return with which status it begins: what is asked for is active only after a handshake."""
    given = resource.get("status")
    if given not in [str(one) for one in _ASKED_FOR]:
        allowed = ", ".join(_ASKED_FOR)
        raise BadSubscription(f"status {str(given)[:100]!r}: allowed are {allowed}")
    return SubscriptionStatus.OFF if given == SubscriptionStatus.OFF else SubscriptionStatus.REQUESTED
