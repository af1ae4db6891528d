"""How the index stands at this moment, for health and metrics."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class State:
    """`publication_lag`: seconds that the study which waits longest for its publication is overdue.

    `waiting` are instances that wait for their commit, `spooled` small objects whose files are not synced yet
    (the index holds their bytes), `unpublished` studies that wait for publication, `failing` those of them
    whose last try failed. `free` and `watermark` are in bytes; `shortage` tells why there is too little room,
    or nothing.
    """

    waiting: int
    spooled: int
    unpublished: int
    failing: int
    publication_lag: float
    conflicts: int
    free: int
    watermark: int
    shortage: str = ""
