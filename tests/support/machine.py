"""A container that a real systemd boots: systemd-nspawn over this machine's /usr; everything else is empty.

It needs root, or sudo without a password, and Debian's systemd-container and python3-venv, which tests/run
installs. Where they are missing the test fails with the output of systemd.
"""

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from support.daemon import COMMAND_SECONDS, START_SECONDS, STOP_SECONDS, WITH_US, eventually

HOME = Path(__file__).parents[2]
SOURCE, DEPENDENCIES, GIVEN = "/srv/source", "/srv/dependencies", "/srv/given"
# One at a time: each has the same control group.
_TURN = Path("/tmp/imagingstudyd-nspawn.lock")  # noqa: S108
_AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
# Debian's own, and nothing of the environment that the tests run in.
_ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TCP_NODELAY": "1",
}
_WAIT_ONLINE = "systemd-networkd-wait-online.service NetworkManager-wait-online.service"
# The machine has no sudo, whose configuration is in /etc.
_SUDO = """
sudo() {
    [ "$1" = -u ] || return 1; user=$2; shift 2
    setpriv --reuid "$user" --regid "$user" --clear-groups env "$@"
}
"""


def steps(heading: str) -> str:
    """Return the commands of a section of systemd/README.md."""
    section = (HOME / "systemd/README.md").read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return "\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))


class Machine:
    """A booted systemd. Its only network is its own loopback."""

    def __init__(self, leader: int) -> None:
        self._leader = leader

    def run(self, script: str, folder: str = "/root", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it, as root; return its status, and both streams as one."""
        variables = [f"{name}={value}" for name, value in (_ENVIRONMENT | environment).items()]
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-r", "-w"]
        return subprocess.run(
            [*_AS_ROOT, *enter, "env", "-i", "-C", folder, *variables, "sh", "-c", f"{_SUDO}{script}"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip

    def do(self, script: str, folder: str = "/root", **environment: str) -> str:
        """Run a script of which every line must succeed; return its output."""
        done = self.run(f"set -eu\n{script}", folder, **environment)
        assert 0 == done.returncode, f"{script}\n{done.returncode}: {done.stdout}\n{self.journal()}"
        return done.stdout

    def journal(self, unit: str = "imagingstudyd") -> str:
        """Return the log of a unit."""
        return self.run(f"journalctl --no-pager --output=cat --unit={unit}").stdout

    def property(self, name: str, unit: str = "imagingstudyd") -> str:
        """Return a property of a unit."""
        return self.run(f"systemctl show --value --property={name} {unit}").stdout.strip()


@contextmanager
def booted(folder: Path) -> Iterator[Machine]:
    """Boot a machine with the project's sources in SOURCE and `folder / "given"` in GIVEN; power it off."""
    with _TURN.open("a") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        with (folder / "console").open("w+b") as console:
            nspawn = _spawn(folder, console)
            try:
                leader = _leader(nspawn, console)
                machine = Machine(leader)
                assert eventually(lambda: _is_up(machine), START_SECONDS), _output(nspawn, console)
                machine.do("echo 127.0.0.1 localhost > /etc/hosts")
                # It has no network: network-online.target would wait two minutes for one.
                machine.do(f"systemctl mask --runtime {_WAIT_ONLINE}")
                yield machine
            finally:
                _end(nspawn)


def _spawn(folder: Path, console: IO[bytes]) -> "subprocess.Popen[bytes]":
    # Where this machine has version 1 of the control groups, systemd inside needs this variable.
    unified = int(Path("/sys/fs/cgroup/cgroup.controllers").exists())
    command = ["systemd-nspawn", "--directory=/", "--volatile=yes", "--boot", "--register=no", "--keep-unit"]
    command += ["--console=pipe", "--machine=imagingstudyd-test", "--private-network"]
    # The README writes to these folders of the read-only /usr. Debian finds its commands by alternatives.
    command += ["--tmpfs=/usr/local", "--overlay=/usr/lib/sysusers.d::/usr/lib/sysusers.d"]
    command += ["--bind-ro=/etc/alternatives", f"--bind-ro={_sources(folder)}:{SOURCE}"]
    command += [f"--bind-ro={_dependencies(folder)}:{DEPENDENCIES}", f"--bind-ro={folder / 'given'}:{GIVEN}"]
    environment = ["env", f"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY={unified}"]
    return subprocess.Popen(
        [*WITH_US, *_AS_ROOT, *environment, *command],
        stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def _sources(folder: Path) -> Path:
    """Return a copy of the sources that are installed."""
    copy = folder / "source"
    for name in ("scp", "index", "systemd"):
        shutil.copytree(HOME / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"):
        shutil.copy(HOME / name, copy)
    return copy


def _dependencies(folder: Path) -> Path:
    """Return the packages that pip would fetch: those of the tests, where Debian's Python can use them."""
    version = "import sys; print('.'.join(map(str, sys.version_info[:2])))"
    theirs = subprocess.run(["/usr/bin/python3", "-c", version], capture_output=True, text=True, check=True)
    if theirs.stdout.strip() == ".".join(map(str, sys.version_info[:2])):
        return Path(sysconfig.get_path("purelib"))
    environment, fetched = folder / "environment", folder / "dependencies"
    subprocess.run(["/usr/bin/python3", "-m", "venv", environment], check=True)
    pip = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", "--target", fetched]
    subprocess.run([*pip, str(folder / "source"), "hatchling"], check=True)
    return fetched


def _leader(nspawn: "subprocess.Popen[bytes]", console: IO[bytes]) -> int:
    """Return the machine's first process."""
    found: list[str] = []

    def is_there() -> bool:
        found[:] = [pid for pid in _descendants(nspawn.pid) if _name(pid) == "systemd"]
        return bool(found) or nspawn.poll() is not None

    eventually(is_there, START_SECONDS)
    assert found, f"systemd-nspawn does not boot a machine here: {_output(nspawn, console)}"
    return int(found[0])


def _descendants(process: int | str) -> Iterator[str]:
    try:
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield child
        yield from _descendants(child)


def _name(process: str) -> str:
    try:
        return Path(f"/proc/{process}/comm").read_text().strip()
    except OSError:
        return ""


def _is_up(machine: Machine) -> bool:
    # Units of other packages may fail there.
    return machine.run("systemctl is-system-running").stdout.strip() in ("running", "degraded")


def _output(nspawn: "subprocess.Popen[bytes]", console: IO[bytes]) -> str:
    console.seek(0)
    return f"status {nspawn.poll()}: {console.read().decode(errors='replace')}"


def _end(nspawn: "subprocess.Popen[bytes]") -> None:
    """Power it off; its processes end with its first one, which ends with systemd-nspawn."""
    deadline = time.monotonic() + STOP_SECONDS
    while nspawn.poll() is None and time.monotonic() < deadline:
        # The first SIGTERM asks it to power off, the second ends it.
        subprocess.run([*_AS_ROOT, "kill", f"-{signal.SIGTERM}", str(nspawn.pid)], check=False)
        try:
            nspawn.wait(STOP_SECONDS / 3)
        except subprocess.TimeoutExpired:
            continue
    if nspawn.poll() is None:
        subprocess.run([*_AS_ROOT, "kill", f"-{signal.SIGKILL}", str(nspawn.pid)], check=False)
        nspawn.wait()
