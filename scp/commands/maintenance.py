"""`delete`, `verify`, `reindex`, `retain`, `backup`: what keeps a data directory whole and within bounds."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from index import Index, Locked
from scp.commands.application import FAILED, AsJSON, Config, Data, app, configured, faults, opened
from scp.commands.output import print_json, print_line, print_message, progress

MEGABYTE = 1_000_000

HardLinks = Annotated[bool, typer.Option("--link", help="Hard links instead of copies, where they can be.")]


@app.command()
def delete(
    uid: Annotated[str, typer.Argument(help="UID of a study, a series or an instance.")],
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002  typer's way
) -> None:
    """Delete a study, series or instance with its objects and resources. It cannot be undone."""
    with opened(configured(config, data)) as index:
        deleted = index.delete(uid)
        publish(index, "deleted")
    if as_json:
        print_json(asdict(deleted))
    else:
        print_line(f"deleted {deleted.level} {uid}: {deleted.instances} instances, {deleted.bytes} bytes")


@app.command()
def verify(
    config: Config = None,
    data: Data = None,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,  # noqa: FBT002
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Read objects at most so fast, in MB a second.")
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Pass over files that are younger, in seconds: they may be in work.")
    ] = 60,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Compare objects, index and resources, beside a running daemon too. Ends with 1 where a fault stays."""
    total = mended = 0
    with opened(configured(config, data)) as index:
        for one in index.verify(repair=repair, rate=rate and rate * MEGABYTE, grace=grace):
            total += 1
            mended += one.mended
            if as_json:
                print_json(asdict(one))
            else:
                state = "mended" if one.mended else "FAULT"
                print_line(f"{state} {one.kind} {one.what} {one.path}: {one.detail}")
    if not as_json:
        print_line(f"{total} faults, {mended} mended")
    if mended < total:
        raise typer.Exit(FAILED)


@app.command()
def reindex(config: Config = None, data: Data = None, as_json: AsJSON = False) -> None:  # noqa: FBT002
    """Make the index anew from the objects, while nothing serves; the old one stays until it is whole."""
    from index import reindex as make_anew

    configuration = configured(config, data)
    with faults(), progress("indexing") as advance:
        rebuilt = make_anew(
            configuration.data,
            configuration.storage,
            configuration.index,
            configuration.fhir,
            advance,
        )
    if as_json:
        print_json(asdict(rebuilt))
    else:
        for path in rebuilt.missing:
            print_message(f"missing {path}: its row is gone")
        for path, reason in rebuilt.not_indexed:
            print_message(f"not indexed {path}: {reason}")
        if rebuilt.lost:
            print_message(f"{rebuilt.lost}: orders, matches and the change feed begin anew")
        print_line(f"{rebuilt.instances} instances")
    if rebuilt.missing or rebuilt.not_indexed:
        raise typer.Exit(FAILED)


def publish(index: Index, what: str) -> None:
    """Publish what has changed, or leave it to the daemon that runs."""
    try:
        index.publish()
    except Locked:
        print_message(f"a running daemon publishes what was {what}")


@app.command()
def retain(
    config: Config = None,
    data: Data = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,  # noqa: FBT002
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Delete the studies that [retention] lets go, as a running daemon does once an hour."""
    with opened(configured(config, data)) as index:
        expired = index.retain(dry_run=dry_run)
        if not dry_run:
            publish(index, "deleted")
    if as_json:
        print_json([asdict(one) for one in expired])
        return
    for one in expired:
        print_line(f"{one.uid} {one.instances} instances, {one.bytes} bytes: {one.reason}")
    print_line(f"{len(expired)} studies {'would go' if dry_run else 'deleted'}")


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="Folder of the backup; one that is there is renewed.")],
    config: Config = None,
    data: Data = None,
    link: HardLinks = False,  # noqa: FBT002
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Back up index and objects, beside a running daemon too. To restore, copy the folder back and serve."""
    with opened(configured(config, data)) as index, progress("backing up") as advance:
        done = index.backup(target, link=link, progress=advance)
    if as_json:
        print_json(asdict(done))
    else:
        for path in done.missing:
            print_message(f"missing {path}: see `imagingstudyd verify`")
        print_line(
            f"{done.objects} objects, {done.copied} of them new ({done.bytes} bytes), {done.removed} removed"
        )
    if done.missing:
        raise typer.Exit(FAILED)
