"""Health: whether the daemon does its work, with reasons."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from index import Index, IndexFault, WorkerState
from scp.daemon.listener import Listener

# The accept loop answers within microseconds; a slow disk may hold a write of the journal for a while.
PATIENCE_SECONDS = 2.0
# A study is overdue for longer only where the publisher does not work.
PUBLICATION_LAG_SECONDS = 60.0
# Nodes that are named.
NAMED = 10


@dataclass(frozen=True, slots=True)
class Health:
    """`status`: ok, degraded (stores work, resources are late) or unavailable (stores fail)."""

    status: str
    checks: dict[str, str]

    @property
    def is_ready(self) -> bool:
        """Whether senders are served."""
        return self.status != "unavailable"


def health(
    index: Index,
    listener: Listener,
    workers: Iterable[WorkerState] = (),
    failing_peers: Mapping[str, str] | None = None,
) -> Health:
    """Return the health now; `workers` are the threads of the whole daemon.

    `failing_peers`: those to whom nothing can be forwarded now, with the reasons.
    """
    vital = {
        "accept loop": _progress(listener.makes_progress, "makes no round"),
        "journal": _progress(index.makes_progress, "is held"),
    }
    late: dict[str, str] = {}
    try:
        state = index.state()
    except (IndexFault, OSError) as error:
        vital["database"] = str(error)
    else:
        vital["disk"] = state.shortage or "ok"
        if state.store_away:
            vital["object store"] = state.store_away
        if state.database:
            # The journal takes instances for a while; a balancer that sent them elsewhere would lose that.
            (late if state.takes else vital)["database"] = state.database
        if state.silent_nodes:
            late["nodes"] = f"no sign of life of {', '.join(state.silent_nodes[:NAMED])}"
        late["publisher"] = _publisher(state.publication_lag, state.failing)
    if failing_peers:
        late["forwarding"] = "; ".join(failing_peers.values())
    if failing_targets := index.targets.failing():
        late["publishing"] = "; ".join(f"{name}: {why}" for name, why in failing_targets.items())
    # A failing thread makes something late. Whether senders are affected is checked above.
    for worker in workers:
        if late.get(worker.name, "ok") == "ok":
            late[worker.name] = worker.summary
    failed = {name for name, found in vital.items() if found != "ok"}
    slow = {name for name, found in late.items() if found != "ok"}
    return Health("unavailable" if failed else "degraded" if slow else "ok", vital | late)


def _progress(makes_progress: Callable[[float], bool], otherwise: str) -> str:
    return "ok" if makes_progress(PATIENCE_SECONDS) else f"{otherwise} within {PATIENCE_SECONDS:g} s"


def _publisher(lag: float, failing: int) -> str:
    if failing:
        return f"{failing} studies could not be published at the last try"
    return "ok" if lag < PUBLICATION_LAG_SECONDS else f"a study is overdue for {lag:.0f} s"
