"""systemd's side of the daemon: notifications, watchdog, reload, activation, and its unit files."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from index import Supervisor
from scp.daemon import systemd
from support.daemon import Daemon, cli, eventually, run
from support.dicom import ROOT, instance, save
from support.manager import NotifySocket

UNITS = Path(__file__).parents[3] / "systemd"
WATCHDOG_SECONDS = 1.0

# SQLite gives its files to the database's owner where it runs as root, as these tests may.
ROOT_ONLY = {"fchown"}
# OpenBLAS, of numpy (extra `codecs`), asks where its memory is to be, and goes on where it may not: EPERM.
OPTIONAL = {"mbind"}

# The daemon, but its commits wait for ever while a file is there.
FROZEN = """
import sys, time
from pathlib import Path
from index.reception.log import ReceptionLog
whole, freeze = ReceptionLog._append, Path(sys.argv.pop(1))
def append(self, group):
    while freeze.exists():
        time.sleep(0.02)
    whole(self, group)
ReceptionLog._append = append
from scp.commands.main import main
main()
"""

# The same for what publishes.
STALLED = """
import time
from index.publication.publisher import Publisher
assert Publisher._publish
Publisher._publish = lambda *_: time.sleep(60)
from scp.commands.main import main
main()
"""


@pytest.fixture
def manager(tmp_path: Path) -> NotifySocket:
    return NotifySocket(tmp_path / "notify")


@pytest.fixture
def watched(start: Callable[..., Daemon], manager: NotifySocket) -> Callable[..., Daemon]:
    """Start daemons that systemd watches."""

    def starter(*arguments: str, **options: str) -> Daemon:
        watchdog = str(int(WATCHDOG_SECONDS * 1_000_000))
        return start(*arguments, NOTIFY_SOCKET=str(manager.path), WATCHDOG_USEC=watchdog, **options)

    return starter


def test_ready_reloading_watchdog_stopping(watched: Callable[..., Daemon], manager: NotifySocket) -> None:
    daemon = watched()
    manager.wait_for(lambda one: one.pings() >= 3)
    before = time.clock_gettime(time.CLOCK_MONOTONIC)
    daemon.process.send_signal(signal.SIGHUP)
    manager.wait_for(lambda one: one.states().count("READY") == 2)
    assert 0 == daemon.stop()
    assert ["READY", "RELOADING", "READY", "STOPPING"] == manager.states()
    (reloading,) = [message for _, message in manager.messages if "RELOADING" in message]
    assert before * 1e6 <= int(reloading["MONOTONIC_USEC"]) <= time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6
    (stopping,) = [message for _, message in manager.messages if "STOPPING" in message]
    assert int(stopping["EXTEND_TIMEOUT_USEC"]) >= 20_000_000


def test_it_is_fed_more_often_than_half_of_its_time(
    watched: Callable[..., Daemon], manager: NotifySocket
) -> None:
    watched()
    manager.wait_for(lambda one: one.pings() >= 5)
    times = [at for at, message in manager.messages if "WATCHDOG" in message]
    gaps = sorted(later - earlier for earlier, later in pairwise(times))
    assert gaps[len(gaps) // 2] < WATCHDOG_SECONDS / 2


def test_a_frozen_commit_stops_the_pings(
    tmp_path: Path, manager: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    freeze = tmp_path / "freeze"
    for name, value in (("NOTIFY_SOCKET", str(manager.path)), ("WATCHDOG_USEC", "1000000")):
        monkeypatch.setenv(name, value)
    daemon = Daemon(tmp_path / "data", program=("-c", FROZEN, str(freeze)))
    try:
        manager.wait_for(lambda one: one.pings() >= 2)
        freeze.touch()
        path = save(instance(), tmp_path / "one.dcm")
        sender = subprocess.Popen(["storescu", daemon.host, str(daemon.port), str(path)])
        daemon.wait_for(lambda event: "journal" in event.get("stuck", ()))
        frozen = time.monotonic()
        time.sleep(2 * WATCHDOG_SECONDS)
        assert 0 == manager.pings(since=frozen)
        freeze.unlink()
        assert 0 == sender.wait(180)
        manager.wait_for(lambda one: one.pings(since=frozen) >= 2)
    finally:
        freeze.unlink(missing_ok=True)
        daemon.stop()


def test_another_process_that_holds_the_database_does_not(
    watched: Callable[..., Daemon], manager: NotifySocket, tmp_path: Path
) -> None:
    """The journal keeps what is sent, and another start would not help: health tells, and the row follows."""
    daemon = watched()
    manager.wait_for(lambda one: one.pings() >= 1)
    other = sqlite3.connect(daemon.data / "index.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert 0 == daemon.send(save(instance(), tmp_path / "one.dcm"), tool="storescu").returncode
    daemon.wait_for(lambda event: event.get("event") == "not_indexed_yet")
    held = time.monotonic()
    manager.wait_for(lambda one: one.pings(since=held) >= 2)
    assert [] == indexed(daemon)
    other.rollback()
    other.close()
    assert eventually(lambda: [ROOT + ".1"] == indexed(daemon))


def indexed(daemon: Daemon) -> list[str]:
    """Return the studies that the command lists."""
    return [study["uid"] for study in json.loads(cli("studies", "--json", "--data", str(daemon.data)).stdout)]


def test_a_stalled_publisher_does_not(
    tmp_path: Path, manager: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NOTIFY_SOCKET", str(manager.path)), ("WATCHDOG_USEC", "1000000")):
        monkeypatch.setenv(name, value)
    daemon = Daemon(tmp_path / "data", program=("-c", STALLED))
    try:
        assert 0 == daemon.send(save(instance(), tmp_path / "one.dcm"), tool="storescu").returncode
        sent = time.monotonic()
        manager.wait_for(lambda one: one.pings(since=sent) >= 6)
        # On a busy machine another part may be late once.
        assert not any("publisher" in event["stuck"] for event in daemon.named("watchdog_not_fed"))
        assert not any((daemon.data / "fhir").rglob("*.json"))
    finally:
        daemon.kill()


def test_a_thread_that_only_another_start_helps_stops_the_pings(
    manager: NotifySocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As scp/daemon/service.py puts them together: health has said long before that it hangs."""
    for name, value in (("NOTIFY_SOCKET", str(manager.path)), ("WATCHDOG_USEC", "100000")):
        monkeypatch.setenv(name, value)
    workers, over = Supervisor(), threading.Event()
    hanging = workers.add("publisher", over.wait)
    hanging.start()
    watchdog = systemd.Watchdog({"workers": lambda _: not workers.lost()}, workers)
    with capture_logs() as logged:
        watchdog.start()
        manager.wait_for(lambda one: one.pings() >= 2)
        monkeypatch.setattr("index.supervisor.LOST_SECONDS", -1.0)
        assert eventually(lambda: any(event["event"] == "watchdog_not_fed" for event in logged))
        watchdog.stop()
    assert ["workers"] == logged[-1]["stuck"]
    hanging.stopping.set()
    over.set()
    hanging.stop()


def test_a_loop_that_stands_still_is_logged() -> None:
    stuck = {"accept loop": lambda _: False, "journal": lambda _: True}
    watchdog = systemd.Watchdog(stuck)
    watchdog.start()
    watchdog.stop()
    assert not watchdog._worker.is_started  # nobody watches: no thread


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 60.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": str(os.getpid())}, 60.0),
        ({"WATCHDOG_USEC": "much"}, None),
    ],
)
def test_watchdog_of_this_process(
    environment: dict[str, str], seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert seconds == systemd.watchdog_seconds()


def test_an_abstract_notify_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0imagingstudyd-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@imagingstudyd-test-{os.getpid()}")
        assert systemd.notify("READY=1")
        assert b"READY=1" == manager.recv(100)
    assert not systemd.notify("READY=1")  # the manager has gone: said, not raised


def free_ports(count: int) -> list[int]:
    """Return ports that were free just now."""
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return ports


@pytest.fixture
def activated(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """Have systemd-socket-activate listen, and start the daemon at the first connection; return the port."""
    processes: list[subprocess.Popen[bytes]] = []

    def starter(name: str, *arguments: str) -> int:
        (port,) = free_ports(1)
        command = ["systemd-socket-activate", f"--listen=127.0.0.1:{port}", f"--fdname={name}"]
        command += [
            sys.executable,
            "-m",
            "scp",
            "serve",
            "--data",
            str(tmp_path / "data"),
            "--port",
            "1",
            "--no-http",
        ]
        processes.append(subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL))
        return port

    yield starter
    for process in processes:
        process.terminate()
        process.wait(180)


def test_socket_activation_serves_echoscu(activated: Callable[..., int]) -> None:
    """Port 1 is configured, which is not bound, since a socket is passed."""
    port = activated("dicom")
    assert eventually(lambda: 0 == run("echoscu", "-to", "20", "127.0.0.1", str(port)).returncode)


def test_sockets_of_another_process_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", "1")
    monkeypatch.setenv("LISTEN_FDS", "3")
    assert {} == systemd.passed_sockets()
    assert "LISTEN_FDS" not in os.environ


def test_no_socket_is_passed_by_a_manager_that_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "0")
    assert {} == systemd.passed_sockets()


def test_passed_sockets_by_name() -> None:
    """In a process of its own, whose descriptors 3 and 4 are free to be passed."""
    script = (
        "import json, os; os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "from scp.daemon.systemd import passed_sockets\n"
        "print(json.dumps({n: [s.getsockname()[1] for s in p] for n, p in passed_sockets().items()}))"
    )
    first, second = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    with first, second:
        moved = f'exec 3<&{first.fileno()} 4<&{second.fileno()}; exec {sys.executable} -c "$1"'
        done = subprocess.run(
            ["bash", "-c", moved, "bash", script], capture_output=True,
            pass_fds=(first.fileno(), second.fileno()),
            text=True, check=True, env={**os.environ, "LISTEN_FDS": "2", "LISTEN_FDNAMES": "dicom:dicom-tls"},
        )  # fmt: skip
        expected = {"dicom": [first.getsockname()[1]], "dicom-tls": [second.getsockname()[1]]}
    assert expected == json.loads(done.stdout)


UNIT_FILES = sorted(one for one in UNITS.iterdir() if one.suffix in (".service", ".socket", ".timer"))
SERVICES = [unit for unit in UNIT_FILES if unit.suffix == ".service"]


@pytest.mark.parametrize("unit", SERVICES, ids=lambda unit: unit.name)
def test_exposure(unit: Path) -> None:
    """Offline; the threshold is in tenths."""
    checked = run("systemd-analyze", "security", "--offline=yes", "--threshold=15", "--no-pager", str(unit))
    assert 0 == checked.returncode, checked.stdout[-400:] + checked.stderr


@pytest.mark.parametrize("unit", UNIT_FILES, ids=lambda unit: unit.name)
def test_the_units_are_sound(unit: Path, tmp_path: Path) -> None:
    """The program is not installed here: anything that can be run stands for it."""
    for one in UNIT_FILES:
        text = one.read_text().replace("/opt/imagingstudyd/bin/imagingstudyd", "/bin/true")
        (tmp_path / one.name).write_text(text)
    verified = run("systemd-analyze", "verify", "--man=no", str(tmp_path / unit.name))
    assert (0, "") == (verified.returncode, verified.stderr)


def test_the_services_share_one_sandbox() -> None:
    sandboxes = {
        unit.read_text().partition("# The sandbox")[2].partition("[Install]")[0].strip() for unit in SERVICES
    }
    assert 1 == len(sandboxes)
    assert "SystemCallFilter" in sandboxes.pop()


def test_the_stop_timeout_is_longer_than_the_drain() -> None:
    from scp.settings.sections import Timeouts

    (line,) = [
        line
        for line in (UNITS / "imagingstudyd.service").read_text().splitlines()
        if "TimeoutStopSec=" in line
    ]
    assert int(line.partition("=")[2]) > 2 * Timeouts().drain


def test_signals_reach_the_thread_that_waits_for_them(shared_daemon: Daemon) -> None:
    """The kernel may give a signal to any thread that does not block it."""
    masks = [
        int(re.search(r"^SigBlk:\s*(\w+)", status.read_text(), re.MULTILINE)[1], 16)
        for status in Path(f"/proc/{shared_daemon.process.pid}/task").glob("*/status")
        if status.parent.name != str(shared_daemon.process.pid)  # the one that waits
    ]
    wanted = sum(1 << (number - 1) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    assert len(masks) >= 3
    assert {wanted} == {mask & wanted for mask in masks}


def test_the_daemon_makes_no_system_call_that_its_unit_forbids(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    daemon = Daemon(tmp_path / "data", prefix=("strace", "-f", "-qq", "-o", str(trace)))
    daemon.send(save(instance(), tmp_path / "one.dcm"), tool="storescu")
    # strace hands signals on to nobody: its child is the daemon.
    (child,) = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGHUP)
    daemon.wait_for(lambda event: event.get("event") == "reloaded")
    os.kill(int(child), signal.SIGTERM)
    assert 0 == daemon.process.wait(180)
    used = {
        line.split("(")[0].split()[-1]
        for line in trace.read_text().splitlines()
        if "(" in line and "resumed" not in line
    }
    allowed = calls("@system-service") - calls("@privileged") - calls("@resources")
    assert set() == used - allowed - calls("@default") - ROOT_ONLY - OPTIONAL


def calls(group: str) -> set[str]:
    """Return the system calls of one of systemd's groups, those of the groups within included."""
    lines = run("systemd-analyze", "syscall-filter", "--no-pager", group).stdout.splitlines()[1:]
    names = {line.strip() for line in lines if line.strip() and not line.strip().startswith("#")}
    return {name for name in names if not name.startswith("@")}.union(
        *(calls(name) for name in names if name.startswith("@"))
    )
