"""`worklist` and `match`: orders and matches by hand, for a site without a RIS."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scp.commands.application import FAILED, AsJSON, Config, Data, app, publish, use_index
from scp.commands.output import paths_with_reasons, print_json, print_line, print_message, print_table

if TYPE_CHECKING:
    from index import ListedOrder

worklist = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Orders: add, list, import and remove them."
)
match = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Match studies to orders by hand, where the rules cannot.",
)
app.add_typer(worklist, name="worklist")
app.add_typer(match, name="match")

_COLUMNS = (
    "ID",
    "Status",
    "Patient ID",
    "Patient",
    "Accession",
    "Procedure",
    "Modality",
    "Station",
    "Start",
    "Source",
)


class Sex(StrEnum):
    """PatientSex (PS3.3 C.7.1.1)."""

    M = "M"
    F = "F"
    O = "O"  # noqa: E741  the standard's own letter


def _checked(name: str) -> Callable[[str], str]:
    """Return a parser for typer of the index's check of this name."""

    def parse(text: str) -> str:
        import index

        try:
            return str(getattr(index, name)(text))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from None

    return parse


_date, _time, _uid, _short = map(_checked, ("date_of", "time_of", "uid_of", "short_of"))


@worklist.command()
def add(
    patient_id: Annotated[str, typer.Option(help="PatientID.")],
    patient_name: Annotated[str, typer.Option(help="PatientName as DICOM has it: Doe^Jane.")],
    accession: Annotated[str | None, typer.Option(parser=_short, help="AccessionNumber.")] = None,
    birth_date: Annotated[str | None, typer.Option(parser=_date, help="PatientBirthDate.")] = None,
    sex: Annotated[Sex | None, typer.Option(help="PatientSex.")] = None,
    issuer: Annotated[str | None, typer.Option(help="IssuerOfPatientID.")] = None,
    procedure: Annotated[str | None, typer.Option(help="RequestedProcedureDescription.")] = None,
    procedure_id: Annotated[str | None, typer.Option(parser=_short, help="RequestedProcedureID.")] = None,
    modality: Annotated[str | None, typer.Option(parser=_short, help="Modality: CT, MR, US …")] = None,
    station: Annotated[str | None, typer.Option(parser=_short, help="ScheduledStationAETitle.")] = None,
    date: Annotated[str | None, typer.Option(parser=_date, help="Start date; default: today.")] = None,
    time: Annotated[str | None, typer.Option(parser=_time, help="Start time; default: now.")] = None,
    step_id: Annotated[str | None, typer.Option(parser=_short, help="ScheduledProcedureStepID.")] = None,
    study_uid: Annotated[
        str | None, typer.Option(parser=_uid, help="StudyInstanceUID; default: a new one.")
    ] = None,
    referrer: Annotated[str | None, typer.Option(help="ReferringPhysicianName: Roe^Richard.")] = None,
    reason: Annotated[str | None, typer.Option(help="ReasonForTheRequestedProcedure.")] = None,
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002  typer's way
) -> None:
    """Add an order of one step; with the accession number or procedure id of an order, change that one."""
    from index import order_by_hand

    given = {
        "patient_id": patient_id,
        "patient_name": patient_name,
        "accession": accession,
        "birth_date": birth_date,
        "sex": str(sex or ""),
        "issuer": issuer,
        "procedure": procedure,
        "procedure_id": procedure_id,
        "modality": modality,
        "station": station,
        "date": date,
        "time": time,
        "step_id": step_id,
        "study_uid": study_uid,
        "referrer": referrer,
        "reason": reason,
    }
    with use_index(config, data, create=True) as index:
        row = index.orders.add(order_by_hand(given))
        (listed,) = index.orders.listed(row)
        publish(index)
    if as_json:
        print_json(_as_json(listed))
    else:
        print_line(f"order {row}, study {listed.study_uid}")


@worklist.command("list")
def list_(config: Config = None, data: Data = None, as_json: AsJSON = False) -> None:  # noqa: FBT002
    """List the orders, oldest first."""
    with use_index(config, data) as index:
        rows = index.orders.listed()
    if as_json:
        print_json([_as_json(row) for row in rows])
        return
    print_table(_COLUMNS, map(_cells, rows))


@worklist.command("import")
def import_(
    paths: Annotated[
        list[Path], typer.Argument(help="DICOM .wl, HL7 or FHIR R4 files, and folders of them.")
    ],
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Import orders from files: worklist items, HL7 v2 messages, ServiceRequests with their Patient."""
    with use_index(config, data, create=True) as index:
        report = index.orders.import_files(paths)
        publish(index)
    if as_json:
        print_json({"taken": report.taken, "failed": paths_with_reasons(report.failed)})
    else:
        for path, reason in report.failed:
            print_message(f"failed {path}: {reason}")
        print_line(f"{report.taken} taken; {len(report.failed)} failed")
    if report.failed:
        raise typer.Exit(FAILED)


@worklist.command()
def remove(
    order: Annotated[int, typer.Argument(help="ID of the order in `worklist list`.")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Remove an order and every match to it."""
    with use_index(config, data) as index:
        index.orders.remove(order)
        publish(index)


@match.command("set")
def set_(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    order: Annotated[int, typer.Argument(help="ID of the order in `worklist list`.")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Match a study to an order; the rules no longer decide about it."""
    with use_index(config, data) as index:
        index.orders.set_match(study, order)
        publish(index)


@match.command()
def undo(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Remove the matches of a study; the rules no longer decide about it."""
    with use_index(config, data) as index:
        index.orders.undo_match(study)
        publish(index)


@match.command()
def auto(
    study: Annotated[str, typer.Argument(help="Study Instance UID.")],
    config: Config = None,
    data: Data = None,
) -> None:
    """Let the rules decide about a study again, after `set` or `undo`."""
    with use_index(config, data) as index:
        index.orders.rematch(study)
        publish(index)


def _as_json(row: "ListedOrder") -> dict[str, Any]:
    return {
        "id": row.id,
        "key": row.key,
        "source": row.source,
        "sender": row.sender,
        "status": row.status,
        "study_uid": row.study_uid,
        "studies": list(row.studies),
        "attributes": row.attributes,
        "doubts": row.doubts,
    }


def _cells(row: "ListedOrder") -> list[str]:
    order = row.attributes
    steps = order["ScheduledProcedureStepSequence"]

    def of_steps(*keywords: str) -> str:
        values = (" ".join(_joined(step.get(k, "")) for k in keywords).strip() for step in steps)
        return ", ".join(dict.fromkeys(value for value in values if value))

    texts = (
        order.get(k, "")
        for k in ("PatientID", "PatientName", "AccessionNumber", "RequestedProcedureDescription")
    )
    start = of_steps("ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime")
    own = (
        of_steps("Modality"),
        of_steps("ScheduledStationAETitle"),
        start,
        f"{row.source} {row.sender}".strip(),
    )
    return [str(row.id), row.status, *map(_joined, texts), *own]


def _joined(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
