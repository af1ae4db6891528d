"""The layouts of earlier data sets, by which similar data sets are read with fewer steps.

The instances of a series have the same elements, nearly all of the same lengths. A layout is a run of
elements. All its headers are read by one call and compared with those remembered. Where all are equal, every
element has its remembered position and length; where one differs, the layout is split there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import Struct

from index.dicom.scanning.encodings import Raw

# Shorter runs are read element by element.
SHORTEST = 4
# Layouts that are remembered. A CT takes some ten; with more, the data sets have nothing in common.
MOST = 100

# Bytes of a header that all elements have: tag, VR and a 16-bit length.
_KEY = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One element: its position in the data, the size of its header, and its whole size, in bytes."""

    position: int
    tag: int
    header: int
    size: int
    is_wanted: bool


ReadStep = Callable[[int, int, int], Step | None]


class _Layout:
    """Elements that follow each other, and the Struct that reads all their headers at once."""

    def __init__(self, steps: Sequence[Step], headers: Sequence[bytes]) -> None:
        self.steps = steps
        self.headers = tuple(headers)
        start = steps[0].position
        self.first, self.last = steps[0].tag, steps[-1].tag
        self.size = steps[-1].position + steps[-1].size - start
        self.wanted = [
            (step.tag, step.position - start + step.header, step.position - start + step.size)
            for step in steps
            if step.is_wanted
        ]
        fields = "".join(f"{step.header}s{step.size - step.header}x" for step in steps)
        self.unpack_from = Struct(f"<{fields}").unpack_from


class LayoutCache:
    """The layouts for one table of wanted elements in one encoding. Used by one thread."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Layout] = {}

    def follow(
        self, data: bytes, position: int, previous: int, last: int, left: int, raw: Raw, read_step: ReadStep
    ) -> tuple[int, int, int]:
        """Read elements by layouts or one by one; return position, tag before it, elements left to read.

        `read_step(position, previous, last)` reads one plain element at a position, or returns None.
        """
        known, size = self._known, len(data)
        run: list[Step] = []
        while left:
            layout = known.get(data[position : position + _KEY])
            if (
                layout is not None
                and previous < layout.first
                and layout.last <= last
                and len(layout.steps) <= left
                and position + layout.size <= size
            ):
                headers = layout.unpack_from(data, position)
                if headers != layout.headers:
                    self._split(layout, headers)
                    continue
                for tag, start, end in layout.wanted:
                    raw[tag] = data[position + start : position + end]
                position += layout.size
                previous = layout.last
                left -= len(layout.steps)
                self._remember(data, run)
                run.clear()
                continue
            step = read_step(position, previous, last)
            if step is None:
                break
            run.append(step)
            position += step.size
            previous = step.tag
            left -= 1
        self._remember(data, run)
        return position, previous, left

    def _remember(self, data: bytes, run: Sequence[Step]) -> None:
        """Remember a run without its first element, which was not in a layout because it often differs."""
        if len(run) > SHORTEST and run[-1].position + run[-1].size <= len(data):
            if len(self._known) >= MOST:
                self._known.clear()
            steps = run[1:]
            headers = [data[step.position : step.position + step.header] for step in steps]
            self._known[headers[0][:_KEY]] = _Layout(steps, headers)

    def _split(self, layout: _Layout, headers: Sequence[bytes]) -> None:
        """Take the first element that differs out of a layout."""
        at = next(n for n, header in enumerate(headers) if header != layout.headers[n])
        del self._known[layout.headers[0][:_KEY]]
        for part in (slice(0, at), slice(at + 1, None)):
            steps = layout.steps[part]
            if len(steps) >= SHORTEST:
                kept = layout.headers[part]
                self._known[kept[0][:_KEY]] = _Layout(steps, kept)
