"""What comes from outside is printed as text: no markup, no emoji, no control character obeyed.

rich's markup: `[/x]` closes a style that nobody opened and raised MarkupError, `[red]` was swallowed (rich,
docs/markup: "escape" what is not yours). Control functions are of ECMA-48, bidirectional controls of UAX #9.
"""

import io
import json
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from index import Index, NewOrder, Source
from scp.commands.main import register_commands
from scp.observing import logs
from scp.observing.text import json_line, plain
from scp.settings.sections import LogSettings
from support.dicom import instance
from support.filling import STORAGE, keep

# pydicom warns of what is sent here on purpose.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

HOSTILE = (
    "[/x]",
    "[bold red]X[/bold red]",
    "[link=http://evil.example/]c[/link]",
    ":warning:",
    "\x1b[2JPID",
    "\x9b31mC1",
    "a\u202eb",
)
# As they are to be read.
SHOWN = (
    "[/x]",
    "[bold red]X[/bold red]",
    "[link=http://evil.example/]c[/link]",
    ":warning:",
    "\\x1b[2JPID",
    "\\x9b31mC1",
    "a\\u202eb",
)

app = register_commands()


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()


def inside(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def controls(text: str) -> set[str]:
    """The characters that a terminal would obey, but for the end of a line."""
    return {
        one for one in text if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp") and one != "\n"
    }


@pytest.mark.parametrize(("text", "shown"), zip(HOSTILE, SHOWN, strict=True))
def test_one_text(text: str, shown: str) -> None:
    assert shown == plain(text)
    assert text == json.loads(json_line(text))


def test_names_stay_as_they_are() -> None:
    for name in ("Müller^Jörg", "山田^太郎", "Иванов", "\u0645\u06cc\u200c\u062e", "a b\u3000c"):
        assert name == plain(name)


@given(st.text(st.characters()))
def test_whatever_text(text: str) -> None:
    assert set() == {one for one in controls(plain(text)) if one not in "\u200c\u200d"}
    assert "\n" not in plain(text)
    line = json_line([text])
    assert [text] == json.loads(line)
    assert b"\n" not in line[:-1]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Of each hostile text a study and an order that carry it wherever a text may stand."""
    with Index(tmp_path / "data", STORAGE) as index:
        for number, text in enumerate(HOSTILE, start=1):
            others = {
                "AccessionNumber": text,
                "Modality": text if text.isascii() else "CT",
                "SpecificCharacterSet": "ISO_IR 192",
            }
            keep(index, instance(number, 1, 1, PatientID=text, **others))
            patient = {"PatientID": text, "PatientName": text}
            attributes = {"AccessionNumber": text, "RequestedProcedureDescription": text}
            step = {"Modality": text, "ScheduledStationAETitle": text}
            index.orders.add(NewOrder(Source.HL7, text, f"[{number}]", patient, attributes, [step]))
        index.publish()
    return tmp_path / "data"


def words(table: str) -> str:
    """The text of a table's cells, without its lines and however they are broken."""
    return re.sub(r"[\s│┃]+", "", table)


@pytest.mark.parametrize("command", [["studies"], ["worklist", "list"]])
def test_tables(command: list[str], data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Wide enough that no cell is broken over lines, between which other cells stand.
    monkeypatch.setattr("scp.commands.output.PIPE_WIDTH", 1000)
    done = inside(*command, "--data", str(data))
    assert 0 == done.exit_code, done.exception
    assert set() == controls(done.output)
    # Reception keeps no control characters of a header.
    shown = [text for text in SHOWN if command[0] == "worklist" or "\\x" not in text]
    assert [] == [text for text in shown if text.replace(" ", "") not in words(done.stdout)]


def test_a_long_value_is_shown_in_full(tmp_path: Path) -> None:
    """Two patients whose identifiers differ in the last character are not shown as one."""
    with Index(tmp_path / "data", STORAGE) as index:
        keep(index, instance(1, 1, 1, PatientID="9" * 63 + "1"))
    assert "9" * 63 + "1" in re.sub(r"[^0-9]", "", inside("studies", "--data", str(tmp_path / "data")).stdout)


@pytest.mark.parametrize("command", [["studies", "--json"], ["worklist", "list", "--json"]])
def test_json(command: list[str], data: Path) -> None:
    done = inside(*command, "--data", str(data))
    assert set() == controls(done.stdout)
    told = json.dumps(json.loads(done.stdout), ensure_ascii=False)
    sent = [text for text in HOSTILE if command[0] == "worklist" or not controls(text) - {"\u202e"}]
    assert [] == [text for text in sent if json.dumps(text, ensure_ascii=False)[1:-1] not in told]


@pytest.mark.parametrize(
    "command",
    [
        ["show", "{evil}"],
        ["delete", "{evil}"],
        ["match", "set", "{evil}", "1"],
        ["match", "undo", "{evil}"],
        ["worklist", "add", "--patient-id", "1", "--patient-name", "A", "--date", "{evil}"],
        ["worklist", "add", "--patient-id", "1", "--patient-name", "A", "--study-uid", "{evil}"],
        ["worklist", "import", "{folder}"],
        ["import", "{folder}"],
        ["import", "--json", "{folder}"],
        ["verify", "--grace", "0"],
        ["verify", "--grace", "0", "--json"],
        ["backup", "{evil}"],
        ["studies", "--config", "{evil}"],
        ["check", "--config", "{folder}/c.toml"],
    ],
    ids=" ".join,
)
def test_messages(command: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File names are from outside too, those that are no UTF-8 among them."""
    monkeypatch.chdir(tmp_path)
    folder, evil = tmp_path / "in", "\x1b[31m[x]\nFAKE\x9b"
    folder.mkdir()
    for name in (evil.encode(), b"latin-\xfc"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("MSH is no DICOM")
    (folder / "c.toml").write_text(
        f'[storage]\npath = "/nonexistent/\\u001b[31m"\n[dicom]\n"{"x"}\\u001b" = 1\n'
    )
    for path in (data / "objects").rglob("*"):
        if path.is_file():
            path.rename(path.with_name(evil))
            break
    filled = [word.format(evil=evil, folder=folder) for word in command]
    done = inside(*filled, *([] if "--config" in command else ["--data", str(data)]))
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    assert set() == controls(done.output)
    assert [] == [line for line in done.output.splitlines() if line.startswith("FAKE")]


def test_show(data: Path) -> None:
    for number, _ in enumerate(HOSTILE, start=1):
        done = inside("show", instance(number).StudyInstanceUID, "--data", str(data))
        assert (0, set()) == (done.exit_code, controls(done.output))


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal is sent."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure(LogSettings(format="console"))
    return stream


# structlog colours its own words.
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def test_a_log_on_a_terminal(logged: io.StringIO) -> None:
    log = structlog.get_logger("scp")
    for text in HOSTILE:
        log.warning("association", calling_aet=text, doubts=(text, "b"), reason=f"x {text}")
    logging.getLogger("uvicorn").error("refused %s", HOSTILE[4])
    log.error("failed", exc_info=ValueError("\x1b]0;title\x07\n2026-01-01 [error] FAKE"))
    written = COLOURS.sub("", logged.getvalue())
    assert set() == controls(written)
    assert "\\x1b[2JPID" in written
    assert [] == [line for line in written.splitlines() if line.startswith("2026-01-01 [error] FAKE")]
