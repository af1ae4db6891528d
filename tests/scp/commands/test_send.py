"""The command `send`."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from support.archive import Destination
from support.daemon import EVENT_SECONDS, cli
from support.dicom import ROOT, encoded, instance
from support.filling import keep, served
from support.syslog_server import SyslogServer


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with three instances."""
    with served(tmp_path / "data") as index:
        for number in (1, 2, 3):
            keep(index, instance(number=number))
    return tmp_path / "data"


@pytest.fixture
def destination() -> Iterator[Destination]:
    """A destination that refuses instances with A700 as long as `refuses` says so."""
    made = Destination()
    yield made
    made.close()


def send(data: Path, uid: str, port: int, *options: str, peer: str = "DEST") -> tuple[int, str, str]:
    config = data.parent / "c.toml"
    config.write_text(f'[[peers]]\naet = "DEST"\nhost = "127.0.0.1"\nport = {port}\n[[peers]]\naet = "X"\n')
    done = cli("send", uid, peer, "--data", str(data), "--config", str(config), *options)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("uid", "count"), [(f"{ROOT}.1", 3), (f"{ROOT}.1.1", 3), (f"{ROOT}.1.1.2", 1)])
def test_a_study_a_series_or_an_instance(data: Path, destination: Destination, uid: str, count: int) -> None:
    status, out, err = send(data, uid, destination.port)
    assert (0, f"sent {count} instances to DEST, 0 failed\n") == (status, out), err
    assert count == len(destination.received)
    assert encoded(instance(number=2)) in [content for _, content in destination.received]
    assert f"sending: {count} of {count} instances" in err


def test_a_failure_ends_with_1_and_is_named(data: Path) -> None:
    refusing = Destination(lambda number: 0xA700 if number == 2 else 0)
    status, out, err = send(data, f"{ROOT}.1", refusing.port)
    assert (1, "sent 2 instances to DEST, 1 failed\n") == (status, out)
    assert f"failed {ROOT}.1.1.2: answered A700" in err
    refusing.close()


def test_json(data: Path) -> None:
    warning = Destination(lambda number: {1: 0xB000, 2: 0xA700}.get(number, 0))
    status, out, _ = send(data, f"{ROOT}.1", warning.port, "--json")
    made = json.loads(out)
    size = made.pop("bytes")
    failed = [{"uid": f"{ROOT}.1.1.2", "reason": "answered A700"}]
    assert {"peer": "DEST", "sent": 2, "warnings": 1, "failed": failed, "not_tried": 0} == made
    assert (1, True) == (status, size > 0)
    warning.close()


def test_a_peer_that_is_down(data: Path) -> None:
    status, out, err = send(data, f"{ROOT}.1", 1)
    assert (1, "sent 0 instances to DEST, 3 failed\n") == (status, out)
    assert "peer DEST: cannot be reached" in err


def test_an_interrupt_does_not_wait_for_a_peer_that_is_silent(data: Path) -> None:
    asked, never = Event(), Event()

    def answer(_: int) -> int:
        asked.set()
        never.wait()
        return 0

    silent = Destination(answer)
    config = data.parent / "c.toml"
    config.write_text(f'[[peers]]\naet = "DEST"\nhost = "127.0.0.1"\nport = {silent.port}\n')
    command = [sys.executable, "-m", "scp", "send", f"{ROOT}.1", "DEST"]
    command += ["--data", str(data), "--config", str(config)]
    sending = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert asked.wait(EVENT_SECONDS)
    sending.send_signal(signal.SIGINT)
    out, err = sending.communicate(timeout=EVENT_SECONDS)
    assert (1, "sent 0 instances to DEST, 1 failed\n") == (sending.returncode, out)
    assert "peer DEST: is no longer waited for" in err
    assert "interrupted: 2 instances were not sent" in err
    never.set()
    silent.close()


@pytest.mark.parametrize(
    ("uid", "peer", "status", "why"),
    [
        ("9.9", "DEST", 1, "9.9 is no study, series or instance in the index"),
        ("nothing", "DEST", 2, "nothing is not a UID"),
        (f"{ROOT}.1", "NOBODY", 2, "peer NOBODY: not in [[peers]]"),
        (f"{ROOT}.1", "X", 2, "peer X: [[peers]] gives no host and port"),
    ],
)
def test_wrong_usage(data: Path, uid: str, peer: str, status: int, why: str) -> None:
    ended, out, err = send(data, uid, 1, peer=peer)
    assert (status, "") == (ended, out)
    assert why in err


def test_the_audit_trail_is_told_by_whom_and_what_came_of_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SyslogServer("tcp")
    monkeypatch.setenv("IMAGINGSTUDYD_AUDIT__SYSLOG", log.address)
    refusing = Destination(lambda number: 0xA700 if number == 2 else 0)
    assert 1 == send(data, f"{ROOT}.1", refusing.port)[0]
    begun, ended = log.messages
    assert ["110102", "110104"] == [begun.event, ended.event]
    assert ["0", "4"] == [begun.outcome, ended.outcome]
    for told in (begun, ended):
        assert (f"{ROOT}.1", "P1") == (told.study, told.patient)
        assert ["110153", "110152", ""] == [role for _, role, _ in told.parties]
        assert [False, False, True] == [is_requestor for *_, is_requestor in told.parties]
    refusing.close()
    log.close()
