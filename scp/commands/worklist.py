"""`worklist` and `match`: orders and matches by hand, for a site without a RIS."""

from datetime import datetime
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


def _date(text: str) -> str:
    """Check a date of 20260102 or 2026-01-02."""
    return _moment(text, ("%Y%m%d", "%Y-%m-%d"), "%Y%m%d", "a date like 20260102 or 2026-01-02")


def _time(text: str) -> str:
    """Check a time of 1015, 101500, 10:15 or 10:15:00."""
    forms = ("%H%M", "%H%M%S", "%H:%M", "%H:%M:%S")
    return _moment(text, forms, "%H%M%S", "a time like 1015, 10:15 or 10:15:00")


def _moment(text: str, forms: tuple[str, ...], form: str, allowed: str) -> str:
    for allowed_form in forms:
        try:
            return datetime.strptime(text, allowed_form).strftime(form)  # noqa: DTZ007  the scanner's local time
        except ValueError:
            continue
    raise typer.BadParameter(f"{text!r} is not {allowed}")


def _uid(text: str) -> str:
    from index import is_uid

    if not is_uid(text):
        raise typer.BadParameter(f"{text!r} is not 1 to 64 characters of [0-9.]")
    return text


def _short(text: str) -> str:
    """Check a value of VR SH, CS or AE (PS3.5 Table 6.2-1)."""
    if not 1 <= len(text.strip()) <= 16 or "\\" in text:  # noqa: PLR2004
        raise typer.BadParameter(f"{text!r} is not 1 to 16 characters without a backslash")
    return text.strip()


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
    from index import NewOrder, Source

    now = datetime.now().astimezone()
    patient = {"PatientID": patient_id, "PatientName": patient_name, "PatientBirthDate": birth_date}
    patient |= {"PatientSex": str(sex or ""), "IssuerOfPatientID": issuer}
    attributes = {
        "AccessionNumber": accession,
        "RequestedProcedureID": procedure_id or accession,
        "RequestedProcedureDescription": procedure,
        "ReferringPhysicianName": referrer,
        "ReasonForTheRequestedProcedure": reason,
        "StudyInstanceUID": study_uid,
    }
    step = {
        "ScheduledProcedureStepID": step_id,
        "ScheduledProcedureStepDescription": procedure,
        "Modality": modality,
        "ScheduledStationAETitle": station,
        "ScheduledProcedureStepStartDate": date or now.strftime("%Y%m%d"),
        "ScheduledProcedureStepStartTime": time or now.strftime("%H%M%S"),
    }
    identity = accession or procedure_id or study_uid or now.isoformat()
    with use_index(config, data, create=True) as index:
        row = index.orders.add(
            NewOrder(Source.CLI, "", identity, patient, attributes, [step], charset="ISO_IR 192")
        )
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
