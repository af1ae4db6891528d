"""How many associations a peer, and all unknown callers together, may have at one time."""

from collections import Counter
from collections.abc import Sequence
from threading import Lock

from scp.settings.sections import Peer

# One of so many places, and at least one, is kept for [[peers]]: strangers cannot shut them out.
RESERVED = 10

# The place of a caller without an entry in [[peers]]; no AE title of a peer is blank.
STRANGER = ""


def open_to_strangers(associations: int, peers: Sequence[Peer]) -> int:
    """Return how many of all associations strangers may have, and who has not said yet who it is."""
    kept = max(1, associations // RESERVED) if peers and associations > 1 else 0
    return associations - kept


class AssociationQuota:
    """Counts the associations of each peer with a limit, and of all unknown callers. Outlives a reload."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()
        self._lock = Lock()

    def take(self, calling_aet: str, most: int) -> bool:
        """Take one of `most` places; return whether there was one."""
        with self._lock:
            if self._taken[calling_aet] >= most:
                return False
            self._taken[calling_aet] += 1
            return True

    def free(self, calling_aet: str) -> None:
        """Give a place back."""
        with self._lock:
            self._taken[calling_aet] -= 1
