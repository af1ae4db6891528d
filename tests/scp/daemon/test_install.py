"""The steps of systemd/README.md, followed literally into a root folder; and the example configuration."""

import os
import re
import stat
import subprocess
import sysconfig
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from scp.settings.example import example
from scp.settings.sections import Configuration
from support.daemon import cli, run
from support.machine import steps

HOME = Path(__file__).parents[3]
EXAMPLE = HOME / "systemd" / "imagingstudyd.toml"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root folder with imagingstudyd installed. Its dependencies are the tests' own: nothing is fetched."""
    root = tmp_path_factory.mktemp("root")
    environment = {
        **os.environ,
        "DESTDIR": str(root),
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "PIP_NO_DEPS": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say: none
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    script = f"set -eu\n{steps('Install')}"
    installed = subprocess.run(
        ["sh", "-c", script], cwd=HOME, env=environment, capture_output=True, text=True, check=False
    )
    assert 0 == installed.returncode, installed.stdout + installed.stderr
    return root


def test_everything_stands_where_debian_has_it(root: Path) -> None:
    units = {unit.name for unit in (root / "usr/local/lib/systemd/system").iterdir()}
    assert {
        one.name for one in (HOME / "systemd").iterdir() if one.suffix in (".service", ".socket", ".timer")
    } == units
    wanted = root / "etc/systemd/system"
    assert (wanted / "multi-user.target.wants/imagingstudyd.service").is_symlink()
    assert (wanted / "timers.target.wants/imagingstudyd-verify.timer").is_symlink()
    configuration = root / "etc/imagingstudyd/imagingstudyd.toml"
    assert EXAMPLE.read_bytes() == configuration.read_bytes()
    assert 0o640 == stat.S_IMODE(configuration.stat().st_mode)


def test_the_user_is_made_and_may_read_the_configuration(root: Path) -> None:
    (user,) = [
        line.split(":")
        for line in (root / "etc/passwd").read_text().splitlines()
        if line.startswith("imagingstudyd:")
    ]
    assert "/var/lib/imagingstudyd" == user[5]
    assert int(user[3]) == (root / "etc/imagingstudyd/imagingstudyd.toml").stat().st_gid
    assert int(user[3]) == (root / "etc/imagingstudyd").stat().st_gid


def test_the_installed_program_takes_the_installed_configuration(root: Path, tmp_path: Path) -> None:
    checked = run(
        str(root / "opt/imagingstudyd/bin/imagingstudyd"), "check",
        "--config", str(root / "etc/imagingstudyd/imagingstudyd.toml"),
        PYTHONPATH=sysconfig.get_path("purelib"), STATE_DIRECTORY=str(tmp_path),
        IMAGINGSTUDYD_DICOM__PORT="0", IMAGINGSTUDYD_HTTP__PORT="0",
    )  # fmt: skip
    assert 0 == checked.returncode, checked.stderr
    assert f'storage.path = "{tmp_path}"  # environment STATE_DIRECTORY\n' in checked.stdout
    assert "dicom.port = 0  # environment IMAGINGSTUDYD_DICOM__PORT\n" in checked.stdout


def test_the_units_start_what_is_installed(root: Path) -> None:
    for unit in (root / "usr/local/lib/systemd/system").glob("*.service"):
        (command,) = [line for line in unit.read_text().splitlines() if line.startswith("ExecStart=")]
        program, *arguments = command.removeprefix("ExecStart=").split()
        assert os.access(f"{root}{program}", os.X_OK)
        assert "--config" in arguments
        if "@" not in unit.name:
            assert Path(f"{root}{arguments[arguments.index('--config') + 1]}").is_file()


def test_the_example_is_what_the_models_say() -> None:
    """When it fails: python -m scp check --example > systemd/imagingstudyd.toml"""
    assert example() == EXAMPLE.read_text()
    assert example() == cli("check", "--example").stdout


def test_the_example_changes_nothing() -> None:
    assert {} == {
        section: keys
        for section, keys in tomllib.loads(example()).items()
        if keys != {} and any(keys.values())
    }


def test_the_example_with_every_key_set_is_the_default(tmp_path: Path) -> None:
    """Sections that are off by default left out: they need files and peers."""
    text = re.split(r"\n#\[", example(), maxsplit=1)
    rest = re.sub(r"#\[+[^\n]*\n(?:(?!\n\[|\n\n).)*", "", "#[" + text[1], flags=re.DOTALL)
    file = tmp_path / "every.toml"
    file.write_text(re.sub(r"^#(\w+ = .+)$", r"\1", text[0] + rest, flags=re.MULTILINE))
    assert len(tomllib.loads(file.read_text())["dicom"]) > 5
    from scp.settings.file import load

    assert Configuration() == Configuration.model_validate(load(file).model_dump())


def test_every_key_is_explained() -> None:
    lines = example().splitlines()
    bare = [
        line for before, line in pairwise(lines) if re.match(r"#\w+ =", line) and not before.startswith("# ")
    ]
    assert [] == bare
