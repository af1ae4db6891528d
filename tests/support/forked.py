"""The program in a process forked by the fork server: see fork_server."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

# Python and the C library read these when a process starts: such a one is started by exec.
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_")
# The server's process and its socket's folder: both end when this process does.
_kept: list[object] = []


@cache
def _server() -> Path:
    """Start the fork server of this process; return its socket."""
    folder = TemporaryDirectory(prefix="fork", dir="/tmp")
    _kept.append(folder)
    path = Path(folder.name) / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(64)
        command = [sys.executable, str(Path(__file__).with_name("fork_server.py")), str(listener.fileno())]
        _kept.append(subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[listener.fileno()]))
    return path


def can_fork(environment: dict[str, str]) -> bool:
    """Tell whether a process with this environment can be forked as well as started."""
    names = {name for name in {*environment, *os.environ} if name.startswith(READ_AT_START)}
    return all(environment.get(name) == os.environ.get(name) for name in names)


class Forked:
    """A running program, with what the tests use of subprocess.Popen."""

    def __init__(
        self,
        arguments: list[str],
        environment: dict[str, str],
        stdout: IO[str] | None = None,
        stderr: IO[str] | None = None,
    ) -> None:
        self.args = arguments
        self.returncode: int | None = None
        request = {"arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
        self._server = socket.socket(socket.AF_UNIX)
        self._server.connect(str(_server()))
        text = json.dumps(request).encode() + b"\n"
        with Path(os.devnull).open("r+b") as null:
            descriptors = [(one or null).fileno() for one in (null, stdout, stderr)]
            sent = socket.send_fds(self._server, [text], descriptors)
        self._server.sendall(text[sent:])
        self._answers = self._server.makefile("rb")
        self.pid = int(self._answers.readline())

    def poll(self) -> int | None:
        """Return its status where it has ended."""
        if self.returncode is None and select.select([self._server], [], [], 0)[0]:
            self._take_status()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its status. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if not select.select([self._server], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self._take_status()
        assert self.returncode is not None
        return self.returncode

    def _take_status(self) -> None:
        self.returncode = int(self._answers.readline())
        self._answers.close()
        self._server.close()

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)
