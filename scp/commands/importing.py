"""`import`: DICOM files and folders taken over as if they had been sent."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from index import Report
from scp.commands.application import FAILED, AsJSON, Config, Data, app, configured, opened
from scp.commands.maintenance import publish
from scp.commands.output import print_json, print_line, print_message, progress


@app.command("import")
def import_(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders of any depth.")],
    config: Config = None,
    data: Data = None,
    as_json: AsJSON = False,  # noqa: FBT002
) -> None:
    """Import DICOM files as if they had been sent; what is no DICOM is counted and named.

    Interrupted, it publishes what has been imported, and says what that was.
    """
    with opened(configured(config, data), create=True) as index:
        missing = [path for path in paths if not path.exists()]
        with progress("importing") as advance, stopping() as stopped:
            report = index.import_files(paths, lambda: advance(1), stopped)
        if report.interrupted:
            print_message(
                "interrupted: publishing what was imported; the same command goes on where this one ended"
            )
        publish(index, "imported")
    _report(report, as_json=as_json)
    if report.failed or missing or report.interrupted:
        raise typer.Exit(FAILED)


@contextmanager
def stopping() -> Iterator[Callable[[], bool]]:
    """Give what tells whether SIGINT or SIGTERM has come; the next one ends the process as usual."""
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


def _report(report: Report, *, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "outcomes": {str(outcome): count for outcome, count in report.outcomes.items()},
                "bytes": report.bytes,
                "passed_over": [{"path": str(path), "reason": reason} for path, reason in report.passed_over],
                "failed": [{"path": str(path), "reason": reason} for path, reason in report.failed],
                "interrupted": report.interrupted,
            }
        )
        return
    for path, reason in report.passed_over:
        print_message(f"passed over {path}: {reason}")
    for path, reason in report.failed:
        print_message(f"failed {path}: {reason}")
    counts = (
        ", ".join(f"{count} {outcome}" for outcome, count in sorted(report.outcomes.items())) or "nothing"
    )
    print_line(f"{counts}; {len(report.passed_over)} passed over, {len(report.failed)} failed")
