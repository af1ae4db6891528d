"""`import`: take over DICOM files and folders as if they had been sent."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scp.commands.application import FAILED, AsJSON, Config, Data, app, publish, use_index
from scp.commands.output import paths_with_reasons, print_json, print_line, print_message, progress

if TYPE_CHECKING:
    from index import Report


@app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders of any depth.")],
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Import DICOM files as if they had been sent; other files are counted and named.

    When interrupted, it publishes and prints what has been imported.
    """
    with use_index(config, data, create=True) as index:
        missing = [path for path in paths if not path.exists()]
        with progress("importing") as advance, stop_signals() as is_stopped:
            report = index.import_files(paths, lambda: advance(1), is_stopped)
        if report.interrupted:
            print_message(
                "interrupted: publishing what was imported; the same command goes on where this one ended"
            )
        publish(index, "imported")
    _print_report(report, as_json=as_json)
    if report.failed or missing or report.interrupted:
        raise typer.Exit(FAILED)


@contextmanager
def stop_signals() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether SIGINT or SIGTERM has come; a second one ends the process."""
    signals: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def stop(number: int, _frame: object) -> None:
        signals.append(number)
        restore()

    for number in before:
        signal.signal(number, stop)
    try:
        yield lambda: bool(signals)
    finally:
        restore()


def _print_report(report: "Report", *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "outcomes": {str(outcome): count for outcome, count in report.outcomes.items()},
                "bytes": report.bytes,
                "passed_over": paths_with_reasons(report.passed_over),
                "failed": paths_with_reasons(report.failed),
                "interrupted": report.interrupted,
            }
        )
        return
    for path, reason in report.passed_over:
        print_message(f"passed over {path}: {reason}")
    for path, reason in report.failed:
        print_message(f"failed {path}: {reason}")
    counts = [f"{count} {outcome}" for outcome, count in sorted(report.outcomes.items())]
    print_line(
        f"{', '.join(counts) or 'nothing'};"
        f" {len(report.passed_over)} passed over, {len(report.failed)} failed"
    )
