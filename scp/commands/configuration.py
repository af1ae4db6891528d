"""`check` and `password`: what helps to set the daemon up."""

import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
import typer

from scp.commands.application import WRONG_USAGE, AsJSON, Config, Data, app, given, refused
from scp.commands.output import print_json, print_line, print_message
from scp.settings.consistency import Place, leaves
from scp.settings.file import Sources, dotted, load_with_sources
from scp.settings.sections import Configuration, ConfigurationError


@app.command()
def check(
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002  typer's way
    example: Annotated[bool, typer.Option("--example", help="Print a commented example file.")] = False,  # noqa: FBT002
) -> None:
    """Say what is in force, from where, and what is open; or everything that would stop a start."""
    if example:
        from scp.settings.example import example as text

        typer.echo(text(), nl=False)
        return
    from scp.daemon.checks import faults, openings

    try:
        configuration, sources = load_with_sources(config, given(data), check_files=True)
    except ConfigurationError as error:
        refused(error)
        raise typer.Exit(WRONG_USAGE) from None
    found, warnings = faults(configuration), openings(configuration)
    if as_json:
        print_json(
            {
                "configuration": configuration.model_dump(mode="json"),
                "sources": {dotted(place): where for place, _, where in _in_force(configuration, sources)},
                "warnings": warnings,
                "faults": found,
            }
        )
    else:
        for place, value, where in _in_force(configuration, sources):
            print_line(f"{dotted(place)} = {orjson.dumps(value).decode()}  # {where}")
    for warning in warnings if not as_json else ():
        print_message(f"warning: {warning}")
    for fault in found if not as_json else ():
        print_message(f"fault: {fault}")
    if found:
        raise typer.Exit(WRONG_USAGE)


@app.command()
def password(name: Annotated[str, typer.Argument(help="User name.")]) -> None:
    """Print a line for the file that dicom.users names; the passcode is asked for, or read from stdin."""
    from scp.settings.users import hashed

    if ":" in name or not name.strip():
        print_message(f"imagingstudyd: user name {name!r}: allowed is any text without a colon")
        raise typer.Exit(WRONG_USAGE)
    if sys.stdin.isatty():
        passcode = typer.prompt("Passcode", hide_input=True, confirmation_prompt=True, err=True)
    else:
        passcode = sys.stdin.readline().rstrip("\n")
    print_line(f"{name}:{hashed(passcode)}")


def _in_force(configuration: Configuration, sources: Sources) -> Iterator[tuple[Place, Any, str]]:
    """Yield each value in force with its place and where it comes from."""
    for place, value in leaves(configuration.model_dump(mode="json")):
        if place == ("storage", "path") and value is None:
            yield place, str(configuration.data), _data_source()
        else:
            yield place, value, sources.of(place) or "default"


def _data_source() -> str:
    return "environment STATE_DIRECTORY" if os.environ.get("STATE_DIRECTORY") else "default"
