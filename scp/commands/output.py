"""What commands print: data to stdout, sentences for a person to stderr."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from scp.observing.text import json_line, plain

# Off a terminal, progress is told after so many files or seconds: enough to see that it goes on.
PROGRESS_FILES = 1000
PROGRESS_SECONDS = 10
# Columns of a table that goes into a file or a pipe, which have no width of their own.
PIPE_WIDTH = 200


def print_message(text: str) -> None:
    """Print a line for a person: to stderr."""
    typer.echo(plain(text), err=True)


def print_line(text: str) -> None:
    """Print a line of data: to stdout."""
    typer.echo(plain(text))


def print_table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table to stdout, its values as the text that they are, each in full."""
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


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int], None]]:
    """Say how many files are done; call what it gives with how many more are."""
    if not sys.stderr.isatty():
        lines = _Lines(doing)
        yield lines.advance
        lines.end()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(doing, markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as shown:
        task = shown.add_task(doing, total=None)
        yield lambda more: shown.advance(task, more)


class _Lines:
    """Progress off a terminal: a line now and then, and at the end."""

    def __init__(self, doing: str) -> None:
        self._doing = doing
        self._done = 0
        self._told = time.monotonic()

    def advance(self, more: int) -> None:
        """Count files."""
        before, self._done = self._done, self._done + more
        in_time = time.monotonic() - self._told < PROGRESS_SECONDS
        if before // PROGRESS_FILES < self._done // PROGRESS_FILES or not in_time:
            self.end()

    def end(self) -> None:
        """Say how many they are."""
        self._told = time.monotonic()
        print_message(f"{self._doing}: {self._done} files")
