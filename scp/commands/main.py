"""The entry point of the command line."""

import gc
import io
import os
import sys
from importlib import import_module

import typer

from scp.commands.application import app

# Our user may write what we make, its group may read it, whatever the umask was.
UMASK = 0o027

# Modules, rows and resources are many small objects that hold no cycles: with Python's thresholds the cyclic
# collector takes a third of the time of a publication, and a tenth of that of a command.
COLLECTOR_THRESHOLDS = (50_000, 20, 50)

# A module for each group of commands, in the order in which --help lists them.
MODULES = (
    "serve",
    "studies",
    "import_files",
    "maintenance",
    "configuration",
    "worklist",
    "send",
    "forward",
    "publish",
    "conformance",
    "token",
)


def register_commands() -> typer.Typer:
    """Return the application with every command. A module registers its commands when it is imported."""
    for name in MODULES:
        import_module(f"scp.commands.{name}")
    return app


def main() -> None:
    """Run the command line."""
    os.umask(UMASK)
    gc.set_threshold(*COLLECTOR_THRESHOLDS)
    register_commands()
    # A character that the terminal cannot show is printed as an escape, instead of ending the command.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    app()
