"""How many associations a peer, or all unknown callers together, may have at one time."""

from collections import Counter
from collections.abc import Sequence
from threading import Lock

from scp.settings.sections import Peer

# One association in so many, and at least one, is kept for [[peers]]: unknown callers cannot shut them out.
RESERVED_PART = 10

# What all callers without an entry in [[peers]] are counted as; no AE title of a peer is blank.
UNKNOWN_CALLER = ""


def limit_for_unknown_callers(associations: int, peers: Sequence[Peer]) -> int:
    """Return how many associations unknown callers may have, with those that have not sent their request."""
    kept = max(1, associations // RESERVED_PART) if peers and associations > 1 else 0
    return associations - kept


class AssociationQuota:
    """Counts the associations of each peer with a limit, and of all unknown callers. Outlives a reload."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def take(self, calling_aet: str, most: int) -> bool:
        """Count one more association, unless there are `most`; return whether it was counted."""
        with self._lock:
            if self._counts[calling_aet] >= most:
                return False
            self._counts[calling_aet] += 1
            return True

    def free(self, calling_aet: str) -> None:
        """Count one association less."""
        with self._lock:
            self._counts[calling_aet] -= 1
