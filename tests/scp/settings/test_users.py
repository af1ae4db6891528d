"""The file of users: no answer tells by its time which names are in it."""

import base64
import hashlib
from pathlib import Path
from typing import Any

import pytest

from scp.settings.users import Users, hash_passcode


@pytest.mark.parametrize(
    ("kind", "name", "passcode"),
    [
        (2, b"carl", b"x"),
        (1, b"carl", b""),
        (2, b"ben", b"x"),
        (1, b"anna", b""),
        (2, b"", b""),
        (2, b"\xff", b"x"),
    ],
)
def test_an_unknown_user_takes_the_time_of_a_wrong_passcode(
    kind: int, name: bytes, passcode: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OWASP Authentication Cheat Sheet, "Authentication Responses": the work is the same."""
    file = tmp_path / "users"
    file.write_text(f"anna:{hash_passcode('open sesame')}\nben:\n")
    users, spent = Users(file), []
    scrypt = hashlib.scrypt

    def measured(passcode: bytes, **parameters: Any) -> bytes:
        spent.append({key: parameters[key] for key in ("n", "r", "p", "dklen")})
        return scrypt(passcode, **parameters)

    monkeypatch.setattr("hashlib.scrypt", measured)
    assert not users.verify(2, b"anna", b"wrong")
    assert not users.verify(kind, name, passcode)

    assert [spent[0]] * 2 == spent


def test_where_costs_differ_an_unknown_user_always_takes_the_same_time(tmp_path: Path) -> None:
    cheap, file = hash_passcode("x"), tmp_path / "users"
    digest = base64.b64encode(hashlib.scrypt(b"x", salt=b"salt", n=1024, r=8, p=1, dklen=32)).decode()
    file.write_text(f"anna:{cheap}\nben:scrypt$1024$8$1${base64.b64encode(b'salt').decode()}${digest}\n")

    costs = [[Users(file)._decoy(f"user {n}").cost for n in range(20)] for _ in range(2)]

    assert costs[0] == costs[1]
    assert {1024, 16384} == set(costs[0])
    assert Users(file).verify(2, b"ben", b"x")


def test_a_file_without_passcodes_takes_its_time_too(tmp_path: Path) -> None:
    (tmp_path / "users").write_text("ben:\n")
    assert not Users(tmp_path / "users").verify(2, b"ben", b"")
    assert Users(tmp_path / "users").verify(1, b"ben", b"")
