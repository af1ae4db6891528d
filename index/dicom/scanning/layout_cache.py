"""How the elements of earlier data sets lay, so that the next of their kind are jumped over together.

The instances of a series have the same elements, and nearly all of them the same lengths. A trail is a run of
elements: their headers are read by one call and compared with those that it was learned from. Nothing is
guessed: where all are equal, every element lies where it lay, and where one differs, the trail is cut there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Any

# Shorter runs are read one by one.
SHORTEST = 4
# Trails that are remembered; a CT takes some ten. With more, the data sets have nothing in common.
MOST = 100

# Bytes of a header, as far as it tells elements apart: tag, VR and the length, where that is a short one.
_KEY = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One element: where it lies, from the start of the data; the sizes of its header and of all of it."""

    place: int
    tag: int
    header: int
    size: int
    is_wanted: bool


class _Trail:
    """Elements that follow each other, and how to read all of their headers at once."""

    def __init__(self, steps: Sequence[Step], headers: Sequence[bytes]) -> None:
        self.steps = steps
        self.headers = tuple(headers)
        start = steps[0].place
        self.first, self.last = steps[0].tag, steps[-1].tag
        self.size = steps[-1].place + steps[-1].size - start
        self.wanted = [
            (step.tag, step.place - start + step.header, step.place - start + step.size)
            for step in steps
            if step.is_wanted
        ]
        layout = "".join(f"{step.header}s{step.size - step.header}x" for step in steps)
        self.unpack_from = Struct(f"<{layout}").unpack_from


class LayoutCache:
    """The trails of one table of wanted elements in one encoding. Used by one thread."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Trail] = {}

    def follow(
        self,
        data: bytes,
        place: int,
        previous: int,
        last: int,
        left: int,
        raw: dict[int, Any],
        step: Callable[[int, int, int], Step | None],
    ) -> tuple[int, int, int]:
        """Jump along trails and from element to element; return place, tag before it, elements left to see.

        `step(place, previous, last)` takes one plain element that lies there, or returns None.
        """
        known, size = self._known, len(data)
        run: list[Step] = []
        while left:
            trail = known.get(data[place : place + _KEY])
            if (
                trail is not None
                and previous < trail.first
                and trail.last <= last
                and len(trail.steps) <= left
                and place + trail.size <= size
            ):
                headers = trail.unpack_from(data, place)
                if headers != trail.headers:
                    self._cut(trail, headers)
                    continue
                for tag, start, end in trail.wanted:
                    raw[tag] = data[place + start : place + end]
                place += trail.size
                previous = trail.last
                left -= len(trail.steps)
                self._learn(data, run)
                run.clear()
                continue
            taken = step(place, previous, last)
            if taken is None:
                break
            run.append(taken)
            place += taken.size
            previous = taken.tag
            left -= 1
        self._learn(data, run)
        return place, previous, left

    def _learn(self, data: bytes, run: Sequence[Step]) -> None:
        """Remember a run, but for its first element: that is there because it differs from time to time."""
        if len(run) > SHORTEST and run[-1].place + run[-1].size <= len(data):
            if len(self._known) >= MOST:
                self._known.clear()
            steps = run[1:]
            headers = [data[step.place : step.place + step.header] for step in steps]
            self._known[headers[0][:_KEY]] = _Trail(steps, headers)

    def _cut(self, trail: _Trail, headers: Sequence[bytes]) -> None:
        """Take the first element that differs out of a trail."""
        at = next(n for n, header in enumerate(headers) if header != trail.headers[n])
        del self._known[trail.headers[0][:_KEY]]
        for part in (slice(0, at), slice(at + 1, None)):
            steps = trail.steps[part]
            if len(steps) >= SHORTEST:
                kept = trail.headers[part]
                self._known[kept[0][:_KEY]] = _Trail(steps, kept)
