"""`imagingstudyd token`."""

from pathlib import Path

import pytest

from index.web.safety.tokens import Tokens
from support.daemon import cli


def test_a_token_is_printed_once_and_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    environment = {"IMAGINGSTUDYD_HTTP__TOKENS": str(file)}
    made = cli("token", "ehr", "--rights", "read,write", **environment)
    assert 0 == made.returncode, made.stderr
    found = Tokens(file).find(made.stdout.strip())
    assert found
    assert ("ehr", {"read", "write"}) == (found.name, set(found.rights))
    assert made.stdout.strip() not in file.read_text()
    again = cli("token", "ehr", **environment)
    assert (2, "") == (again.returncode, again.stdout)
    assert "has a token already" in again.stderr
    assert 0 == cli("token", "viewer", **environment).returncode
    assert 0 == cli("token", "ehr", "--revoke", **environment).returncode
    assert Tokens(file).find(made.stdout.strip()) is None
    assert ["viewer"] == [line.partition(":")[0] for line in file.read_text().splitlines()]
    assert 1 == cli("token", "ehr", "--revoke", **environment).returncode
    assert 0o640 >= file.stat().st_mode & 0o777


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a b"], "name 'a b'"),
        (["ehr", "--rights", "read,fly"], "'read,fly': allowed are read, write, operate"),
    ],
)
def test_what_is_not_allowed(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = cli("token", *arguments, IMAGINGSTUDYD_HTTP__TOKENS=str(tmp_path / "tokens"))
    assert (2, True) == (done.returncode, said in done.stderr)
    assert not (tmp_path / "tokens").exists()


def test_without_a_file(tmp_path: Path) -> None:
    done = cli("token", "ehr", "--data", str(tmp_path))
    assert (2, True) == (done.returncode, "http.tokens is not set" in done.stderr)
