"""Forwarding: instances that wait in the outbox are sent to its peers (C-STORE as SCU, PS3.4 Annex B)."""

from collections.abc import Callable, Sequence

from index import Index, Outgoing
from scp.observing.metrics import Metrics
from scp.services.delivery import Delivery
from scp.services.sending import Sender, Sent
from scp.settings.sections import Configuration


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
        return _InstanceSender(Sender(self._retrieval, self._configuration, peer))

    def count(self, peer: str, outcome: str) -> None:
        """See Delivery."""
        self._metrics.forwarded(peer, outcome)


class _InstanceSender:
    """Sends instances to one peer."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self.interrupt = sender.interrupt
        self.close = sender.close

    def expect(self, batch: Sequence[Outgoing]) -> None:
        self._sender.expect(one.instance for one in batch)

    def send(self, one: Outgoing) -> Sent:
        return self._sender.send(one.instance)
