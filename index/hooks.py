"""What the daemon may observe of the index: events, and its state."""

from dataclasses import dataclass


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
    seconds. `free` and `watermark` are in bytes. `free_inodes`: None where the file system has no
    such number. `shortage`: why there is too little space, or empty.
    """

    waiting: int
    journal: float
    index_failing: bool
    unpublished: int
    failing: int
    publication_lag: float
    conflicts: int
    free: int
    watermark: int
    free_inodes: int | None = None
    shortage: str = ""
