"""The command `imagingstudyd`. Data goes to stdout, everything else to stderr.

Exit status: 0 done, 1 failed or not found, 2 wrong usage or configuration.
"""

import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from index import CannotListen, Completeness, DatabaseFault, Entry, Index, IndexFault
from scp.observing import logs
from scp.observing.text import json_line, plain, visible_json
from scp.settings.file import load, load_with_sources
from scp.settings.sections import Configuration, ConfigurationError

UMASK = 0o027
FAILED = 1
WRONG_USAGE = 2
# How often --follow looks for more.
FOLLOW_SECONDS = 0.5
# Off a terminal, progress is told after so many files or seconds: enough to see that it goes on.
PROGRESS_FILES = 1000
PROGRESS_SECONDS = 10
# Columns of a table that goes into a file or a pipe, which have no width of their own.
PIPE_WIDTH = 200

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Help texts are text: rich's markup would swallow the [sections] of the configuration that they name.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration file (TOML).")]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Data directory.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Unmatched = Annotated[bool, typer.Option("--unmatched", help="Only those without an order, and why.")]
Incomplete = Annotated[
    bool, typer.Option("--incomplete", help="Only those with steps in progress or instances missing.")
]


class Fhir(StrEnum):
    """The FHIR versions that `show` knows."""

    DSTU2 = "dstu2"
    R4 = "r4"
    R5 = "r5"


def register_commands() -> typer.Typer:
    """Return the application with every command: each module registers its own by being imported."""
    import scp.commands.importing
    import scp.commands.mending
    import scp.commands.service
    import scp.commands.worklist  # noqa: F401

    return app


def main() -> None:
    """Run the command line."""
    # What is made is for our user and its group, whatever we were started with.
    os.umask(UMASK)
    register_commands()
    # A name that the terminal's character set lacks is printed by its code, instead of ending the command.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


def say(text: str) -> None:
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


def given(data: Path | None, **flags: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the flags that were given, as the sections of the configuration that they belong to."""
    named = {section: {k: v for k, v in keys.items() if v is not None} for section, keys in flags.items()}
    named = {section: keys for section, keys in named.items() if keys}
    return named if data is None else {**named, "storage": {"path": data}}


def refused(error: ConfigurationError) -> None:
    """Say everything that is wrong with a configuration, one line for each fault."""
    for fault in error.faults:
        say(fault)


def configured(config: Path | None, data: Path | None) -> Configuration:
    """Load what is in force, and set up logging. Ends with status 2 where it is wrong."""
    with sound():
        configuration = load(config, given(data))
    logs.configure(configuration.log)
    return configuration


@contextmanager
def sound() -> Iterator[None]:
    """Say what is wrong with the configuration, and end with status 2."""
    try:
        yield
    except ConfigurationError as error:
        refused(error)
        raise typer.Exit(WRONG_USAGE) from None


@contextmanager
def faults() -> Iterator[None]:
    """Say what went wrong in one line, and end with status 1."""
    try:
        yield
    except (IndexFault, OSError) as error:
        say(f"imagingstudyd: {error}")
        raise typer.Exit(FAILED) from None


@contextmanager
def opened(configuration: Configuration, *, create: bool = False) -> Iterator[Index]:
    """Open the index of a data directory that is there already, or make one."""
    from scp.daemon.service import open_index

    with faults():
        if not create and not configuration.data.is_dir():
            raise DatabaseFault(f"{configuration.data}: no such data directory")
        index = open_index(configuration)
        try:
            yield index
        finally:
            index.close()


def print_json(value: Any) -> None:
    """Print a line of JSON to stdout."""
    sys.stdout.buffer.write(json_line(value))


def _version(asked: bool) -> None:  # noqa: FBT001  typer's way
    if asked:
        from importlib.metadata import version

        print_line(f"imagingstudyd {version('imagingstudyd')}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[  # noqa: FBT002  typer's way
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Receive DICOM instances, index them, and keep their FHIR ImagingStudy resources current."""


@app.command()
def serve(
    config: Config = None,
    data: Data = None,
    aet: Annotated[str | None, typer.Option(help="Our AE title.")] = None,
    host: Annotated[str | None, typer.Option(help="Address for DICOM.")] = None,
    port: Annotated[int | None, typer.Option(help="Port for DICOM; 0 takes a free one.")] = None,
    http_host: Annotated[str | None, typer.Option(help="Address for HTTP.")] = None,
    http_port: Annotated[int | None, typer.Option(help="Port for HTTP; 0 takes a free one.")] = None,
    no_http: Annotated[bool, typer.Option("--no-http", help="No HTTP at all.")] = False,  # noqa: FBT002  typer's way
) -> None:
    """Receive instances until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    from scp.daemon.checks import data_fault, start_faults
    from scp.daemon.service import Daemon
    from scp.daemon.systemd import passed_names

    flags = given(
        data,
        dicom={"aet": aet, "host": host, "port": port},
        http={"host": http_host, "port": http_port, "enabled": False if no_http else None},
    )
    with sound():
        configuration, sources = load_with_sources(config, flags, check_files=True)
        logs.configure(configuration.log)
        if found := start_faults(configuration, passed_names()):
            raise ConfigurationError(*(one.at(sources) for one in found))
        with faults():
            if fault := data_fault(configuration.data):
                raise DatabaseFault(fault)
            daemon = Daemon(configuration, lambda: load(config, flags, check_files=True))
            try:
                raise typer.Exit(daemon.run())
            except CannotListen as error:  # taken since it was tried
                raise ConfigurationError(f"{sources.near(tuple(error.key.split('.')))}: {error}") from None


@app.command()
def studies(
    config: Config = None,
    data: Data = None,
    unmatched: Unmatched = False,  # noqa: FBT002
    incomplete: Incomplete = False,  # noqa: FBT002
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """List the studies, in the order of their arrival."""
    with opened(configured(config, data)) as index:
        doubts = {one.uid: one.doubt for one in index.orders.unmatched()} if unmatched else {}
        rows = [row for row in index.studies() if not unmatched or row["uid"] in doubts]
        if incomplete:
            rows += [] if unmatched else index.announced()
            rows = _incomplete(rows, index.procedures.incomplete())
        conflicting = [] if unmatched or incomplete else index.studies_in_conflict()
    if unmatched:
        rows = [{**row, "doubt": doubts[row["uid"]]} for row in rows]
    if as_json:
        print_json([*rows, *conflicting])
        return
    columns = ["Study Instance UID", "Patient ID", "Accession", "Modalities"]
    columns += ["Series", "Instances", "Started"]
    columns += ["Steps in progress", "Missing"] if incomplete else []
    columns += ["Doubt"] if unmatched else []
    print_table(columns, (_cells(row)[: len(columns)] for row in [*rows, *conflicting]))
    for one in conflicting:
        say(f"study {one['uid']} has only data sets in conflict, {one['conflicts']}: `show` names them")


def _cells(row: dict[str, Any]) -> list[Any]:
    return [", ".join(value) if isinstance(value, tuple) else value for value in row.values()]


def _incomplete(rows: list[dict[str, Any]], said: list[Completeness]) -> list[dict[str, Any]]:
    """Return the studies that are not complete, each with what it lacks."""
    lacks = {one.uid: {"in_progress": one.in_progress, "missing": one.missing} for one in said}
    return [{**row, **lacks[row["uid"]]} for row in rows if row["uid"] in lacks]


@app.command()
def show(
    uid: Annotated[str, typer.Argument(help="Study Instance UID.")],
    fhir: Annotated[Fhir | None, typer.Option(help="FHIR version; default: the first configured.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Print a study's ImagingStudy; --json prints the very bytes of its file."""
    with opened(configured(config, data)) as index:
        content, disagreements = index.resource(uid, fhir)
        steps = index.procedures.completeness(uid)
        aside = index.kept_aside(uid)
    if not as_json:
        content = orjson.dumps(orjson.loads(content), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if not as_json or sys.stdout.isatty():
        content = visible_json(content.decode())
    sys.stdout.buffer.write(content)
    for one in disagreements:
        values = ", ".join(f"{orjson.dumps(value).decode()} ({count})" for value, count in one.values)
        say(f"instances disagree: {one.level} {one.uid} {one.keyword}: {values}")
    for kept in aside:
        say(f"kept aside: {kept}")
    if steps.in_progress:
        say(f"procedure steps in progress: {steps.in_progress} of {steps.steps}")
    for missing in steps.missing:
        say(f"procedure steps tell of an instance that is not here: {missing}")


@app.command()
def changes(
    config: Config = None,
    data: Data = None,
    since: Annotated[int, typer.Option(help="Sequence number behind which to begin.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more, until interrupted.")] = False,  # noqa: FBT002
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Print the change feed: which resource changed, to which version, when; with --json a line for each."""
    with opened(configured(config, data)) as index, suppress(KeyboardInterrupt, BrokenPipeError):
        while True:
            for entry in index.changes(since):
                since = entry.seq
                _print_change(entry, as_json=as_json)
            sys.stdout.flush()
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)


def _print_change(entry: Entry, *, as_json: bool) -> None:
    at = datetime.fromtimestamp(entry.at / 1000, UTC).isoformat(timespec="milliseconds")
    if as_json:
        print_json({**asdict(entry), "at": at})
        sys.stdout.buffer.flush()
    else:
        print_line(
            f"{entry.seq} {at} {entry.change} {entry.fhir} {entry.type}/{entry.id} version {entry.version}"
        )


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
        say(f"{self._doing}: {self._done} files")
