"""The entry point: every command, and where it is run from."""

import io
import os
import sys
from importlib import import_module

import typer

from scp.commands.application import (
    app,
)

UMASK = 0o027

# A module for each group of commands, in the order in which --help lists them.
COMMANDS = ("serve", "studies", "importing", "maintenance", "configuration", "worklist")


def register_commands() -> typer.Typer:
    """Return the application with every command: each module registers its own by being imported."""
    for name in COMMANDS:
        import_module(f"scp.commands.{name}")
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
