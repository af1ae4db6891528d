"""The command `imagingstudyd`. Data goes to stdout, everything else to stderr.

Exit status: 0 done, 1 failed or not found, 2 wrong usage or configuration.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from index import DatabaseFault, Index, IndexFault
from scp.commands.output import print_line, print_message
from scp.observing import logs
from scp.settings.file import load
from scp.settings.sections import Configuration, ConfigurationError

FAILED = 1
WRONG_USAGE = 2

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


def given(data: Path | None, **flags: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the flags that were given, as the sections of the configuration that they belong to."""
    named = {section: {k: v for k, v in keys.items() if v is not None} for section, keys in flags.items()}
    named = {section: keys for section, keys in named.items() if keys}
    return named if data is None else {**named, "storage": {"path": data}}


def refused(error: ConfigurationError) -> None:
    """Say everything that is wrong with a configuration, one line for each fault."""
    for fault in error.faults:
        print_message(fault)


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
        print_message(f"imagingstudyd: {error}")
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
