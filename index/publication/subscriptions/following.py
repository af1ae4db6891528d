"""The events of subscriptions: each looks at the change feed from its own position on.

Its filters are searches of the resources as they are now. What a deleted or withdrawn study was, nobody knows
any more: that is told to those who were told of the study before, and to those without filters.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog

from index.database.connection import Database
from index.database.subscription_tables import SubscriptionEvent, SubscriptionRow, SubscriptionStatus
from index.database.tables import Change, Resource
from index.publication.feed import DELETED, PAGE, last_change, pruned
from index.publication.searching.conditions import all_of, condition
from index.publication.searching.values import criterion
from index.publication.subscriptions.store import Subscription, SubscriptionStore, conditions
from index.publication.subscriptions.topics import IMAGING_STUDY

log = structlog.get_logger(__name__)

# Rows of one statement: of five values each.
_ROWS = 500
_FIELDS = (
    SubscriptionEvent.subscription,
    SubscriptionEvent.number,
    SubscriptionEvent.change_number,
    SubscriptionEvent.name,
    SubscriptionEvent.kind,
    SubscriptionEvent.changed,
)


class _Change(NamedTuple):
    """An entry of the feed, with the row of its resource."""

    number: int
    kind: str
    at: int
    resource: int
    name: str


class FeedFollower:
    """Finds the events of all subscriptions. Used by one thread at a time, of all nodes."""

    def __init__(self, store: SubscriptionStore) -> None:
        self._store = store
        self._database: Database = store.database

    def follow(self) -> None:
        """Find the events up to the last change. Raises NotKept."""
        last = last_change(self._database)
        for subscription in self._store.served():
            if subscription.status == SubscriptionStatus.OFF:
                continue
            position, events = subscription.position, subscription.events
            while position < last:
                position, events = self._advance(subscription, position, events, last)

    def _advance(self, subscription: Subscription, position: int, events: int, last: int) -> tuple[int, int]:
        """Look at some changes; return the new position, and how many events there have been."""
        if (forgotten := pruned(self._database)) > position:
            log.warning("subscription_missed_changes", subscription=subscription.name, until=forgotten)
            position = forgotten
        changes = self._changes(subscription, position, last)
        found = self._matching(subscription, changes) if changes else []
        until = changes[-1].number if len(changes) == PAGE else max(last, position)
        row = SubscriptionRow
        mine = (row.id == subscription.id) & (row.events == events)
        with self._database.writing(durable=False):
            moved = row.update(position=until, events=events + len(found))
            if not self._database.execute(moved.where(mine)):
                return last, events  # it was deleted, or begins anew
            self._add(subscription, found, events)
        return until, events + len(found)

    def _add(self, subscription: Subscription, found: Sequence[_Change], events: int) -> None:
        rows = [
            (subscription.id, number, one.number, one.name, one.kind, one.at)
            for number, one in enumerate(found, start=events + 1)
        ]
        for begin in range(0, len(rows), _ROWS):
            insert = SubscriptionEvent.insert_many(rows[begin : begin + _ROWS], _FIELDS)
            self._database.execute(insert)

    def _changes(self, subscription: Subscription, position: int, last: int) -> list[_Change]:
        kinds = subscription.definition.topic.kinds
        columns = Change.id, Change.kind, Change.changed, Resource.id, Resource.name
        which = (Change.id > position) & (Change.id <= last) & Change.kind.in_(kinds)
        which &= (Resource.fhir == subscription.fhir) & (Resource.type == IMAGING_STUDY)
        query = Change.select(*columns).join(Resource).where(which).order_by(Change.id).limit(PAGE)
        return [_Change(*values) for values in self._database.rows(query)]

    def _matching(self, subscription: Subscription, changes: Sequence[_Change]) -> list[_Change]:
        """Return the changes that it wants to be told of."""
        wanted = conditions(self._database, subscription.definition)
        if not wanted:
            return list(changes)
        matching = self._resources({one.resource for one in changes}, wanted)
        told = self._told_before(subscription, [one for one in changes if one.resource not in matching])
        return [one for one in changes if one.resource in matching or one.name in told]

    def _resources(self, rows: set[int], wanted: Sequence[Any]) -> set[int]:
        query = Resource.select(Resource.id).where(Resource.id.in_(sorted(rows)), all_of(list(wanted)))
        return {row for (row,) in self._database.rows(query)}

    def _told_before(self, subscription: Subscription, others: Sequence[_Change]) -> set[str]:
        """Return those that are gone or withdrawn, and that it was told of."""
        if not others:
            return set()
        gone = {one.name for one in others if one.kind == DELETED}
        asked = criterion(subscription.fhir, IMAGING_STUDY, "status", "entered-in-error")
        withdrawn = self._resources({one.resource for one in others}, [condition(self._database, asked)])
        gone |= {one.name for one in others if one.resource in withdrawn}
        row = SubscriptionEvent
        query = row.select(row.name).distinct()
        query = query.where((row.subscription == subscription.id) & row.name.in_(sorted(gone)))
        return {name for (name,) in self._database.rows(query)}

    def forget(self) -> None:
        """Delete the events that the feed no longer has, once they are delivered or nobody waits for them."""
        until = pruned(self._database)
        if not until:
            return
        row, owner = SubscriptionEvent, SubscriptionRow
        waiting = owner.select(owner.id).where(
            (owner.id == row.subscription)
            & (row.number > owner.delivered)
            & owner.status.in_([SubscriptionStatus.ACTIVE, SubscriptionStatus.REQUESTED])
        )
        old = row.select(row.id).where((row.change_number <= until) & row.subscription.not_in(waiting))
        with self._database.writing(durable=False):
            self._database.execute(row.delete().where(row.id.in_(old)))
