"""What a command may not import: it would take longer to start than it works."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import index
from index import Index, StorageSettings
from support.daemon import COMMAND_SECONDS
from support.dicom import instance
from support.filling import keep

# What only reception, the web and PostgreSQL need. pydicom imports pydicom.pixels, whatever is used of it.
NEVER = {
    "index.imagingstudy.context",
    "index.imagingstudy.versions",
    "index.maintenance.verify",
    "index.orders.hl7.handler",
    "index.orders.hl7.mapping",
    "index.orders.hl7.message",
    "playhouse.db_url",
    "prometheus_client",
    "psycopg",
    "pydicom",
    "pynetdicom",
    "starlette",
    "uvicorn",
}
# A help text needs no configuration, no database and no log either.
NOT_FOR_HELP = {*NEVER, "asyncio", "index.facade", "peewee", "rich", "scp.settings.sections", "structlog"}
# The check of a configuration opens no index.
NOT_FOR_CHECK = {*NEVER, "index.facade", "rich"}
SCRIPT = """
import atexit, sys
atexit.register(lambda: print(*sorted(sys.modules), file=sys.stderr))
from scp.commands.main import main
main()
"""


def imported(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "IMAGINGSTUDYD_STORAGE__WATERMARK": "0"},
        timeout=COMMAND_SECONDS,
        check=True,
    )
    modules = set(done.stderr.splitlines()[-1].split())
    assert "scp.commands.worklist" in modules
    return modules


@pytest.mark.parametrize(
    "command", [["--help"], ["serve", "--help"], ["worklist", "add", "-h"], ["--version"]]
)
def test_help(command: list[str]) -> None:
    assert set() == NOT_FOR_HELP & imported(*command)


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_studies(as_json: list[str], tmp_path: Path) -> None:
    with Index(tmp_path, StorageSettings(watermark=0)) as filled:
        keep(filled, instance())
    assert set() == NEVER & imported("studies", "--data", str(tmp_path), *as_json)
    assert set() == NEVER & imported("changes", "--data", str(tmp_path), *as_json)


def test_check(tmp_path: Path) -> None:
    file = tmp_path / "imagingstudyd.toml"
    file.write_text("[dicom]\nport = 0\n[http]\nport = 0\n")
    assert set() == NOT_FOR_CHECK & imported("check", "--config", str(file), "--data", str(tmp_path))


def test_structlog_is_imported_without_rich() -> None:
    """It would import rich for tracebacks that are ours."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import scp.observing.logs, sys; assert 'rich' not in sys.modules; import rich",
        ],
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert 0 == done.returncode


def test_psycopg_can_be_imported_after_peewee() -> None:
    script = "import index.facade, sys; assert 'psycopg' not in sys.modules; import index.database.postgresql"
    done = subprocess.run([sys.executable, "-c", script], timeout=COMMAND_SECONDS, check=False)
    assert 0 == done.returncode


def test_the_facade_gives_what_a_type_checker_sees() -> None:
    """Each name stands three times in index/__init__.py: for type checkers, in __all__, in the table."""
    tree = ast.parse(Path(str(index.__file__)).read_text(encoding="utf-8"))
    typed = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("index.")
        for alias in node.names
    }
    assert index._HOMES == typed
    assert sorted(index._HOMES) == sorted(index.__all__)
    for name in index.__all__:
        assert getattr(index, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = index.nothing
