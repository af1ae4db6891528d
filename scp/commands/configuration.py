"""`check` and `password`: help to set the daemon up."""

import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scp.commands.application import (
    WRONG_USAGE,
    AsJSON,
    Config,
    Data,
    app,
    exit_on_bad_configuration,
    flags_by_section,
)
from scp.commands.output import print_json, print_line, print_message

if TYPE_CHECKING:
    from scp.settings.consistency import KeyPath
    from scp.settings.file import Sources
    from scp.settings.sections import Configuration


@app.command()
def check(
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002  typer's way
    targets: Annotated[  # noqa: FBT002
        bool, typer.Option("--targets", help="Also ask each of [[publish.targets]] what it can do.")
    ] = False,
    example: Annotated[bool, typer.Option("--example", help="Print a commented example file.")] = False,  # noqa: FBT002
) -> None:
    """Print the values in force, their sources, and what is open; or all that would stop a start."""
    if example:
        from scp.settings.example import example as example_file

        typer.echo(example_file(), nl=False)
        return
    from scp.observing import logs
    from scp.settings.file import dotted, load_with_sources

    with exit_on_bad_configuration():
        configuration, sources = load_with_sources(config, flags_by_section(data), check_files=True)
    logs.configure(configuration.log)
    from index import server_facts
    from scp.daemon.checks import find_faults, find_warnings

    faults, warnings = find_faults(configuration), find_warnings(configuration)
    server = server_facts(configuration.data, configuration.index)
    warnings += server.warnings
    said = [(fact, False) for fact in server.facts] + [(server.fault, True)] * bool(server.fault)
    targets_said = list(_targets(configuration)) if targets else []
    said += targets_said
    faults += [text for text, is_fault in said if is_fault]
    values = [(dotted(key_path), *rest) for key_path, *rest in _in_force(configuration, sources)]
    if as_json:
        print_json(
            {
                "configuration": configuration.model_dump(mode="json"),
                "sources": {key: source for key, _, source in values},
                "warnings": warnings,
                "faults": faults,
                "index": server.facts,
                **({"targets": [text for text, _ in targets_said]} if targets else {}),
            }
        )
    else:
        import orjson

        for key, value, source in values:
            print_line(f"{key} = {orjson.dumps(value).decode()}  # {source}")
        for text, is_fault in said:
            if not is_fault:
                print_line(f"# {text}")
        for warning in warnings:
            print_message(f"warning: {warning}")
        for fault in faults:
            print_message(f"fault: {fault}")
    if faults:
        raise typer.Exit(WRONG_USAGE)


@app.command()
def password(name: Annotated[str, typer.Argument(help="User name.")]) -> None:
    """Print a line for the file that dicom.users names; the passcode is asked for, or read from stdin."""
    from scp.settings.users import hash_passcode

    if ":" in name or not name.strip():
        print_message(f"imagingstudyd: user name {name!r}: allowed is any text without a colon")
        raise typer.Exit(WRONG_USAGE)
    if sys.stdin.isatty():
        passcode = typer.prompt("Passcode", hide_input=True, confirmation_prompt=True, err=True)
    else:
        passcode = sys.stdin.readline().rstrip("\n")
    print_line(f"{name}:{hash_passcode(passcode)}")


def _in_force(configuration: "Configuration", sources: "Sources") -> Iterator[tuple["KeyPath", Any, str]]:
    """Yield each value in force: its key, the value, and where it comes from."""
    from scp.settings.consistency import leaves

    for key_path, value in leaves(configuration.model_dump(mode="json")):
        if key_path == ("storage", "path") and value is None:
            yield key_path, str(configuration.data), _data_source()
        else:
            yield key_path, value, sources.of(key_path) or "default"


def _targets(configuration: "Configuration") -> Iterator[tuple[str, bool]]:
    """Ask each target what it can do; yield sentences, and whether each is a fault."""
    from index import probe_target, same_servers

    for finding in same_servers(configuration.publish.targets):
        yield f"publish target {finding.text}", finding.is_fault
    for one in configuration.publish.targets:
        for finding in probe_target(one):
            yield f"publish target {one.name} ({one.url}): {finding.text}", finding.is_fault


def _data_source() -> str:
    return "environment STATE_DIRECTORY" if os.environ.get("STATE_DIRECTORY") else "default"
