"""The command line itself: help, version, completion."""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from scp.commands.main import register_commands
from support.daemon import cli

app = register_commands()


def inside(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def commands(command: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command and group with the words that call it."""
    yield names, command
    for name, one in getattr(command, "commands", {}).items():
        yield from commands(one, *names, name)


EVERY = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("names", EVERY, ids=" ".join)
def test_help_says_every_word(names: tuple[str, ...]) -> None:
    """A text with brackets or colons is no markup: `retain --help` had lost its [retention]."""
    command = EVERY[names]
    said = "".join(inside(*names, "-h").output.split())
    texts = [command.help, *(getattr(one, "help", None) for one in command.params)]
    assert [] == [text for text in texts if text and "".join(text.split()) not in said]
    assert "[retention]" in inside("retain", "--help").output


def test_every_command_is_looked_at() -> None:
    assert {("retain",), ("worklist", "add"), ("match", "auto"), ("serve",), ("import",), ()} <= set(EVERY)


def test_version() -> None:
    done = cli("--version")
    assert (0, f"imagingstudyd {version('imagingstudyd')}\n") == (done.returncode, done.stdout)


def test_completion() -> None:
    environment = {
        "COMP_WORDS": "imagingstudyd re",
        "COMP_CWORD": "1",
        "_IMAGINGSTUDYD_COMPLETE": "complete_bash",
    }
    done = CliRunner().invoke(app, [], env=environment, prog_name="imagingstudyd")
    assert ["reindex", "retain"] == sorted(done.output.split())
    assert "--install-completion" in inside("--help").output
