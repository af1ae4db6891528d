"""The README and the pages in docs/ are tried as written."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from index.imagingstudy import mapping_table
from scp.commands.main import register_commands
from scp.settings.file import load
from support.daemon import run
from support.dicom import sample

TREE = Path(__file__).parent.parent
PAGES = {
    page: page.read_text(encoding="utf-8") for page in (TREE / "README.md", *(TREE / "docs").glob("*.md"))
}
README = PAGES[TREE / "README.md"]
COMMANDS = re.findall(r"imagingstudyd ((?:worklist )?[a-z-]+)", "".join(PAGES.values()))
INSTALL_SECONDS = 600


def block(first: str) -> str:
    """Return the indented block that begins with these words."""
    begin = README.index(f"    {first}")
    lines = README[begin:].splitlines()
    end = next((n for n, line in enumerate(lines) if line and not line.startswith("    ")), len(lines))
    return "\n".join(line[4:] for line in lines[:end]).strip()


def test_the_table_of_elements_is_the_builders() -> None:
    assert mapping_table.markdown().strip() in PAGES[TREE / "docs/IMAGINGSTUDY.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", PAGES[page])
    assert [] == [link for link in links if not (page.parent / link).exists()]


def test_the_configuration_is_one(tmp_path: Path) -> None:
    file = tmp_path / "imagingstudyd.toml"
    file.write_text(block("[dicom]"))
    assert ["CT1"] == [peer.aet for peer in load(file).peers]


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_commands_exist(command: str) -> None:
    known = CliRunner().invoke(register_commands(), [*command.split(), "--help"])
    assert 0 == known.exit_code, f"{command}: {known.output}"


def test_the_first_line_sets_up_and_runs_it(tmp_path: Path) -> None:
    """Word for word, in a copy of the tree; then the lines that send and look."""
    tree = tmp_path / "imagingstudyd"
    shutil.copytree(TREE, tree, ignore=shutil.ignore_patterns(".*", "imagingstudyd-data", "__pycache__"))
    start = block("python3 -m venv").replace("python3", sys.executable, 1)
    environment = {**os.environ, "IMAGINGSTUDYD_DICOM__PORT": "0", "IMAGINGSTUDYD_HTTP__PORT": "0"}
    environment.pop("PYTHONPATH", None)
    with (tmp_path / "log").open("w") as log:
        shell = subprocess.Popen(
            ["bash", "-c", start], cwd=tree, stdout=log, stderr=log, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + INSTALL_SECONDS
        while '"ready"' not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
            assert shell.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        (ready,) = (line for line in (tmp_path / "log").read_text().splitlines() if '"ready"' in line)
        port = str(json.loads(ready)["dicom"][1])
        assert 0 == run("echoscu", "localhost", port).returncode
        assert 0 == run("dcmsend", "localhost", port, str(sample())).returncode
        lines = [
            line for line in block(".venv/bin/imagingstudyd studies").splitlines() if "--follow" not in line
        ]
        uid = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
        for line in lines:
            done = subprocess.run(
                ["bash", "-c", line.replace("UID", uid)],
                cwd=tree,
                capture_output=True,
                text=True,
                check=False,
            )
            assert (0, True) == (done.returncode, uid in done.stdout), done.stderr
        assert (tree / f"imagingstudyd-data/fhir/dstu2/ImagingStudy/{uid}.json").exists()
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(180)
