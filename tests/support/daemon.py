"""A daemon in a process of its own, and DCMTK's clients."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from support.forked import Forked, can_fork

# Bounds, not expectations: a machine may be many times slower than the one that wrote the test.
START_SECONDS = 180
STOP_SECONDS = 180
EVENT_SECONDS = 120
COMMAND_SECONDS = 300
# A process that a test starts ends with the process of the tests, even where that is killed.
WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")
PROGRAM = ("-m", "scp")


class Daemon:
    """`imagingstudyd serve` on free ports; `events` are its log events."""

    def __init__(
        self,
        data: Path,
        *arguments: str,
        prefix: tuple[str, ...] = (),
        program: tuple[str, ...] = PROGRAM,
        **environment: str,
    ) -> None:
        self.data = data
        serve = ["serve", "--data", str(data), "--host", "127.0.0.1", "--port", "0", "--http-port", "0"]
        serve += arguments
        environment = {**os.environ, "IMAGINGSTUDYD_STORAGE__WATERMARK": "0", **environment}
        log, theirs = os.pipe()
        self._log = open(log, "rb")  # noqa: PTH123, SIM115 - a descriptor; its reader closes it
        with open(theirs) as stderr:  # noqa: PTH123 - a descriptor
            self.process = self._start(serve, environment, stderr, prefix, program)
        self.events: list[dict[str, Any]] = []
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            ready = self.wait_for(lambda event: event.get("event") == "ready", START_SECONDS)
        except BaseException:
            self.kill()
            raise
        self.host, self.port = ready["dicom"]
        self.http = ready["http"]

    def _start(
        self,
        serve: list[str],
        environment: dict[str, str],
        stderr: IO[str],
        prefix: tuple[str, ...],
        program: tuple[str, ...],
    ) -> Forked | subprocess.Popen[bytes]:
        if not prefix and program == PROGRAM and can_fork(environment):
            return Forked(serve, environment, stderr=stderr)
        command = [*WITH_US, *prefix, sys.executable, *program, *serve]
        return subprocess.Popen(command, stderr=stderr, stdin=subprocess.DEVNULL, env=environment)

    def _read(self) -> None:
        with self._log:
            for line in self._log:
                self.lines.append(line.decode())
                try:
                    self.events.append(json.loads(line))
                except ValueError:
                    self.events.append({"event": "", "line": line.decode()})

    def wait_for(
        self, fits: Callable[[dict[str, Any]], bool], seconds: float = EVENT_SECONDS
    ) -> dict[str, Any]:
        """Wait for an event that fits, and return it; fail with the log where none comes."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for event in self.events[:]:
                if fits(event):
                    return event
            if self.process.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.01)
        raise AssertionError("no such event in:\n" + "".join(self.lines))

    def named(self, name: str) -> list[dict[str, Any]]:
        """Return the events with this name so far."""
        return [event for event in self.events[:] if event.get("event") == name]

    def stop(self) -> int:
        """Send SIGTERM, as systemd does; return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        self._reader.join(60)
        assert not [line for line in self.lines if "has returned, but was not stopped" in line]
        return status

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self.process.kill()  # SIGKILL ends a stopped or hanging process too
        self.process.wait()
        self._reader.join(60)

    def send(
        self, *paths: Path | str, tool: str = "dcmsend", options: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Send files or folders with DCMTK, with Nagle's algorithm off."""
        scan = ("+sd", "+r") if tool == "dcmsend" else ()
        command = [tool, *options, *scan, "-aec", "ANY", self.host, str(self.port), *map(str, paths)]
        return run(*command, TCP_NODELAY="1")

    def resource(self, uid: str, version: str = "dstu2", kind: str = "ImagingStudy") -> Path:
        """Return the path of a resource."""
        return self.data / "fhir" / version / kind / f"{uid}.json"

    def studies(self) -> list[dict[str, Any]]:
        """Return the output of `studies --json`."""
        return json.loads(cli("studies", "--data", str(self.data), "--json").stdout)


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command; return its status and output."""
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        env={**os.environ, **environment},
        check=False,
    )


def cpu_seconds(process: int) -> float:
    """Return the CPU time of a process, in seconds (proc(5): utime and stime)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `imagingstudyd` with these arguments."""
    environment = {**os.environ, **environment}
    if not can_fork(environment):
        return run(sys.executable, *PROGRAM, *arguments, **environment)
    with TemporaryFile("w+") as stdout, TemporaryFile("w+") as stderr:
        program = Forked([*arguments], environment, stdout, stderr)
        status = program.wait(COMMAND_SECONDS)
        for output in (stdout, stderr):
            output.seek(0)
        return subprocess.CompletedProcess(program.args, status, stdout.read(), stderr.read())


def eventually(holds: Callable[[], bool], seconds: float = EVENT_SECONDS) -> bool:
    """Wait until a condition holds; return whether it does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.02)
    return holds()


def serving(data: Path, *arguments: str, **environment: str) -> Iterator[Daemon]:
    """Yield a daemon, and stop it."""
    daemon = Daemon(data, *arguments, **environment)
    try:
        yield daemon
    finally:
        daemon.stop()
