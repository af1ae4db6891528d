"""What the daemon may observe of the index: what happens, and how it stands."""

from dataclasses import dataclass


class Observer:
    """Is told what happens, in the thread in which it happens: its methods are quick and never raise."""

    def indexed(self, calling_aet: str, outcome: str, seconds: float) -> None:
        """An instance is indexed, so long after it was acknowledged."""

    def published(self, seconds: float) -> None:
        """A study has been published."""

    def publication_failed(self) -> None:
        """A study could not be published; it will be tried again."""


@dataclass(frozen=True, slots=True)
class State:
    """`publication_lag`: seconds that the study which waits longest for its publication is overdue.

    `waiting` are instances that wait for their sync or their row, `journal` is how full that is, from 0 to 1.
    `index_failing`: the last try to index failed. `unpublished` are studies that wait for publication,
    `failing` those of them whose last try failed. `free` and `watermark` are in bytes; `shortage` tells why
    there is too little room, or nothing.
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
    shortage: str = ""
