"""Storage commitments (PS3.4 Annex J): what is asked of us, what is here, reports that are due."""

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import structlog
from peewee import fn

from index.commitment.integrity import Damage, IndexedObject, Integrity, Interrupted, Pause, Reading
from index.commitment.vouching import WAIT_SECONDS, Answers, Vouching
from index.database.claims import Work
from index.database.connection import Database
from index.database.mark_changed import now
from index.database.tables import CommitmentCheck, CommitmentRow, Instance
from index.storage.object_keys import node_of

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
        self,
        database: Database,
        integrity: Integrity,
        catch_up: Callable[[], bool] = lambda: True,
        on_committed: Callable[[Sequence[str]], None] = lambda _: None,
    ) -> None:
        """`catch_up` waits until what has been acknowledged is indexed; False where that takes longer.

        `on_committed` is given the SOP Instance UIDs of a report that was delivered and names no failure.
        """
        self._on_committed = on_committed
        self._database = database
        self._integrity = integrity
        self._vouching = Vouching(database)
        self._catch_up = catch_up

    @property
    def is_alone(self) -> bool:
        """Whether no other node can ask or leave anything behind."""
        return self._database.is_sqlite

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
            "node": self._integrity.node,
        }
        with self._database.writing():
            query = row.insert(peer=peer, transaction_uid=transaction_uid, committed=0, failed=0, **values)
            changes = {getattr(row, name): value for name, value in values.items()}
            self._database.execute(
                query.on_conflict(conflict_target=[row.peer, row.transaction_uid], update=changes)
            )
            mine = (row.peer == peer) & (row.transaction_uid == transaction_uid)
            ((found,),) = self._database.rows(row.select(row.id).where(mine))
            self._database.execute(CommitmentCheck.delete().where(CommitmentCheck.commitment == found))
        return int(found)

    def due(self, pause: Pause | None = None) -> Iterator[Report]:
        """Yield the reports that are due, each as index and objects stand now, until `pause` says so.

        The node that was asked reports, in place of a silent one any other. Each node answers for its own
        objects: a report waits for those of others. While acknowledged instances wait to be indexed, none is
        due: they would be reported as missing. Raises NotKept.
        """
        pause = pause or threading.Event().wait
        with contextlib.suppress(Interrupted):
            self._check_for_others(pause)
            for row_id in self._due():
                with self._database.claims.claimed(Work.COMMITMENT, row_id) as claim:
                    if claim and (report := self._report(row_id, pause)):
                        yield report

    def _due(self) -> list[int]:
        row = CommitmentRow
        query = row.select(row.id, row.node).where(_is_due())
        rows = self._database.rows(query.order_by(row.due))
        if not rows or not self._catch_up():
            return []
        others = self._vouching.others(self._integrity.node)
        served = {number for number, node in others.items() if not node.is_silent}
        return [row_id for row_id, node in rows if node not in served]

    def _report(self, row_id: int, pause: Pause) -> Report | None:
        """Return a report; None: it is not due any more, or other nodes are to answer. Raises Interrupted."""
        row = CommitmentRow
        columns = row.peer, row.transaction_uid, row.attempts, row.checked, row.asked, row.due
        rows = self._database.rows(row.select(*columns).where((row.id == row_id) & _is_due()))
        if not rows:
            return None
        peer, transaction, attempts, checked, values, due = rows[0]
        asked = [(sop_class, uid) for sop_class, uid in values]
        answers = self._ask_others(row_id, asked)
        if answers.unanswered:
            if now() < due + WAIT_SECONDS * 1000:
                return None
            log.error("commitment_unanswered", transaction_uid=transaction, nodes=sorted(answers.unanswered))
        began = self._integrity.clock()
        reading = Reading(max(checked, self._integrity.last_verified()), pause)
        verdict = self._verdict(asked, reading, answers)
        return Report(row_id, peer, transaction, attempts, began, *verdict)

    def _ask_others(self, commitment: int, asked: Sequence[Reference]) -> Answers:
        """Ask the nodes that keep objects, and all that are served for those that are not indexed yet."""
        others = self._vouching.others(self._integrity.node)
        if not others:
            return Answers()
        wanted: set[int] = set()
        for start in range(0, len(asked), BATCH):
            uids = [uid for _, uid in asked[start : start + BATCH]]
            stored = self._stored(uids)
            paths = [found.path for _, found in stored.values()]
            wanted |= {node_of(path) for path in paths if not self._integrity.holds(path)}
            if len(stored) < len(set(uids)):
                wanted |= {number for number, node in others.items() if not node.is_silent}
        return self._vouching.ask(commitment, wanted & others.keys())

    def _check_for_others(self, pause: Pause) -> None:
        """Answer what other nodes ask of the objects that are kept here. Raises Interrupted, NotKept."""
        node = self._integrity.node
        to_do = self._vouching.to_do(node)
        if not to_do or not self._catch_up():
            return
        for check in to_do:
            began = self._integrity.clock()
            reading = Reading(self._integrity.last_verified(), pause)
            mine: list[Reference] = []
            for start in range(0, len(check.asked), BATCH):
                stored = self._stored([uid for _, uid in check.asked[start : start + BATCH]])
                here = {uid for uid, (_, found) in stored.items() if node_of(found.path) == node}
                mine += [one for one in check.asked[start : start + BATCH] if one[1] in here]
            committed, failed = self._verdict(mine, reading, Answers())
            reasons = {uid: reason for _, uid, reason in failed}
            self._vouching.answer(check.id, began, [uid for _, uid in committed], reasons)

    def _verdict(
        self, asked: Sequence[Reference], reading: Reading, answers: Answers
    ) -> tuple[tuple[Reference, ...], tuple[tuple[str, str, int], ...]]:
        """Part what is indexed, there and whole from what is not. Raises Interrupted."""
        committed, failed = [], []
        for start in range(0, len(asked), BATCH):
            batch = asked[start : start + BATCH]
            stored = self._stored([uid for _, uid in batch])
            for sop_class, uid in batch:
                if reason := self._reason((sop_class, uid), stored.get(uid), reading, answers):
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

    def _reason(
        self,
        asked: Reference,
        stored: tuple[str, IndexedObject] | None,
        reading: Reading,
        answers: Answers,
    ) -> int:
        """Return the FailureReason of one instance; 0 where we answer for it. Raises Interrupted."""
        if stored is None:
            return NO_SUCH_INSTANCE
        (sop_class, uid), (found, its_object) = asked, stored
        if found != sop_class:
            return CLASS_INSTANCE_CONFLICT
        damage = self._integrity.damage(its_object, reading)
        if damage is None or (damage is Damage.ELSEWHERE and uid in answers.committed):
            return 0
        if damage is Damage.ELSEWHERE and uid in answers.failed:
            return answers.failed[uid]
        if (again := self._stored([uid]).get(uid)) != stored:  # deleted or replaced while it was read
            return self._reason(asked, again, reading, answers)
        log.error(
            "object_damaged",
            sop_instance_uid=uid,
            path=its_object.path,
            damage=damage.value,
            advice="see `imagingstudyd verify`",
        )
        return _REASONS[damage]

    def next_due(self) -> int | None:
        """Return when the next report is due, in ms since 1970; None where none is."""
        query = CommitmentRow.select(fn.MIN(CommitmentRow.due)).where(CommitmentRow.state == State.PENDING)
        ((due,),) = self._database.rows(query)
        return None if due is None else int(due)

    def delivered(self, report: Report) -> None:
        """The peer has taken a report."""
        self._write(
            report.id, state=State.DELIVERED, committed=len(report.committed), failed=len(report.failed)
        )
        if not report.failed:
            self._on_committed([uid for _, uid in report.committed])

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


def _is_due() -> Any:
    return (CommitmentRow.state == State.PENDING) & (CommitmentRow.due <= now())
