"""The command `import`: what it says, also off a terminal and when it is interrupted."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scp.commands import output
from scp.commands.import_files import stop_signals
from support.daemon import COMMAND_SECONDS, cli
from support.dicom import ROOT, instance, save

# Files of one batch here, files that have begun and not ended, and more than these.
BATCH = 8
AHEAD = 2 * BATCH
MORE = AHEAD + 4
ENVIRONMENT = {"IMAGINGSTUDYD_STORAGE__WATERMARK": "0", "IMAGINGSTUDYD_LOG__LEVEL": "error"}


def sent(folder: Path, count: int) -> Path:
    for number in range(1, count + 1):
        save(instance(number, 1, 1), folder / f"{number:03}.dcm")
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_an_interrupted_import_has_done_is_printed_and_published(tmp_path: Path, number: int) -> None:
    """The signal comes while further files are looked for."""
    folder = sent(tmp_path / "send", MORE)
    script = (
        "import os, signal, index.reception.import_files as importing\n"
        f"importing.BATCH_FILES = {BATCH}\n"
        "files = importing.files\n"
        "def slowly(paths, report):\n"
        "    for count, path in enumerate(files(paths, report)):\n"
        f"        if count == {AHEAD}:\n"
        f"            os.kill(os.getpid(), {number})\n"
        "        yield path\n"
        "importing.files = slowly\n"
        "from scp.commands.main import main\n"
        "main()\n"
    )
    data = tmp_path / "data"
    ended = subprocess.run(
        [sys.executable, "-c", script, "import", str(folder), "--data", str(data), "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, **ENVIRONMENT},
        timeout=COMMAND_SECONDS,
        check=False,
    )
    report = json.loads(ended.stdout)
    assert (1, True) == (ended.returncode, report["interrupted"]), ended.stderr
    assert "interrupted: publishing what was imported" in ended.stderr
    stored = report["outcomes"]["stored"]
    assert 0 < stored <= AHEAD
    assert stored == len(list((data / "fhir/r4/ImagingStudy").iterdir()))
    again = cli("import", str(folder), "--data", str(data), "--json", **ENVIRONMENT)
    report = json.loads(again.stdout)
    assert (0, stored, False) == (again.returncode, report["outcomes"]["duplicate"], report["interrupted"])
    assert MORE == len(list((data / "fhir/r4/ImagingStudy").iterdir()))
    assert f"importing: {MORE} files\n" in again.stderr


def test_a_second_signal_ends_it_at_once() -> None:
    # A shell that runs the tests in its background has it ignored.
    ours = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.getsignal(signal.SIGINT)
    with stop_signals() as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGINT)
        assert stopped()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert before is signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, ours)


def test_progress_off_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[str] = []
    monkeypatch.setattr(output, "print_message", printed.append)
    monkeypatch.setattr(output, "PROGRESS_SECONDS", 1_000_000)
    with output.progress("importing") as advance:
        for _ in range(2500):
            advance(1)
    assert ["importing: 1000 files", "importing: 2000 files", "importing: 2500 files"] == printed
    printed.clear()
    monkeypatch.setattr(output, "PROGRESS_SECONDS", 0)
    with output.progress("importing") as advance:
        advance(1)
    assert ["importing: 1 files", "importing: 1 files"] == printed


def test_an_import_says_what_it_has_done(tmp_path: Path) -> None:
    said = cli("import", str(sent(tmp_path / "send", 1)), "--data", str(tmp_path / "data"), **ENVIRONMENT)
    assert "1 stored; 0 passed over, 0 failed\n" == said.stdout
    assert f"{ROOT}.1.json" in {path.name for path in (tmp_path / "data/fhir/r4/ImagingStudy").iterdir()}
