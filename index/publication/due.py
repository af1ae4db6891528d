"""When each changed study is to be published."""

import heapq
import math


class DueStudies:
    """Changed studies and when each is due, on the monotonic clock.

    There are two queues: of studies that grow, and of those whose association has ended, in each the longest
    due first. While both have studies that are due, they take turns: between two complete studies at most one
    that grows is published.
    """

    def __init__(self) -> None:
        self.times: dict[int, float] = {}
        # What publishing these studies takes, by their last publication, in seconds.
        self.seconds = 0.0
        self._durations: dict[int, float] = {}
        self._growing: list[tuple[float, int]] = []
        self._complete: list[tuple[float, int]] = []
        self._is_complete: set[int] = set()
        self._is_turn_of_complete = True

    def __len__(self) -> int:
        return len(self.times)

    def __contains__(self, study: int) -> bool:
        return study in self.times

    def add(self, study: int, at: float, duration: float = 0.0) -> None:
        """Let a study that grows be due at a time; one that is due already stays where it is."""
        if study not in self.times:
            self._note(study, at, duration)
            heapq.heappush(self._growing, (at, study))

    def add_complete(self, study: int, at: float, duration: float = 0.0) -> None:
        """Let a study whose association has ended be due at a time, or when it was due before that."""
        if study not in self._is_complete:
            at = min(at, self.times.get(study, at))
            self._is_complete.add(study)
            self._note(study, at, duration)
            heapq.heappush(self._complete, (at, study))

    def first(self) -> float:
        """Return when the first study is due; infinite where there is none."""
        return min(self._first(self._complete), self._first(self._growing))

    def pop(self, now: float) -> tuple[int, float, bool] | None:
        """Take the study that is next, when it was due, and whether it grows; None where none is due yet."""
        queues = [self._complete, self._growing]
        if not self._is_turn_of_complete:
            queues.reverse()
        for queue in queues:
            if self._first(queue) <= now:
                self._is_turn_of_complete = queue is self._growing
                at, study = heapq.heappop(queue)
                del self.times[study]
                self._is_complete.discard(study)
                self.seconds -= self._durations.pop(study)
                return study, at, queue is self._growing
        return None

    def _note(self, study: int, at: float, duration: float) -> None:
        self.times[study] = at
        self.seconds += duration - self._durations.get(study, 0.0)
        self._durations[study] = duration

    def _first(self, queue: list[tuple[float, int]]) -> float:
        """Return when the first study of a queue is due, without those that were moved or taken."""
        while queue and not self._is_valid(queue):
            heapq.heappop(queue)
        return queue[0][0] if queue else math.inf

    def _is_valid(self, queue: list[tuple[float, int]]) -> bool:
        at, study = queue[0]
        is_in_its_queue = (study in self._is_complete) == (queue is self._complete)
        return is_in_its_queue and self.times.get(study) == at
