"""Notifications that wait to be sent: which instances of a study are available (PS3.4 Annex R)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from index.database.mark_changed import now
from index.database.tables import (
    CompletionRow,
    Instance,
    OutboxKind,
    OutboxRow,
    PerformedInstance,
    PerformedStep,
    PerformedStepStudy,
    Series,
    Study,
)
from index.dicom.uids import derived_uid
from index.forwarding.queue import Queue, Waiting, insert_row

# References of one notification: of more, several are made. Each takes some 150 bytes, and as a data set of
# pydicom 3 kB.
MOST_REFERENCES = 10_000


@dataclass(frozen=True, slots=True)
class Notification:
    """What one N-CREATE tells of a study: instances by series, and the step (MPPS) that made them, or none.

    `uid`: its SOP Instance UID, the same at each attempt. `series`: UID, and SOP Class and Instance UIDs.
    """

    uid: str
    study_uid: str
    step_uid: str
    series: list[tuple[str, list[tuple[str, str]]]] = field(default_factory=list)


class Notifications(Queue[Waiting]):
    """Studies of which peers are to be notified. The node that has told that a study is complete does it."""

    kind = OutboxKind.NOTIFICATION
    _peers: Sequence[str] = ()

    def use(self, peers: Iterable[str]) -> None:
        """From now on, these peers are notified. What waits is sent as before."""
        self._peers = [peer.strip() for peer in peers]

    @property
    def wanted_by(self) -> Sequence[str]:
        """See Queue."""
        return self._peers

    def add(self, study_uid: str) -> Sequence[str]:
        """Add a study for each peer, in the transaction that tells that it is complete; return the peers."""
        row = {"node": self.node, "kind": self.kind.value, "uid": study_uid, "created": now()}
        peers = self._peers
        if peers:
            self._database.prepared(insert_row).run_many([{**row, "peer": peer} for peer in peers])
        return peers

    def due(self, peer: str, count: int) -> list[Waiting]:
        """See Queue. What they tell is read when they are sent, by `contents`."""
        row = OutboxRow
        query = row.select(row.id, row.attempts, row.created, row.uid)
        query = query.where(*self.waiting(peer), row.due <= now()).order_by(row.id).limit(count)
        return [Waiting(*one) for one in self._database.rows(query)]

    def contents(self, study_uid: str) -> Iterator[Notification]:
        """Yield what there is to tell of a study: for each step that made instances, and for the others.

        A notification refers to one step at most (PS3.3 Table C.4.23-1). Raises NotKept, DatabaseFault.
        """
        with self._database.reading():
            told = CompletionRow.select(CompletionRow.told).where(CompletionRow.study_uid == study_uid)
            ((at,),) = self._database.rows(told) or [(0,)]
            steps = PerformedStepStudy.select(PerformedStep.id, PerformedStep.uid).join(PerformedStep)
            steps = steps.where(PerformedStepStudy.study_uid == study_uid).order_by(PerformedStep.uid)
            left = {uid: (series, sop_class) for series, sop_class, uid in self._instances(study_uid)}
            of_steps = {}
            for step, step_uid in self._database.rows(steps):
                named = PerformedInstance.select(PerformedInstance.uid).where(PerformedInstance.step == step)
                made = [uid for (uid,) in self._database.rows(named) if uid in left]
                of_steps[step_uid] = [(*left.pop(uid), uid) for uid in made]
        of_steps[""] = [(*where, uid) for uid, where in left.items()]
        for step_uid, rows in of_steps.items():
            for start in range(0, len(rows), MOST_REFERENCES):
                uid = derived_uid(study_uid, str(at), step_uid, str(start))
                part = sorted(rows[start : start + MOST_REFERENCES])
                yield Notification(uid, study_uid, step_uid, list(_by_series(part)))

    def _instances(self, study_uid: str) -> list[tuple[str, str, str]]:
        query = Instance.select(Series.uid, Instance.sop_class_uid, Instance.uid).join(Series).join(Study)
        return self._database.rows(query.where(Study.uid == study_uid).order_by(Instance.id))


def _by_series(
    rows: Iterable[tuple[str, str, str]],
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    for series, of_series in groupby(rows, lambda row: row[0]):
        yield series, [(sop_class, uid) for _, sop_class, uid in of_series]
