"""`studies`, `show` and `changes`: print what the index holds."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from enum import StrEnum
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from index import SORTS, STATES, BadFilter, StudyFilter
from scp.commands.application import WRONG_USAGE, AsJSON, Config, Data, app, use_index
from scp.commands.output import print_json, print_json_array, print_line, print_message, print_table
from scp.observing.text import visible_json

if TYPE_CHECKING:
    from index import Entry, Index

# How often --follow looks for new entries.
FOLLOW_SECONDS = 0.5
# Rows of one table: its columns are as wide as their longest value, so all are held in memory.
TABLE_ROWS = 1000
_COLUMNS = ("Study Instance UID", "Patient ID", "Accession", "Modalities", "Series", "Instances", "Started")

Unmatched = Annotated[bool, typer.Option("--unmatched", help="Only those without an order, and why.")]
Complete = Annotated[
    bool, typer.Option("--complete", help="Only those said to be complete: since when, and why.")
]
Incomplete = Annotated[
    bool, typer.Option("--incomplete", help="Only those with steps in progress or instances missing.")
]
Bundled = Annotated[
    bool, typer.Option("--bundle", help="With all that it refers to, as a transaction Bundle.")
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
    patient: Annotated[str, typer.Option(help="PatientID; also with wildcards, * and ?.")] = "",
    name: Annotated[
        str,
        typer.Option(
            help="Patient's name or a component of it, without regard to case and accents; * and ?."
        ),
    ] = "",
    accession: Annotated[str, typer.Option(help="Accession Number; * and ?.")] = "",
    modality: Annotated[str, typer.Option(help="Modality of one of its series; * and ?.")] = "",
    since: Annotated[str, typer.Option(metavar="DATE", help="Started (StudyDate) then or later.")] = "",
    until: Annotated[str, typer.Option(metavar="DATE", help="Started then or before.")] = "",
    state: Annotated[
        str, typer.Option(help=f"Status in FHIR R4 and R5: {', '.join(STATES)}. Default: available.")
    ] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Print so many at most.")] = None,
    sort: Annotated[
        str, typer.Option(help=f"Order: {', '.join(SORTS)}; with - before it, the last come first.")
    ] = SORTS[0],
    unmatched: Unmatched = False,  # noqa: FBT002
    incomplete: Incomplete = False,  # noqa: FBT002
    complete: Complete = False,  # noqa: FBT002
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """List the studies that have instances, in the order of their arrival."""
    try:
        wanted = StudyFilter(patient, name, accession, modality, since, until, state, sort)
    except BadFilter as error:
        print_message(f"--{error}")
        raise typer.Exit(WRONG_USAGE) from None
    lists = _Lists(complete, incomplete, unmatched)
    with use_index(config, data) as index:
        rows = islice(_listed(index, wanted, lists), limit)
        if as_json:
            print_json_array(rows)
            return
        conflicting: list[dict[str, Any]] = []
        _print_tables([*_COLUMNS, *lists.columns], _noted(rows, conflicting))
    for row in conflicting:
        print_message(
            f"study {row['uid']} has only data sets in conflict, {row['conflicts']}: `show` names them"
        )


class _Lists(NamedTuple):
    """Which lists are asked for."""

    complete: bool
    incomplete: bool
    unmatched: bool

    @property
    def columns(self) -> Iterator[str]:
        """Their columns."""
        for is_asked, columns in zip(self, _LIST_COLUMNS, strict=True):
            yield from columns if is_asked else ()


_LIST_COLUMNS = (("Complete since", "Reason", "Later"), ("Steps in progress", "Missing"), ("Doubt",))


def _listed(index: "Index", wanted: StudyFilter, lists: _Lists) -> Iterator[dict[str, Any]]:
    """Yield the studies asked for; last come those that have no row: announced, or only in conflict."""
    rows = index.find_studies(wanted)
    if lists.complete:
        rows = _complete(index, rows)
    if lists.incomplete:
        is_other = lists.unmatched or lists.complete or wanted.state
        rows = chain(rows, () if is_other else index.announced(wanted))
        lacks = {
            study.uid: {"in_progress": study.in_progress, "missing": study.missing}
            for study in index.procedures.incomplete()
        }
        rows = ({**row, **lacks[row["uid"]]} for row in rows if row["uid"] in lacks)
    if lists.unmatched:
        doubts = {study.uid: study.doubt for study in index.orders.unmatched()}
        rows = ({**row, "doubt": doubts[row["uid"]]} for row in rows if row["uid"] in doubts)
    yield from rows
    if not (any(lists) or wanted.state):
        yield from index.studies_in_conflict(wanted)


def _complete(index: "Index", rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the studies that were said to be complete: since when, why, and how many instances came later."""
    while part := list(islice(rows, TABLE_ROWS)):
        told = index.completions.told(row["uid"] for row in part)
        for row in part:
            if found := told.get(row["uid"]):
                at = _time(found.told)
                yield {**row, "complete": at, "reason": found.reason, "later": found.later}


def _noted(rows: Iterable[dict[str, Any]], conflicting: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows, and note those of studies that have only data sets in conflict."""
    for row in rows:
        if "conflicts" in row:
            conflicting.append(row)
        yield row


def _print_tables(columns: list[str], rows: Iterator[dict[str, Any]]) -> None:
    """Print a table of so many rows as are held in memory, and where there are more, another one."""
    part = list(islice(rows, TABLE_ROWS))
    while True:
        print_table(columns, (_cells(row)[: len(columns)] for row in part))
        if not (part := list(islice(rows, TABLE_ROWS))):
            return


def _cells(row: dict[str, Any]) -> list[Any]:
    return [", ".join(value) if isinstance(value, tuple) else value for value in row.values()]


@app.command()
def show(
    uid: Annotated[str, typer.Argument(help="Study Instance UID.")],
    fhir: Annotated[Fhir | None, typer.Option(help="FHIR version; default: the first configured.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
    bundle: Bundled = False,  # noqa: FBT002
) -> None:
    """Print a study's ImagingStudy; --json prints the same bytes as its file."""
    import orjson

    with use_index(config, data) as index:
        content, disagreements = index.resource(uid, fhir, bundle=bundle)
        steps = index.procedures.completeness(uid)
        completion = index.completions.told([uid]).get(uid)
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
    if completion:
        later = f", and {completion.later} came later" if completion.later else ""
        print_message(
            f"complete since {_time(completion.told)} ({completion.reason}), with {completion.instances}"
            f" instances{later}"
        )


@app.command()
def changes(
    config: Config = None,
    data: Data = None,
    since: Annotated[int, typer.Option(help="Print the entries after this sequence number.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more, until interrupted.")] = False,  # noqa: FBT002
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Print the change feed: which resource changed, to which version, when; with --json a line for each.

    An entry "complete" says that a study is complete, and why: its resource is as it was.
    """
    with use_index(config, data) as index, suppress(KeyboardInterrupt, BrokenPipeError):
        if not since and (pruned := index.changes_pruned()):
            print_message(f"changes up to number {pruned} have been deleted ([publish] keep_changes)")
        while True:
            for entry in index.changes(since):
                since = entry.seq
                _print_change(entry, as_json=as_json)
            sys.stdout.flush()
            if not follow:
                return
            time.sleep(FOLLOW_SECONDS)


def _print_change(entry: "Entry", *, as_json: bool) -> None:
    if as_json:
        print_json(entry.row())
        sys.stdout.buffer.flush()
    else:
        resource = f"{entry.type}/{entry.id} version {entry.version}"
        why = f" ({entry.reason})" if entry.reason else ""
        print_line(f"{entry.seq} {_time(entry.at)} {entry.change} {entry.fhir} {resource}{why}")


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
