"""Forwarding: instances that wait in the outbox are sent to its peers (C-STORE as SCU, PS3.4 Annex B)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from index import Index, IndexFault, Outgoing, Retrieval, RetrieveKeys
from scp.observing.audit import events
from scp.observing.audit.codes import DESTINATION
from scp.observing.audit.messages import UNKNOWN, Party
from scp.observing.metrics import Metrics
from scp.services.delivery import Delivery
from scp.services.sending import Sender, Sent
from scp.settings.sections import Configuration

if TYPE_CHECKING:
    from scp.observing.audit.trail import AuditTrail

log = structlog.get_logger(__name__)

# Instances that one audit message of a study is about, at most.
MOST_SENT = 5000


class Forwarding(Delivery[Outgoing]):
    """Forwards instances. `configuration` returns the one in force, which a reload changes."""

    name = "forwarding"
    # Peers that are sent to at the same time. Each is a thread and an association.
    threads = 8

    def __init__(self, index: Index, configuration: Callable[[], Configuration], metrics: Metrics) -> None:
        super().__init__(index.outbox, index.workers)
        self._outbox = index.outbox
        self._retrieval = index.retrieval
        self._configuration = configuration
        self._metrics = metrics

    def reload(self) -> None:
        """Take over the routes of the configuration in force."""
        self._outbox.use(self._configuration().routes)
        super().reload()

    def sender(self, peer: str) -> "_InstanceSender":
        """See Delivery."""
        told = _AuditedTurn(self._retrieval, self._metrics.audit, self._party(peer))
        return _InstanceSender(Sender(self._retrieval, self._configuration, peer), told)

    def _party(self, peer: str) -> Party:
        """Return a peer as who receives instances, for the audit trail."""
        known = self._configuration().find_peer(peer)
        return Party(peer, DESTINATION, peer, (known and known.host) or UNKNOWN)

    def count(self, peer: str, outcome: str) -> None:
        """See Delivery."""
        self._metrics.forwarded(peer, outcome)


class _InstanceSender:
    """Sends instances to one peer."""

    def __init__(self, sender: Sender, told: "_AuditedTurn") -> None:
        self._sender = sender
        self._told = told
        self.interrupt = sender.interrupt

    def expect(self, batch: Sequence[Outgoing]) -> None:
        self._sender.expect(one.instance for one in batch)
        self._told.begin([one.instance.uid for one in batch])

    def send(self, one: Outgoing) -> Sent:
        sent = self._sender.send(one.instance)
        if not sent.is_failed:
            self._told.sent(one.instance.uid)
        return sent

    def close(self) -> None:
        self._sender.close()
        self._told.end()


class _AuditedTurn:
    """Tells the audit trail of one turn of a peer: of each study that it begins, and what was sent.

    What fails is tried again: only the log has it.
    """

    def __init__(self, retrieval: Retrieval, audit: "AuditTrail | None", peer: Party) -> None:
        self._retrieval = retrieval
        self._audit = audit
        self._peer = peer
        self._begun: set[str] = set()
        self._sent: list[str] = []

    def begin(self, uids: Sequence[str]) -> None:
        """These instances are to be sent."""
        if self._audit:
            studies = {study: one for study, one in self._studies(uids).items() if study not in self._begun}
            self._begun.update(studies)
            self._put(self._audit, studies, begins=True)

    def sent(self, uid: str) -> None:
        """An instance was sent."""
        if self._audit:
            self._sent.append(uid)
            if len(self._sent) >= MOST_SENT:
                self.end()

    def end(self) -> None:
        """Nothing more is sent for now."""
        sent, self._sent = self._sent, []
        if self._audit and sent:
            self._put(self._audit, self._studies(sent), begins=False)

    def _studies(self, uids: Sequence[str]) -> dict[str, dict[str, int]]:
        try:
            return self._retrieval.find(RetrieveKeys(instances=tuple(uids))).by_study()
        except IndexFault as error:  # it must not stop what is sent
            log.warning("audit_incomplete", reason=str(error))
            return {}

    def _put(self, audit: "AuditTrail", studies: dict[str, dict[str, int]], *, begins: bool) -> None:
        ours = audit.source.ours(is_requestor=True)
        audit.put_all(events.transfer(audit.source, ours, self._peer, studies, begins=begins))
