"""Storage commitments (PS3.4 Annex J): what is asked of us, what is here, reports that are due."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import peewee

from index.database import Database
from index.models import Instance, JSONField, Table
from index.orders.touching import now

# Seconds until a report that could not be delivered is tried again; the last counts for all further tries.
RETRIES = (10, 60, 300, 1800, 3600)
# A peer that takes no report in three days is not going to: by then it has asked again, or sent again.
MOST_ATTEMPTS = 72 + len(RETRIES)
# Values of one query, far below the 32,766 that SQLite binds.
BATCH = 1000

# FailureReason (0008,1197), PS3.3 Section C.14.1.1.
NO_SUCH_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


class State(StrEnum):
    """What has become of a report."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given-up"


class CommitmentRow(Table):
    """A storage commitment; `due` is milliseconds since 1970 in UTC."""

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

    class Meta:
        """A peer's transactions have different UIDs."""

        table_name = "commitment"
        indexes = ((("peer", "transaction_uid"), True), (("state", "due"), False))


@dataclass(frozen=True, slots=True)
class Report:
    """What a peer is to be told: what we answer for, and what not, with its FailureReason."""

    id: int
    peer: str
    transaction_uid: str
    attempts: int
    committed: tuple[Reference, ...]
    failed: tuple[tuple[str, str, int], ...]


class Commitments:
    """The storage commitments of an index."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ask(
        self, peer: str, transaction_uid: str, references: Sequence[Reference], delay: float = 0.0
    ) -> int:
        """Keep what a peer asks for; the report is due after `delay` seconds. Return its id. Raises NotKept.

        The same transaction asked again is reported again.
        """
        row = CommitmentRow
        values = {
            "asked": [list(reference) for reference in references],
            "state": State.PENDING,
            "attempts": 0,
            "due": now() + int(delay * 1000),
            "created": now(),
        }
        with self._database.writing():
            query = row.insert(peer=peer, transaction_uid=transaction_uid, committed=0, failed=0, **values)
            changes = {getattr(row, name): value for name, value in values.items()}
            self._database.execute(
                query.on_conflict(conflict_target=[row.peer, row.transaction_uid], update=changes)
            )
            mine = (row.peer == peer) & (row.transaction_uid == transaction_uid)
            ((found,),) = self._database.rows(row.select(row.id).where(mine))
        return int(found)

    def due(self) -> list[Report]:
        """Return the reports that are due, each as the index stands now."""
        row = CommitmentRow
        query = row.select(row.id, row.peer, row.transaction_uid, row.attempts, row.asked).where(
            (row.state == State.PENDING) & (row.due <= now())
        )
        return [
            Report(
                row_id, peer, transaction, attempts, *self._verdict([(one, other) for one, other in asked])
            )
            for row_id, peer, transaction, attempts, asked in self._database.rows(query.order_by(row.due))
        ]

    def _verdict(
        self, asked: Sequence[Reference]
    ) -> tuple[tuple[Reference, ...], tuple[tuple[str, str, int], ...]]:
        """Part what is indexed, and so durable, from what is not."""
        here: dict[str, str] = {}
        uids = [uid for _, uid in asked]
        for start in range(0, len(uids), BATCH):
            query = Instance.select(Instance.uid, Instance.sop_class_uid)
            here.update(self._database.rows(query.where(Instance.uid.in_(uids[start : start + BATCH]))))
        committed, failed = [], []
        for sop_class, uid in asked:
            if here.get(uid) == sop_class:
                committed.append((sop_class, uid))
            else:
                failed.append((sop_class, uid, CLASS_INSTANCE_CONFLICT if uid in here else NO_SUCH_INSTANCE))
        return tuple(committed), tuple(failed)

    def delivered(self, report: Report) -> None:
        """The peer has taken a report."""
        self._write(
            report.id, state=State.DELIVERED, committed=len(report.committed), failed=len(report.failed)
        )

    def postpone(self, report: Report) -> State:
        """The peer could not be told: try later, or give up."""
        attempts = report.attempts + 1
        seconds = RETRIES[min(attempts, len(RETRIES)) - 1]
        state = State.PENDING if attempts < MOST_ATTEMPTS else State.GIVEN_UP
        self._write(report.id, state=state, attempts=attempts, due=now() + seconds * 1000)
        return state

    def _write(self, row: int, **changes: object) -> None:
        with self._database.writing():
            self._database.execute(CommitmentRow.update(**changes).where(CommitmentRow.id == row))
