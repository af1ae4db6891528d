"""What the daemon may observe of the index: events, and its state."""

from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Actor:
    """Who has something done: a name, and where they call from."""

    name: str
    address: str = ""


ACTOR: ContextVar[Actor | None] = ContextVar("actor", default=None)
"""Who has this thread or task do what it does; None: nobody, the daemon by itself."""


class Observer:
    """Called at each event, in the thread of the event. Methods must be quick and must not raise."""

    def indexed(self, calling_aet: str, outcome: str, seconds: float) -> None:
        """An instance is indexed, so long after it was acknowledged."""

    def published(self, seconds: float, lag: float | None) -> None:
        """A study has been published, which took so long.

        `lag`: so long after the first of the instances that its resource now shows was acknowledged, in
        seconds. None: only other things have changed, or an earlier process received them.
        """

    def publication_failed(self) -> None:
        """A study could not be published. It will be tried again."""

    def study_complete(self, reason: str) -> None:
        """A study was said to be complete, for this reason."""

    def study_reopened(self, reason: str) -> None:
        """A study that was said to be complete for this reason has got another instance, its first."""

    def deleted(self, level: str, studies: tuple[str, ...], patient_id: str) -> None:
        """A study was deleted, or a series or an instance of these; the context says by whom (ACTOR)."""

    def published_to(self, target: str, outcome: str, lag: float | None) -> None:
        """Something was sent to a target of publishing; `outcome` is done, or what is done about the failure.

        `lag`: from the answer to the first C-STORE that it shows, in seconds. None: not known.
        """


@dataclass(frozen=True, slots=True)
class State:
    """The state of the index.

    `waiting`: instances that wait for their sync or their row. `journal`: how full that is, from 0 to 1.
    `index_failing`: whether the last try to index failed. `unpublished`: studies that wait for publication;
    `failing`: those whose last try failed. `publication_lag`: the longest time that a study is overdue, in
    seconds. `conflicts`: None while the database cannot say it. `free` and `watermark` are in bytes.
    `free_inodes`: None where the file system has no such number. `shortage`: why there is too little space,
    or empty. `database`: why it cannot be used now, or empty. `takes`: whether instances are acknowledged
    all the same. `nodes`: how many data directories of the index are served, silent and stopped;
    `silent_nodes`: where those are whose daemon has vanished.
    `store_away`: why the store that instances are kept in does not answer, or empty.
    """

    waiting: int
    journal: float
    index_failing: bool
    unpublished: int
    failing: int
    publication_lag: float
    conflicts: int | None
    free: int
    watermark: int
    free_inodes: int | None = None
    shortage: str = ""
    database: str = ""
    takes: bool = True
    nodes: Mapping[str, int] = field(default_factory=dict)
    silent_nodes: tuple[str, ...] = ()
    store_away: str = ""
