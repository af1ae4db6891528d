"""The command `imagingstudyd`. Data goes to stdout, everything else to stderr.

Exit status: 0 done, 1 failed or not found, 2 wrong usage or configuration. Modules of commands are imported
for --help too: what only a running command needs is imported when it runs.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from index import DatabaseFault, IndexFault, Locked
from scp.commands.output import print_line, print_message

if TYPE_CHECKING:
    from index import Index
    from scp.settings.sections import Configuration

FAILED = 1
WRONG_USAGE = 2

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # With rich's markup, help texts would lose the [sections] of the configuration that they name.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration file (TOML).")]
Data = Annotated[Path | None, typer.Option("--data", metavar="DIR", help="Data directory.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def flags_by_section(data: Path | None, **sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the flags that were given, as sections of the configuration."""
    sections["storage"] = {"path": data}
    given = {name: {k: v for k, v in keys.items() if v is not None} for name, keys in sections.items()}
    return {name: keys for name, keys in given.items() if keys}


def load_configuration(config: Path | None, data: Path | None) -> "Configuration":
    """Load the configuration, and set up logging. Ends with status 2 where it is wrong."""
    from scp.observing import logs
    from scp.settings.file import load

    with exit_on_bad_configuration():
        configuration = load(config, flags_by_section(data))
    logs.configure(configuration.log)
    return configuration


@contextmanager
def exit_on_bad_configuration() -> Iterator[None]:
    """Print what is wrong with the configuration, and end with status 2."""
    from scp.settings.sections import ConfigurationError

    try:
        yield
    except ConfigurationError as error:
        for fault in error.faults:
            print_message(fault)
        raise typer.Exit(WRONG_USAGE) from None


@contextmanager
def exit_on_fault() -> Iterator[None]:
    """Print what went wrong in one line, and what the error notes to be done; end with status 1."""
    try:
        yield
    except (IndexFault, OSError) as error:
        print_message(f"imagingstudyd: {error}")
        for note in getattr(error, "__notes__", ()):
            print_message(note)
        raise typer.Exit(FAILED) from None


@contextmanager
def use_index(config: Path | None, data: Path | None, *, create: bool = False) -> Iterator["Index"]:
    """Open the index of a data directory that exists, or create one; close it at the end."""
    from scp.daemon.open_index import open_index

    configuration = load_configuration(config, data)
    with exit_on_fault():
        if not create and not configuration.data.is_dir():
            raise DatabaseFault(f"{configuration.data}: no such data directory")
        with open_index(configuration) as index:
            yield index


def publish(index: "Index", what: str = "") -> None:
    """Publish what has changed, unless a running daemon does; then print that, where `what` was changed."""
    try:
        index.publish()
    except Locked:
        if what:
            print_message(f"a running daemon publishes what was {what}")


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
