"""Metrics in Prometheus' format, named by its rules (prometheus.io/docs/practices/naming).

Counters are counted where things happen; gauges are read when the metrics are asked for.
"""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from index import ACTOR, IndexFault, Observer, State, WorkerState
from scp.observing.audit import events
from scp.observing.recent import Recent

if TYPE_CHECKING:
    from index import Outbox, Subscriptions, Targets
    from scp.observing.audit.trail import AuditTrail

# So many peers, in the order in which they come, get a label of their own. Each label costs the monitoring a
# series for ever, and callers can make up AE titles.
PEERS = 200
OTHER_PEERS = "other"
# From a small instance in the page cache to a large one over a slow line, in seconds.
STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
INDEXED_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30)
RESOURCE_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120)
PUBLICATION_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)

# Gauges: name, help text, and field of index.State.
_STATE = (
    ("imagingstudyd_commit_queue_instances", "Instances that wait for their sync or their row.", "waiting"),
    ("imagingstudyd_journal_fill_ratio", "How full the journal is, from 0 to 1.", "journal"),
    ("imagingstudyd_publication_queue_studies", "Studies that wait for publication.", "unpublished"),
    ("imagingstudyd_publication_failing_studies", "Studies whose last publication failed.", "failing"),
    ("imagingstudyd_publication_lag_seconds", "How long the longest is overdue.", "publication_lag"),
    ("imagingstudyd_conflicts", "Data sets kept aside in conflicts/.", "conflicts"),
    ("imagingstudyd_disk_free_bytes", "Free space where objects are kept.", "free"),
    ("imagingstudyd_disk_free_inodes", "Free inodes where objects are kept.", "free_inodes"),
    ("imagingstudyd_disk_watermark_bytes", "Free space below which stores are refused.", "watermark"),
)


class Metrics(Observer):
    """One daemon's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.recent = Recent()
        self.audit: AuditTrail | None = None
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._peers: set[str] = set()
        self._bytes_counters: dict[str, Counter] = {}
        self._store_counters: dict[tuple[str, str], Counter] = {}
        self._peers_lock = threading.Lock()

        def counter(name: str, meaning: str, *labels: str) -> Counter:
            return Counter(f"imagingstudyd_{name}", meaning, labels, registry=self._registry)

        def histogram(name: str, meaning: str, buckets: Sequence[float]) -> Histogram:
            return Histogram(f"imagingstudyd_{name}", meaning, buckets=buckets, registry=self._registry)

        self._stores = counter(
            "stores", "C-STORE requests, by what became of them.", "calling_aet", "outcome"
        )
        self._bytes = counter("stored_bytes", "Bytes of the objects kept.", "calling_aet")
        self._doubts = counter("doubts", "Instances with doubts about their header.", "calling_aet")
        self._operations = counter("operations", "Requests of other services answered.", "service", "status")
        self._associations = counter("associations", "Accepted associations that have ended.", "calling_aet")
        self._refused = counter(
            "associations_refused", "Association requests rejected, and callers cut off.", "reason"
        )
        self._forwards = counter(
            "forwards", "Attempts to forward an instance, by outcome.", "peer", "outcome"
        )
        self._notifications = counter(
            "notifications", "Attempts to notify of a complete study, by outcome.", "peer", "outcome"
        )
        self._complete = counter("studies_complete", "Studies said to be complete, by reason.", "reason")
        self._reopened = counter(
            "studies_reopened", "Of these, those that got another instance later.", "reason"
        )
        self._published_to = counter(
            "publish_requests", "Studies sent to a target, by outcome.", "target", "outcome"
        )
        self._target_seconds = Histogram(
            "imagingstudyd_publish_lag_seconds",
            "From the answer to the first C-STORE that a resource shows to its target's acceptance.",
            ["target"],
            buckets=RESOURCE_SECONDS,
            registry=self._registry,
        )
        self._publication_failures = counter("publication_failures", "Publications that failed.")
        self._store_seconds = histogram("store_seconds", "From command set to answer.", STORE_SECONDS)
        self._indexed_seconds = histogram(
            "indexed_seconds", "From a C-STORE's answer to its row in the index.", INDEXED_SECONDS
        )
        self._publication_seconds = histogram(
            "publication_seconds", "Time of one study's publication.", PUBLICATION_SECONDS
        )
        self._resource_seconds = histogram(
            "resource_seconds",
            "From the answer to the first C-STORE that a publication shows to its resource.",
            RESOURCE_SECONDS,
        )

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def add_gauges(
        self,
        state: Callable[[], State],
        associations: Callable[[], int],
        workers: Callable[[], Iterable[WorkerState]] = tuple,
    ) -> None:
        """Add the gauges that these functions give."""
        self._registry.register(_Gauges(state, associations, workers))

    def add_outbox(self, outbox: "Outbox") -> None:
        """Add the gauges of the outbox."""
        self._registry.register(_OutboxGauges(outbox))

    def add_targets(self, targets: "Targets") -> None:
        """Add the gauges of the targets that are published to."""
        self._registry.register(_TargetGauges(targets))

    def use_audit(self, audit: "AuditTrail") -> None:
        """Tell the audit trail too, and add its counts."""
        self.audit = audit
        self._registry.register(audit)

    def add_subscriptions(self, subscriptions: "Subscriptions") -> None:
        """Add the gauge of FHIR Subscriptions."""
        self._registry.register(_SubscriptionGauges(subscriptions))

    def stored(self, calling_aet: str, size: int, seconds: float) -> None:
        """Count an instance that is acknowledged; `size` in bytes, `seconds` from command set to answer."""
        counter = self._bytes_counters.get(calling_aet)
        if counter is None:
            # prometheus_client takes long to look a counter up by its label.
            peer = self._peer(calling_aet)
            counter = self._bytes_counters[peer] = self._bytes.labels(peer)
        counter.inc(size)
        self._store_seconds.observe(seconds)
        self.recent.count_stored()

    def indexed(self, calling_aet: str, outcome: str, seconds: float) -> None:
        """See index.Observer."""
        counter = self._store_counters.get((calling_aet, outcome))
        if counter is None:
            peer = self._peer(calling_aet)
            counter = self._store_counters[peer, outcome] = self._stores.labels(peer, outcome)
        counter.inc()
        self._indexed_seconds.observe(seconds)

    def store_failed(self, calling_aet: str, status: str, reason: str = "", address: str = "") -> None:
        """Count a C-STORE that failed; its status in four hexadecimal digits."""
        self._stores.labels(self._peer(calling_aet), status).inc()
        self.recent.refused("instance", f"{status} {reason}".strip(), calling_aet, address)

    def stored_with_doubts(self, calling_aet: str) -> None:
        """Count an instance that was kept with doubts."""
        self._doubts.labels(self._peer(calling_aet)).inc()

    def operation_answered(self, service: str, status: str) -> None:
        """Count a request of another service; its status in four hexadecimal digits."""
        self._operations.labels(service, status).inc()

    def association_over(self, calling_aet: str) -> None:
        """Count an accepted association that has ended."""
        self._associations.labels(self._peer(calling_aet)).inc()

    def deleted(self, level: str, studies: tuple[str, ...], patient_id: str) -> None:
        """See index.Observer."""
        if self.audit:
            self.audit.put_all(events.deleted(self.audit.source, level, studies, patient_id, ACTOR.get()))

    def association_refused(self, reason: str, calling_aet: str = "", address: str = "") -> None:
        """Count an association that was rejected or cut off; the reason in a word."""
        self._refused.labels(reason).inc()
        self.recent.refused("association", reason.replace("_", " "), calling_aet, address)
        if self.audit:
            self.audit.put(events.rejected(self.audit.source, reason, calling_aet, address))

    def forwarded(self, peer: str, outcome: str) -> None:
        """Count an attempt to forward an instance: sent, warning, failed, dead."""
        self._forwards.labels(self._peer(peer), outcome).inc()

    def notified(self, peer: str, outcome: str) -> None:
        """Count an attempt to notify a peer of a study: sent, warning, failed, dead."""
        self._notifications.labels(self._peer(peer), outcome).inc()

    def study_complete(self, reason: str) -> None:
        """See index.Observer."""
        self._complete.labels(reason).inc()

    def study_reopened(self, reason: str) -> None:
        """See index.Observer."""
        self._reopened.labels(reason).inc()

    def published(self, seconds: float, lag: float | None) -> None:
        """See index.Observer."""
        self._publication_seconds.observe(seconds)
        if lag is not None:
            self._resource_seconds.observe(lag)

    def published_to(self, target: str, outcome: str, lag: float | None) -> None:
        """See index.Observer."""
        self._published_to.labels(target, outcome).inc()
        if lag is not None:
            self._target_seconds.labels(target).observe(lag)

    def publication_failed(self) -> None:
        """See index.Observer."""
        self._publication_failures.inc()

    def _peer(self, calling_aet: str) -> str:
        if calling_aet in self._peers:
            return calling_aet
        with self._peers_lock:
            if len(self._peers) >= PEERS:
                return OTHER_PEERS
            self._peers.add(calling_aet)
        return calling_aet


class _Gauges:
    """A collector of prometheus_client that reads the gauges."""

    def __init__(
        self,
        state: Callable[[], State],
        associations: Callable[[], int],
        workers: Callable[[], Iterable[WorkerState]],
    ) -> None:
        self._state = state
        self._associations = associations
        self._workers = workers

    def describe(self) -> Iterable[Metric]:
        """Return nothing: to ask for the names must not read the index."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read all gauges; where the index cannot be read, its gauges are left out."""
        yield GaugeMetricFamily(
            "imagingstudyd_associations_active", "Associations now.", value=self._associations()
        )
        yield from self._of_workers()
        try:
            state = self._state()
        except (IndexFault, OSError):
            return
        for name, meaning, field in _STATE:
            if (value := getattr(state, field)) is not None:
                yield GaugeMetricFamily(name, meaning, value=value)
        up = "imagingstudyd_database_up", "Whether the database answers."
        yield GaugeMetricFamily(*up, value=not state.database)
        if any(state.nodes.values()):
            served = GaugeMetricFamily(
                "imagingstudyd_nodes", "Data directories that share the index.", labels=["state"]
            )
            for name, count in state.nodes.items():
                served.add_metric([name], count)
            yield served

    def _of_workers(self) -> Iterator[Metric]:
        """Yield the gauges of the threads; the label is a thread's name, one of some ten."""
        up = GaugeMetricFamily(
            "imagingstudyd_worker_up", "Whether a thread does its work without a fault.", labels=["worker"]
        )
        silent = GaugeMetricFamily(
            "imagingstudyd_worker_silent_seconds", "Without a sign of life while at work.", labels=["worker"]
        )
        failures = CounterMetricFamily(
            "imagingstudyd_worker_failures", "Faults that a thread went on after.", labels=["worker"]
        )
        for worker in self._workers():
            up.add_metric([worker.name], worker.summary == "ok")
            silent.add_metric([worker.name], worker.silent)
            failures.add_metric([worker.name], worker.failures)
        yield from (up, silent, failures)


class _OutboxGauges:
    """The same of the outbox. Peers have labels of their own as far as PEERS goes, in the order of names."""

    def __init__(self, outbox: "Outbox") -> None:
        self._outbox = outbox

    def describe(self) -> Iterable[Metric]:
        """Return nothing: see above."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read all gauges; none where the index cannot be read."""
        depth = GaugeMetricFamily(
            "imagingstudyd_outbox_instances", "Instances to be forwarded.", labels=["peer", "state"]
        )
        oldest = GaugeMetricFamily(
            "imagingstudyd_outbox_oldest_seconds", "Since when the first waits.", labels=["peer"]
        )
        try:
            for peer, state, count in self._outbox.counts()[: 2 * PEERS]:
                depth.add_metric([peer, str(state)], count)
            for peer in self._outbox.peers()[:PEERS]:
                if (since := self._outbox.oldest(peer)) is not None:
                    oldest.add_metric([peer], max(0.0, time.time() - since / 1000))
        except (IndexFault, OSError):
            return
        yield from (depth, oldest)


class _TargetGauges:
    """The same of the targets of the configuration."""

    def __init__(self, targets: "Targets") -> None:
        self._targets = targets

    def describe(self) -> Iterable[Metric]:
        """Return nothing: see above."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read all gauges; none where the index cannot be read."""
        labels = ["target"]
        depth = GaugeMetricFamily(
            "imagingstudyd_publish_outbox_studies", "Studies to be published.", labels=[*labels, "state"]
        )
        behind = GaugeMetricFamily(
            "imagingstudyd_publish_behind_changes", "Changes still to be looked at.", labels=labels
        )
        oldest = GaugeMetricFamily(
            "imagingstudyd_publish_oldest_seconds", "Since when the first waits.", labels=labels
        )
        up = GaugeMetricFamily("imagingstudyd_publish_target_up", "Whether it answers.", labels=labels)
        try:
            found = self._targets.listing.status()
        except (IndexFault, OSError):
            return
        failing = self._targets.failing()
        for one in found:
            for state, count in (("waiting", one.waiting), ("held", one.held), ("dead", one.dead)):
                depth.add_metric([one.target, state], count)
            behind.add_metric([one.target], one.behind)
            waited = 0.0 if one.oldest is None else max(0.0, time.time() - one.oldest / 1000)
            oldest.add_metric([one.target], waited)
            up.add_metric([one.target], one.target not in failing)
        yield from (depth, behind, oldest, up)


class _SubscriptionGauges:
    """The same of FHIR Subscriptions."""

    def __init__(self, subscriptions: "Subscriptions") -> None:
        self._subscriptions = subscriptions

    def describe(self) -> Iterable[Metric]:
        """Return nothing: see above."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read them; none where the index cannot be read."""
        found = GaugeMetricFamily("imagingstudyd_subscriptions", "FHIR Subscriptions.", labels=["status"])
        try:
            counts = self._subscriptions.store.counts()
        except (IndexFault, OSError):
            return
        for status, count in counts.items():
            found.add_metric([status], count)
        yield found
