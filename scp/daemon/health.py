"""Health: whether the process lives, and whether it does what it is there for, with reasons."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from index import Index, IndexFault, WorkerState
from scp.daemon.listener import Listener

# The accept loop and the commit lock answer within microseconds; a slow disk may hold a commit for a while.
PATIENCE_SECONDS = 2.0
# A study overdue for longer has no publisher that works.
PUBLICATION_LAG_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Health:
    """`status`: ok, degraded (stores are taken, resources are late) or unavailable (stores are not taken)."""

    status: str
    checks: dict[str, str]

    @property
    def is_ready(self) -> bool:
        """Whether senders are served."""
        return self.status != "unavailable"


def health(index: Index, listener: Listener, workers: Iterable[WorkerState] = ()) -> Health:
    """Look at everything once; `workers` are the threads that do not only serve one association."""
    vital = {
        "accept loop": _moving(listener.is_moving, "makes no round"),
        "journal": _moving(index.makes_progress, "is held"),
    }
    late = {}
    try:
        state = index.state()
    except (IndexFault, OSError) as error:
        vital["database"] = str(error)
    else:
        vital["disk"] = state.shortage or "ok"
        late["publisher"] = _publisher(state.publication_lag, state.failing)
    # A thread that does not get on makes something late; what that is to senders, the checks above tell.
    for worker in workers:
        if late.get(worker.name, "ok") == "ok":
            late[worker.name] = worker.summary
    failed = {name for name, said in vital.items() if said != "ok"}
    slow = {name for name, said in late.items() if said != "ok"}
    return Health("unavailable" if failed else "degraded" if slow else "ok", vital | late)


def _moving(moves: Callable[[float], bool], otherwise: str) -> str:
    return "ok" if moves(PATIENCE_SECONDS) else f"{otherwise} within {PATIENCE_SECONDS:g} s"


def _publisher(lag: float, failing: int) -> str:
    if failing:
        return f"{failing} studies could not be published at the last try"
    return "ok" if lag < PUBLICATION_LAG_SECONDS else f"a study is overdue for {lag:.0f} s"
