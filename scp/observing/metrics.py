"""What is counted and measured, as Prometheus names it (prometheus.io/docs/practices/naming).

Counters are written where things happen; what stands at a moment is read when somebody asks.
"""

import threading
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from index import IndexFault, Observer, State, WorkerState

# Peers that have a label of their own, first come first served: each costs a series in the monitoring for
# ever, and whoever can connect can make names up.
PEERS = 200
OTHER_PEERS = "other"
# From a small instance in the page cache to a large one over a slow line, in seconds.
STORE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
INDEXED_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30)
PUBLICATION_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15)

# Name, meaning, and field of index.State.
_STATE = (
    ("imagingstudyd_commit_queue_instances", "Instances that wait for their sync or their row.", "waiting"),
    ("imagingstudyd_journal_fill_ratio", "How full the journal is, from 0 to 1.", "journal"),
    ("imagingstudyd_publication_queue_studies", "Studies that wait for publication.", "unpublished"),
    ("imagingstudyd_publication_failing_studies", "Studies whose last publication failed.", "failing"),
    ("imagingstudyd_publication_lag_seconds", "How long the longest is overdue.", "publication_lag"),
    ("imagingstudyd_conflicts", "Data sets kept aside in conflicts/.", "conflicts"),
    ("imagingstudyd_disk_free_bytes", "Free space where objects are kept.", "free"),
    ("imagingstudyd_disk_watermark_bytes", "Free space below which stores are refused.", "watermark"),
)


class Metrics(Observer):
    """One daemon's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._peers: set[str] = set()
        self._bytes_of: dict[str, Counter] = {}
        self._stores_of: dict[tuple[str, str], Counter] = {}
        self._peers_lock = threading.Lock()
        own = self._registry
        self._stores = Counter(
            "imagingstudyd_stores",
            "C-STORE requests by what became of them.",
            ["calling_aet", "outcome"],
            registry=own,
        )
        self._bytes = Counter(
            "imagingstudyd_stored_bytes", "Bytes of the objects kept.", ["calling_aet"], registry=own
        )
        self._store_seconds = Histogram(
            "imagingstudyd_store_seconds", "From command set to answer.", buckets=STORE_SECONDS, registry=own
        )
        self._doubts = Counter(
            "imagingstudyd_doubts",
            "Instances with something odd in their header.",
            ["calling_aet"],
            registry=own,
        )
        self._operations = Counter(
            "imagingstudyd_operations",
            "Requests of other services answered.",
            ["service", "status"],
            registry=own,
        )
        self._associations = Counter(
            "imagingstudyd_associations",
            "Accepted associations that are over.",
            ["calling_aet"],
            registry=own,
        )
        self._refused = Counter(
            "imagingstudyd_associations_refused",
            "Association requests rejected, and callers cut off beyond the limit.",
            ["reason"],
            registry=own,
        )
        self._indexed_seconds = Histogram(
            "imagingstudyd_indexed_seconds",
            "From a C-STORE's answer to its row in the index.",
            buckets=INDEXED_SECONDS,
            registry=own,
        )
        self._publication_seconds = Histogram(
            "imagingstudyd_publication_seconds",
            "Time of one study's publication.",
            buckets=PUBLICATION_SECONDS,
            registry=own,
        )
        self._publication_failures = Counter(
            "imagingstudyd_publication_failures", "Publications that failed.", registry=own
        )

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)

    def watch(
        self,
        state: Callable[[], State],
        associations: Callable[[], int],
        workers: Callable[[], Iterable[WorkerState]] = tuple,
    ) -> None:
        """Read these whenever somebody asks."""
        self._registry.register(_Now(state, associations, workers))

    def stored(self, calling_aet: str, size: int, seconds: float) -> None:
        """An instance is acknowledged; `size` in bytes, `seconds` from command set to answer."""
        found = self._bytes_of.get(calling_aet)
        if found is None:
            # prometheus_client takes its time to find a counter by its label.
            found = self._bytes_of[self._peer(calling_aet)] = self._bytes.labels(self._peer(calling_aet))
        found.inc(size)
        self._store_seconds.observe(seconds)

    def indexed(self, calling_aet: str, outcome: str, seconds: float) -> None:
        """See index.Observer."""
        key = calling_aet, outcome
        found = self._stores_of.get(key)
        if found is None:
            peer = self._peer(calling_aet)
            found = self._stores_of[peer, outcome] = self._stores.labels(peer, outcome)
        found.inc()
        self._indexed_seconds.observe(seconds)

    def store_failed(self, calling_aet: str, status: str) -> None:
        """A C-STORE has been answered with a failure: four hexadecimal digits."""
        self._stores.labels(self._peer(calling_aet), status).inc()

    def doubted(self, calling_aet: str) -> None:
        """An instance with doubts has been kept."""
        self._doubts.labels(self._peer(calling_aet)).inc()

    def operated(self, service: str, status: str) -> None:
        """Another service has answered; its name, and four hexadecimal digits."""
        self._operations.labels(service, status).inc()

    def association_over(self, calling_aet: str) -> None:
        """An accepted association is over."""
        self._associations.labels(self._peer(calling_aet)).inc()

    def association_refused(self, reason: str) -> None:
        """An association has been rejected, or not even that; the reason in a word."""
        self._refused.labels(reason).inc()

    def published(self, seconds: float) -> None:
        """See index.Observer."""
        self._publication_seconds.observe(seconds)

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


class _Now:
    """What stands at this moment, as a collector of prometheus_client."""

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
        """Nothing: asking for names must not ask the index."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Read everything; where the index cannot be asked, its part is absent."""
        yield GaugeMetricFamily(
            "imagingstudyd_associations_active", "Associations now.", value=self._associations()
        )
        yield from self._of_workers()
        try:
            state = self._state()
        except (IndexFault, OSError):
            return
        for name, meaning, field in _STATE:
            yield GaugeMetricFamily(name, meaning, value=getattr(state, field))

    def _of_workers(self) -> Iterator[Metric]:
        """The label is one of the names that the daemon gives its threads: some ten."""
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
