"""What each node answers for of a commitment that another one reports on: only it can read its objects."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from index.database.connection import Database
from index.database.mark_changed import now
from index.database.node import NodeState, numbered
from index.database.tables import CommitmentCheck, CommitmentRow

# How long a node that does not answer is waited for, in seconds: it is restarted, or another starts from its
# data directory. Then its objects count as failed, which the peer takes as: keep them.
WAIT_SECONDS = 600.0
# How long an answer is good for, in seconds: a report that cannot be delivered is tried again soon at first.
GOOD_SECONDS = 3600.0


@dataclass(slots=True)
class Answers:
    """What other nodes have answered for, by SOP Instance UID; `unanswered`: those that still have to."""

    committed: set[str] = field(default_factory=set)
    failed: dict[str, int] = field(default_factory=dict)
    unanswered: set[int] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class CheckToDo:
    """A commitment of which this node is to say what it answers for."""

    id: int
    asked: list[tuple[str, str]]


class Vouching:
    """Questions to other nodes, and their answers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def others(self, node: int) -> Mapping[int, NodeState]:
        """Return the nodes but this one, by their numbers."""
        if self._database.is_sqlite:
            return {}
        return {number: state for number, state in numbered(self._database).items() if number != node}

    def ask(self, commitment: int, nodes: Iterable[int]) -> Answers:
        """Ask these nodes, unless that was done; return what they have answered. Raises NotKept."""
        row, wanted = CommitmentCheck, set(nodes)
        answers = Answers(unanswered=set(wanted))
        columns = row.id, row.node, row.checked, row.committed, row.failed
        known = set()
        outdated = []
        for row_id, node, checked, committed, failed in self._database.rows(
            row.select(*columns).where(row.commitment == commitment, row.node.in_(wanted))
        ):
            known.add(node)
            if checked and checked < now() - GOOD_SECONDS * 1000:
                outdated.append(row_id)
            elif checked:
                answers.committed |= set(committed)
                answers.failed |= failed
                answers.unanswered.discard(node)
        if outdated or wanted - known:
            with self._database.writing():
                self._database.execute(row.update(checked=0).where(row.id.in_(outdated)))
                for node in sorted(wanted - known):
                    insert = row.insert(commitment=commitment, node=node)
                    self._database.execute(insert.on_conflict_ignore())
        return answers

    def to_do(self, node: int) -> list[CheckToDo]:
        """Return what this node has been asked."""
        if self._database.is_sqlite:
            return []
        row = CommitmentCheck
        query = row.select(row.id, CommitmentRow.asked).join(CommitmentRow)
        rows = self._database.rows(query.where((row.node == node) & (row.checked == 0)).order_by(row.id))
        return [CheckToDo(row_id, [(one, uid) for one, uid in asked]) for row_id, asked in rows]

    def answer(self, check: int, began: int, committed: list[str], failed: Mapping[str, int]) -> None:
        """Answer. Raises NotKept."""
        values = {"checked": began, "committed": committed, "failed": dict(failed)}
        with self._database.writing():
            self._database.execute(CommitmentCheck.update(**values).where(CommitmentCheck.id == check))
