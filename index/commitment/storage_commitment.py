"""Storage commitments (PS3.4 Annex J): what is asked of us, what is here, reports that are due."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import structlog

from index.commitment.integrity import Damage, IndexedObject, Integrity, Interrupted, Pause, Reading
from index.database.connection import Database
from index.database.mark_changed import now
from index.database.tables import CommitmentRow, Instance

log = structlog.get_logger(__name__)

# Seconds until a report that could not be delivered is tried again; the last counts for all further tries.
RETRIES = (10, 60, 300, 1800, 3600)
# A peer that takes no report in three days is not going to: by then it has asked again, or sent again.
MOST_ATTEMPTS = 72 + len(RETRIES)
# Values of one query, far below the 32,766 that SQLite binds.
BATCH = 1000

# FailureReason (0008,1197), PS3.3 Section C.14.1.1.
PROCESSING_FAILURE = 0x0110
NO_SUCH_INSTANCE = 0x0112
CLASS_INSTANCE_CONFLICT = 0x0119
_REASONS = {
    Damage.MISSING: NO_SUCH_INSTANCE,
    Damage.CORRUPT: PROCESSING_FAILURE,
    Damage.ELSEWHERE: PROCESSING_FAILURE,
}

Reference = tuple[str, str]
"""SOP Class UID and SOP Instance UID."""


class State(StrEnum):
    """What has become of a report."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given-up"


@dataclass(frozen=True, slots=True)
class Report:
    """What a peer is to be told: what we answer for, and what not, with its FailureReason."""

    id: int
    peer: str
    transaction_uid: str
    attempts: int
    checked: int
    committed: tuple[Reference, ...]
    failed: tuple[tuple[str, str, int], ...]


class Commitments:
    """The storage commitments of an index."""

    def __init__(
        self, database: Database, integrity: Integrity, catch_up: Callable[[], bool] = lambda: True
    ) -> None:
        """`catch_up` waits until what has been acknowledged is indexed; False where that takes longer."""
        self._database = database
        self._integrity = integrity
        self._catch_up = catch_up

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
            "checked": 0,
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

    def due(self, pause: Pause | None = None) -> Iterator[Report]:
        """Yield the reports that are due, each as index and objects stand now, until `pause` says so.

        While acknowledged instances wait to be indexed, none is due: they would be reported as missing.
        """
        pause = pause or threading.Event().wait
        row = CommitmentRow
        query = row.select(row.id, row.peer, row.transaction_uid, row.attempts, row.checked, row.asked).where(
            (row.state == State.PENDING) & (row.due <= now())
        )
        rows = self._database.rows(query.order_by(row.due))
        if not rows or not self._catch_up():
            return
        for row_id, peer, transaction, attempts, checked, asked in rows:
            began = self._integrity.clock()
            reading = Reading(max(checked, self._integrity.last_verified()), pause)
            try:
                verdict = self._verdict([(one, other) for one, other in asked], reading)
            except Interrupted:
                return
            yield Report(row_id, peer, transaction, attempts, began, *verdict)

    def _verdict(
        self, asked: Sequence[Reference], reading: Reading
    ) -> tuple[tuple[Reference, ...], tuple[tuple[str, str, int], ...]]:
        """Part what is indexed, there and whole from what is not. Raises Interrupted."""
        committed, failed = [], []
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            stored = self._stored([uid for _, uid in batch])
            for sop_class, uid in batch:
                if reason := self._reason((sop_class, uid), stored.get(uid), reading):
                    failed.append((sop_class, uid, reason))
                else:
                    committed.append((sop_class, uid))
        return tuple(committed), tuple(failed)

    def _stored(self, uids: Sequence[str]) -> dict[str, tuple[str, IndexedObject]]:
        """Return SOP Class UID and object of those instances that are in the index."""
        row = Instance
        query = row.select(row.uid, row.sop_class_uid, row.path, row.size, row.sha1, row.received)
        return {
            uid: (sop_class, IndexedObject(*stored))
            for uid, sop_class, *stored in self._database.rows(query.where(row.uid.in_(uids)))
        }

    def _reason(self, asked: Reference, stored: tuple[str, IndexedObject] | None, reading: Reading) -> int:
        """Return the FailureReason of one instance; 0 where we answer for it. Raises Interrupted."""
        if stored is None:
            return NO_SUCH_INSTANCE
        (sop_class, uid), (found, its_object) = asked, stored
        if found != sop_class:
            return CLASS_INSTANCE_CONFLICT
        damage = self._integrity.damage(its_object, reading)
        if damage is None:
            return 0
        if (again := self._stored([uid]).get(uid)) != stored:  # deleted or replaced while it was read
            return self._reason(asked, again, reading)
        log.error(
            "object_damaged",
            sop_instance_uid=uid,
            path=its_object.path,
            damage=damage.value,
            advice="see `imagingstudyd verify`",
        )
        return _REASONS[damage]

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
        self._write(
            report.id, state=state, attempts=attempts, due=now() + seconds * 1000, checked=report.checked
        )
        return state

    def _write(self, row: int, **changes: object) -> None:
        with self._database.writing():
            self._database.execute(CommitmentRow.update(**changes).where(CommitmentRow.id == row))
