"""`studies`, `show` and `changes`: print what the index holds."""

import sys
import time
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scp.commands.application import AsJSON, Config, Data, app, use_index
from scp.commands.output import print_json, print_line, print_message, print_table
from scp.observing.text import visible_json

if TYPE_CHECKING:
    from index import Completeness, Entry

# How often --follow looks for new entries.
FOLLOW_SECONDS = 0.5

Unmatched = Annotated[bool, typer.Option("--unmatched", help="Only those without an order, and why.")]
Incomplete = Annotated[
    bool, typer.Option("--incomplete", help="Only those with steps in progress or instances missing.")
]


class Fhir(StrEnum):
    """The FHIR versions that `show` knows."""

    DSTU2 = "dstu2"
    R4 = "r4"
    R5 = "r5"


@app.command()
def studies(
    config: Config = None,
    data: Data = None,
    unmatched: Unmatched = False,  # noqa: FBT002
    incomplete: Incomplete = False,  # noqa: FBT002
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """List the studies, in the order of their arrival."""
    with use_index(config, data) as index:
        doubts = {study.uid: study.doubt for study in index.orders.unmatched()} if unmatched else {}
        rows = [row for row in index.studies() if not unmatched or row["uid"] in doubts]
        if incomplete:
            rows += [] if unmatched else index.announced()
            rows = _incomplete(rows, index.procedures.incomplete())
        conflicting = [] if unmatched or incomplete else index.studies_in_conflict()
    if unmatched:
        rows = [{**row, "doubt": doubts[row["uid"]]} for row in rows]
    if as_json:
        print_json([*rows, *conflicting])
        return
    columns = ["Study Instance UID", "Patient ID", "Accession", "Modalities"]
    columns += ["Series", "Instances", "Started"]
    columns += ["Steps in progress", "Missing"] if incomplete else []
    columns += ["Doubt"] if unmatched else []
    print_table(columns, (_cells(row)[: len(columns)] for row in [*rows, *conflicting]))
    for row in conflicting:
        print_message(
            f"study {row['uid']} has only data sets in conflict, {row['conflicts']}: `show` names them"
        )


def _cells(row: dict[str, Any]) -> list[Any]:
    return [", ".join(value) if isinstance(value, tuple) else value for value in row.values()]


def _incomplete(rows: list[dict[str, Any]], incomplete: list["Completeness"]) -> list[dict[str, Any]]:
    """Return the studies that are not complete, each with what it lacks."""
    lacks = {study.uid: {"in_progress": study.in_progress, "missing": study.missing} for study in incomplete}
    return [{**row, **lacks[row["uid"]]} for row in rows if row["uid"] in lacks]


@app.command()
def show(
    uid: Annotated[str, typer.Argument(help="Study Instance UID.")],
    fhir: Annotated[Fhir | None, typer.Option(help="FHIR version; default: the first configured.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Print a study's ImagingStudy; --json prints the same bytes as its file."""
    import orjson

    with use_index(config, data) as index:
        content, disagreements = index.resource(uid, fhir)
        steps = index.procedures.completeness(uid)
        conflicts = index.kept_aside(uid)
    if not as_json:
        content = orjson.dumps(orjson.loads(content), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if not as_json or sys.stdout.isatty():
        content = visible_json(content.decode())
    sys.stdout.buffer.write(content)
    for differing in disagreements:
        values = ", ".join(f"{orjson.dumps(value).decode()} ({count})" for value, count in differing.values)
        print_message(f"instances disagree: {differing.level} {differing.uid} {differing.keyword}: {values}")
    for conflict in conflicts:
        print_message(f"kept aside: {conflict}")
    if steps.in_progress:
        print_message(f"procedure steps in progress: {steps.in_progress} of {steps.steps}")
    for missing in steps.missing:
        print_message(f"procedure steps name an instance that is not here: {missing}")


@app.command()
def changes(
    config: Config = None,
    data: Data = None,
    since: Annotated[int, typer.Option(help="Print the entries after this sequence number.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more, until interrupted.")] = False,  # noqa: FBT002
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Print the change feed: which resource changed, to which version, when; with --json a line for each."""
    with use_index(config, data) as index, suppress(KeyboardInterrupt, BrokenPipeError):
        while True:
            for entry in index.changes(since):
                since = entry.seq
                _print_change(entry, as_json=as_json)
            sys.stdout.flush()
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)


def _print_change(entry: "Entry", *, as_json: bool) -> None:
    at = datetime.fromtimestamp(entry.at / 1000, UTC).isoformat(timespec="milliseconds")
    if as_json:
        print_json({**asdict(entry), "at": at})
        sys.stdout.buffer.flush()
    else:
        print_line(
            f"{entry.seq} {at} {entry.change} {entry.fhir} {entry.type}/{entry.id} version {entry.version}"
        )
