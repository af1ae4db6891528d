"""`token`: let callers in over HTTP, and out again."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scp.commands.application import FAILED, WRONG_USAGE, Config, Data, app, load_configuration
from scp.commands.output import print_line, print_message

if TYPE_CHECKING:
    from index import Right


@app.command()
def token(
    name: Annotated[str, typer.Argument(help="Who is to have it: 1 to 64 of A-Z a-z 0-9 . _ @ -")],
    config: Config = None,
    data: Data = None,
    rights: Annotated[str, typer.Option(help="read, write, operate; several joined by commas.")] = "read",
    revoke: Annotated[bool, typer.Option("--revoke", help="Take it back; a daemon knows at once.")] = False,  # noqa: FBT002  typer's way
) -> None:
    """Print a new token for HTTP, once, and add its hash to the file that http.tokens names."""
    file = load_configuration(config, data).http.tokens
    if file is None:
        print_message("imagingstudyd: http.tokens is not set: it names the file of those who have a token")
        raise typer.Exit(WRONG_USAGE)
    try:
        if revoke:
            _revoke(file, name)
        else:
            _add(file, name, _rights(rights))
    except ValueError as error:
        print_message(f"imagingstudyd: {error}")
        raise typer.Exit(WRONG_USAGE) from error
    except OSError as error:
        print_message(f"imagingstudyd: {file}: {error.strerror}")
        raise typer.Exit(FAILED) from error


def _rights(text: str) -> "tuple[Right, ...]":
    from index import Right

    try:
        return tuple(dict.fromkeys(Right(one.strip()) for one in text.split(",")))
    except ValueError:
        raise ValueError(f"--rights {text!r}: allowed are {', '.join(Right)}, joined by commas") from None


def _add(file: Path, name: str, rights: "tuple[Right, ...]") -> None:
    from index import new_token

    made, line = new_token(name, rights)
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    if any(_is_of(one, name) for one in lines):
        raise ValueError(f"{name} has a token already; --revoke takes it back")
    _write(file, [*lines, str(line)])
    print_line(made)


def _revoke(file: Path, name: str) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    left = [line for line in lines if not _is_of(line, name)]
    if left == lines:
        print_message(f"imagingstudyd: {file}: {name} has no token")
        raise typer.Exit(FAILED)
    _write(file, left)


def _is_of(line: str, name: str) -> bool:
    return line.strip().startswith(f"{name}:")


def _write(file: Path, lines: list[str]) -> None:
    """Replace the file, whole at every moment; whoever could read the old one can read the new one."""
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("w", encoding="utf-8") as written:
        if file.exists():
            status = file.stat()
            os.fchmod(written.fileno(), status.st_mode & 0o777)
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(written.fileno(), status.st_uid, status.st_gid)
        written.write("".join(f"{line}\n" for line in lines))
        written.flush()
        os.fsync(written.fileno())
    temporary.replace(file)
