"""Maintenance of a data directory: `delete`, `verify`, `reindex`, `retain`, `backup`, and migrations."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    publish,
    use_index,
)
from scp.commands.output import print_json, print_line, print_message, progress

if TYPE_CHECKING:
    from index import StorageSettings

MEGABYTE = 1_000_000

HardLinks = Annotated[bool, typer.Option("--link", help="Hard links instead of copies, where possible.")]


@app.command()
def delete(
    uid: Annotated[str, typer.Argument(help="UID of a study, a series or an instance.")],
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002  typer's way
) -> None:
    """Delete a study, series or instance with its objects and resources. It cannot be undone."""
    with use_index(config, data) as index:
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
    repair: Annotated[bool, typer.Option("--repair", help="Repair what can be repaired.")] = False,  # noqa: FBT002
    rate: Annotated[
        float | None, typer.Option(min=0.001, help="Read at most so many MB of objects a second.")
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Pass over files younger than this, in seconds: they may be in use.")
    ] = 60,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Compare objects, index and resources, also beside a running daemon. Ends with 1 where a fault stays."""
    total = mended = 0
    with use_index(config, data) as index:
        for finding in index.verify(repair=repair, rate=rate and rate * MEGABYTE, grace=grace):
            total += 1
            mended += finding.mended
            if as_json:
                print_json(asdict(finding))
            else:
                state = "mended" if finding.mended else "FAULT"
                print_line(f"{state} {finding.kind} {finding.what} {finding.path}: {finding.detail}")
    if not as_json:
        print_line(f"{total} faults, {mended} mended")
    if mended < total:
        raise typer.Exit(FAILED)


@app.command()
def reindex(config: Config = None, data: Data = None, as_json: AsJSON = False) -> None:  # noqa: FBT002
    """Make a new index from the objects while no daemon runs; until it is whole, the old one stays."""
    from index import reindex as rebuild_index

    configuration = load_configuration(config, data)
    with exit_on_fault(), progress("indexing") as advance:
        rebuilt = rebuild_index(
            configuration.data,
            configuration.storage,
            configuration.index,
            configuration.fhir,
            advance,
            configuration.routes,
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


@app.command("migrate-index")
def migrate_index(
    source: Annotated[
        str, typer.Argument(metavar="FROM", help="URL of the index that is copied, as in [index] url.")
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="URL of an empty database, or of a new file.")],
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Copy the index from SQLite to PostgreSQL or back while no daemon runs, and prove the copy equal.

    FROM is not changed. An interrupted run leaves TO empty; run it again.
    """
    from index import migrate_index as copy_index

    _check_urls(FROM=source, TO=target)
    configuration = load_configuration(config, data)
    with exit_on_fault():
        migrated = copy_index(configuration.data, source, target, partial(progress, unit="rows"))
    if as_json:
        print_json(asdict(migrated))
    for table in migrated.not_copied:
        print_message(f"not copied {table}: it is no table of the index")
    for difference in migrated.differences:
        print_message(f"FROM and TO differ: {difference}")
    if migrated.differences:
        print_message("imagingstudyd: TO is left empty")
        raise typer.Exit(FAILED)
    if not as_json:
        print_line(
            f"{sum(migrated.tables.values())} rows of {len(migrated.tables)} tables: FROM and TO are equal "
            "in row counts, content and last ids"
        )
    print_message(
        "set [index] url to TO before the daemon starts again; FROM would lack what comes from now on"
    )


@app.command("migrate-storage")
def migrate_storage(
    source: Annotated[
        str,
        typer.Argument(metavar="FROM", help="Where the objects are: `data`, or a URL as in [storage] url."),
    ],
    target: Annotated[str, typer.Argument(metavar="TO", help="Where they are to be: the same.")],
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Copy all objects to another store while no daemon runs, prove the copies equal, and use that store.

    `data` is the data directory. FROM keeps its objects. Run it again where it was interrupted: it goes on.
    """
    from index import migrate_storage as copy_objects

    configuration = load_configuration(config, data)
    _check_stores(configuration.storage, source, target)
    with exit_on_fault():
        migrated = copy_objects(
            configuration.data,
            configuration.storage,
            configuration.index,
            source,
            target,
            partial(progress, unit="objects"),
        )
    if as_json:
        print_json(asdict(migrated))
    for path, reason in migrated.faults:
        print_message(f"not migrated {path}: {reason}")
    if migrated.faults:
        print_message("imagingstudyd: FROM stays in use; see `imagingstudyd verify`, then run it again")
    if migrated.elsewhere:
        print_message(
            f"{migrated.elsewhere} objects are kept by other nodes: run it there; FROM stays in use"
        )
    if not as_json:
        print_line(f"{migrated.objects} objects, {migrated.bytes} bytes in TO; {migrated.copied} copied now")
    if not migrated.switched:
        raise typer.Exit(FAILED)
    where = f"; the objects of FROM are in {migrated.left}" if migrated.left else ""
    print_message(
        "every object of the index is in TO, with its SHA-1: "
        f"{'take [storage] url away' if target == 'data' else 'set [storage] url to TO'} before the daemon "
        f"starts{where}"
    )


def _check_stores(storage: "StorageSettings", source: str, target: str) -> None:
    """End with status 2 where FROM or TO cannot be used."""
    from pydantic import ValidationError

    faults = ["FROM and TO are the same"] if source == target else []
    for name, url in (("FROM", source), ("TO", target)):
        try:
            storage.at(url)
        except ValidationError as error:
            faults += [f"{name}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()]
    for fault in faults:
        print_message(fault)
    if faults:
        raise typer.Exit(WRONG_USAGE)


def _check_urls(**urls: str) -> None:
    """End with status 2 where a URL is not one that [index] url may have. Its value is not printed."""
    from pydantic import SecretStr, ValidationError

    from index import IndexSettings

    faults = []
    for name, url in urls.items():
        try:
            IndexSettings(url=SecretStr(url))
        except ValidationError as error:
            faults += [f"{name}: {fault['msg'].removeprefix('Value error, ')}" for fault in error.errors()]
    if len(set(urls.values())) < len(urls):
        faults.append(f"{' and '.join(urls)} are the same")
    for fault in faults:
        print_message(fault)
    if faults:
        raise typer.Exit(WRONG_USAGE)


@app.command()
def retain(
    config: Config = None,
    data: Data = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be deleted.")] = False,  # noqa: FBT002
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Delete the studies that [retention] lets go, as a running daemon does once an hour."""
    with use_index(config, data) as index:
        expired = index.retain(dry_run=dry_run)
        if not dry_run:
            publish(index, "deleted")
    if as_json:
        print_json([asdict(study) for study in expired])
        return
    for study in expired:
        print_line(f"{study.uid} {study.instances} instances, {study.bytes} bytes: {study.reason}")
    print_line(f"{len(expired)} studies {'would go' if dry_run else 'deleted'}")


@app.command()
def backup(
    target: Annotated[Path, typer.Argument(help="Folder of the backup; an existing one is renewed.")],
    config: Config = None,
    data: Data = None,
    link: HardLinks = False,  # noqa: FBT002
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Back up index and objects, also beside a running daemon. To restore, copy the folder back and serve.

    With an index in PostgreSQL, it prints the commands that do so.
    """
    with use_index(config, data) as index, progress("backing up") as advance:
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
