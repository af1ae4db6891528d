"""What commands print: data to stdout, messages to stderr."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from scp.observing.text import json_line, plain

# Off a terminal, progress is printed after so many files or seconds: enough to see that it goes on.
PROGRESS_FILES = 1000
PROGRESS_SECONDS = 10
# Columns of a table in a file or a pipe, which have no width.
PIPE_WIDTH = 200


def print_message(text: str) -> None:
    """Print a message for a person, to stderr."""
    typer.echo(plain(text), err=True)


def print_line(text: str) -> None:
    """Print a line of data, to stdout."""
    typer.echo(plain(text))


def print_table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table to stdout, each value in full."""
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    first = Column(columns[0], overflow="fold", min_width=32 if columns[0].endswith("UID") else None)
    table = Table(first, *(Column(name, overflow="fold") for name in columns[1:]))
    for row in rows:
        table.add_row(*("" if value is None else Text(plain(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else PIPE_WIDTH).print(table)


def print_json(value: Any) -> None:
    """Print a line of JSON to stdout."""
    sys.stdout.buffer.write(json_line(value))


def paths_with_reasons(pairs: Iterable[tuple[object, str]]) -> list[dict[str, str]]:
    """Return files, each with the reason why it was not taken, for JSON."""
    return [{"path": str(path), "reason": reason} for path, reason in pairs]


@contextmanager
def progress(doing: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Show how many files are done, of a `total` where it is known.

    Yields a function that is called with how many more are done.
    """
    if not sys.stderr.isatty():
        lines = _ProgressLines(doing)
        yield lines.advance
        lines.print()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(doing, markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(doing, total=total)
        yield lambda more: bar.advance(task, more)


class _ProgressLines:
    """Progress off a terminal: a line now and then, and at the end."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._done = 0
        self._printed = time.monotonic()

    def advance(self, more: int) -> None:
        """Count files, and print a line when it is time."""
        before, self._done = self._done, self._done + more
        is_due = time.monotonic() - self._printed >= PROGRESS_SECONDS
        if is_due or before // PROGRESS_FILES < self._done // PROGRESS_FILES:
            self.print()

    def print(self) -> None:
        """Print how many files are done."""
        self._printed = time.monotonic()
        print_message(f"{self._doing}: {self._done} files")
