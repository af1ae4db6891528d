"""`publish`: what waits to be published to [[publish.targets]], and what could not be."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from scp.commands.application import (
    FAILED,
    WRONG_USAGE,
    AsJSON,
    Config,
    Data,
    app,
    exit_on_fault,
    load_configuration,
    use_index,
)
from scp.commands.output import print_json, print_json_array, print_line, print_message, print_table
from scp.commands.studies import Fhir

if TYPE_CHECKING:
    from index import Index, TargetEntry, TargetFilter, TargetSettings
    from scp.settings.sections import Configuration

publish = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Studies that are published to the FHIR servers of [[publish.targets]]: those that wait, and dead"
    " letters, which are not tried again before they change.",
)
app.add_typer(publish, name="publish")

UID = Annotated[
    str, typer.Argument(metavar="[UID]", help="Only of this study or resource.", show_default=False)
]
Target = Annotated[str, typer.Option(help="Only for this target.")]
Everything = Annotated[bool, typer.Option("--all", help="All: neither UID nor --target is needed.")]
Waiting = Annotated[bool, typer.Option("--waiting", help="Also those that wait or are held back.")]
Name = Annotated[str, typer.Argument(metavar="TARGET", help="Its name in [[publish.targets]].")]


@publish.command("list")
def list_entries(
    uid: UID = "",
    target: Target = "",
    waiting: Waiting = False,  # noqa: FBT002  typer's way
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """List dead letters, with the reason and what the server's OperationOutcome says."""
    with use_index(config, data) as index, exit_on_fault():
        entries = index.targets.listing.entries(_filter(uid, target), waiting=waiting)
        if as_json:
            print_json_array(map(_as_json, entries))
            return
        columns = ("Target", "Resource", "State", "Attempts", "Since", "Reason")
        rows = (
            (
                one.target,
                f"{one.type}/{one.name}",
                one.state,
                one.attempts,
                _time(one.created),
                "\n".join([one.error, *one.issues]),
            )
            for one in entries
        )
        print_table(columns, rows)


def _as_json(one: "TargetEntry") -> dict[str, object]:
    return {
        "target": one.target,
        "type": one.type,
        "id": one.name,
        "state": one.state,
        "attempts": one.attempts,
        "since": _time(one.created),
        "due": _time(one.due) if one.due > 0 else None,
        "error": one.error,
        "issues": one.issues,
    }


@publish.command()
def retry(
    uid: UID = "",
    target: Target = "",
    everything: Everything = False,  # noqa: FBT002
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Try dead letters and postponed studies again, at once. Ends with 1 where there is none."""
    _check_given(uid, target, everything=everything)
    with use_index(config, data) as index, exit_on_fault():
        count = index.targets.listing.retry(_filter(uid, target))
        _print_count("retried", count, index, as_json=as_json)


@publish.command()
def drop(
    uid: UID = "",
    target: Target = "",
    everything: Everything = False,  # noqa: FBT002
    waiting: Waiting = False,  # noqa: FBT002
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Give dead letters up, until the study changes again. Ends with 1 where there is none."""
    _check_given(uid, target, everything=everything)
    with use_index(config, data) as index, exit_on_fault():
        count = index.targets.listing.drop(_filter(uid, target), waiting=waiting)
        _print_count("dropped", count, index, as_json=as_json)


@publish.command()
def status(
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Print for each target how many studies wait, are held back and are dead letters, and why."""
    with use_index(config, data) as index, exit_on_fault():
        found = index.targets.listing.status()
    keys = ("target", "waiting", "held", "dead", "oldest", "behind", "filling", "error")
    rows = [
        (
            *(one.target, one.waiting, one.held, one.dead, one.oldest and _time(one.oldest)),
            *(one.behind, one.is_filling, one.error),
        )
        for one in found
    ]
    if as_json:
        print_json([dict(zip(keys, row, strict=True)) for row in rows])
        return
    columns = ("Target", "Waiting", "Held back", "Dead letters", "Oldest waits since", "Last failure")
    print_table(columns, ((*row[:5], _described(row[5], row[7], is_filling=row[6])) for row in rows))


def _described(behind: int, error: str, *, is_filling: bool) -> str:
    said = [error] if error else []
    if behind:
        said.append(f"{behind} changes are still to be looked at")
    if is_filling:
        said.append("studies from before it was configured are still to be taken up")
    return "; ".join(said)


@publish.command("test")
def probe(
    name: Name,
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Ask a target what it can do, and for a study that nobody has; nothing is written there."""
    from index import probe_target

    found = probe_target(_settings(load_configuration(config, data), name))
    if as_json:
        print_json([{"text": one.text, "fault": one.is_fault} for one in found])
    else:
        for one in found:
            print_line(f"{name}: {one.text}")
    if any(one.is_fault for one in found):
        raise typer.Exit(FAILED)


@publish.command()
def verify(
    name: Name,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only compare.")] = False,  # noqa: FBT002
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Compare what a target has with what the index has; send again what differs.

    Ends with 1 where something differs and is not sent again.
    """
    from index import NoAnswer

    with use_index(config, data) as index, exit_on_fault():
        if name not in [one.name for one in index.targets.settings]:
            _unknown(name, [one.name for one in index.targets.settings])
        if next(one.method for one in index.targets.settings if one.name == name) == "webhook":
            print_message(f"imagingstudyd: {name} is a webhook: what it has cannot be asked")
            raise typer.Exit(WRONG_USAGE)
        work = index.targets.verify(name, mends=not dry_run)
        is_left = False
        try:
            for one in work.run():
                is_left |= not one.is_mended
                if as_json:
                    print_json({"type": one.type, "id": one.name, "what": one.what, "mended": one.is_mended})
                else:
                    done = ": sent again" if one.is_mended else ""
                    print_line(f"{one.type}/{one.name} {one.what}{done}")
        except NoAnswer as error:
            print_message(f"imagingstudyd: {name}: {error}")
            raise typer.Exit(FAILED) from None
    print_message(f"{work.count} resources compared")
    if is_left:
        raise typer.Exit(FAILED)


@app.command()
def export(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the files, which replace older ones.")
    ],
    fhir: Annotated[Fhir, typer.Option(help="FHIR version.")] = Fhir.R4,
    since: Annotated[
        str, typer.Option(metavar="TIME", help="Only what has changed since, as 2026-11-26T08:00:00+01:00.")
    ] = "",
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Write all resources as NDJSON files with a manifest (FHIR Bulk Data), to load a platform at once.

    The manifest's transactionTime is the --since of the next export.
    """
    from datetime import datetime

    try:
        at = datetime.fromisoformat(since).astimezone() if since else None
    except ValueError:
        print_message(f"imagingstudyd: --since {since} is no time, as 2026-11-26T08:00:00+01:00")
        raise typer.Exit(WRONG_USAGE) from None
    versions = load_configuration(config, data).fhir.versions
    if str(fhir) not in versions:
        print_message(f"imagingstudyd: --fhir {fhir} is not among fhir.versions: {', '.join(versions)}")
        raise typer.Exit(WRONG_USAGE)
    with use_index(config, data) as index, exit_on_fault():
        done = index.targets.export(str(fhir), folder, at)
    if as_json:
        print_json({"exported": done.counts, "deleted": done.deleted})
    else:
        for kind, count in sorted(done.counts.items()):
            print_line(f"{kind} {count}")
        if done.deleted:
            print_line(f"deleted {done.deleted}")


def _settings(configuration: "Configuration", name: str) -> "TargetSettings":
    found = next((one for one in configuration.publish.targets if one.name == name), None)
    return found or _unknown(name, [one.name for one in configuration.publish.targets])


def _unknown(name: str, known: list[str]) -> NoReturn:
    print_message(
        f"imagingstudyd: {name} is not in [[publish.targets]]: {', '.join(known) or 'none is there'}"
    )
    raise typer.Exit(WRONG_USAGE)


def _filter(uid: str, target: str) -> "TargetFilter":
    from index import TargetFilter

    return TargetFilter(target, uid)


def _check_given(uid: str, target: str, *, everything: bool) -> None:
    if bool(uid or target) == everything:
        print_message("imagingstudyd: give a UID, or --target, or --all")
        raise typer.Exit(WRONG_USAGE)


def _print_count(done: str, count: int, index: "Index", *, as_json: bool) -> None:
    from index import is_served

    if as_json:
        print_json({done: count})
    else:
        print_line(f"{done} {count}")
        if count and done == "retried" and not is_served(index.data):
            print_message("no daemon runs: they are sent when it does")
    if not count:
        raise typer.Exit(FAILED)


def _time(milliseconds: int) -> str:
    """Return a time as ISO 8601 has it, in local time."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).astimezone().isoformat(timespec="seconds")
