"""A process that has imported the program, and forks a child for each start of it that a test asks for.

Importing costs half a second of CPU, more than most commands and tests, and a run of all tests starts the
program a thousand times. The child is otherwise what `python -m scp` is: a process of its own, with its own
arguments, environment, folder and descriptors.

Requests come over a Unix socket: a line of JSON with the three standard descriptors beside it. Its answers
are lines: the child's process id, later its status as of os.waitstatus_to_exitcode. It ends with its
standard input, and its children with it.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
import time
from typing import Any

# prctl(2): the signal that a process gets when the thread that forked it ends.
PR_SET_PDEATHSIG = 1
LARGEST_REQUEST = 1 << 20


def import_all() -> None:
    """Import what a command or a daemon imports, so that no child has to."""
    import pynetdicom._handlers  # noqa: F401
    import uvicorn.protocols.http.h11_impl  # noqa: F401

    import scp.daemon.http.application
    import scp.daemon.http.connections
    import scp.daemon.http.monitoring
    import scp.daemon.service  # noqa: F401
    from index import Page  # noqa: F401
    from scp.commands.main import register_commands

    register_commands()


def become(request: dict[str, Any], descriptors: list[int]) -> None:
    """Turn this child into the process that was asked for."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = ["imagingstudyd", *request["arguments"]]
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115 - descriptors, not paths
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115


class ForkServer:
    """Forks, and tells each requester when its child has ended."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._children: dict[int, socket.socket] = {}
        self._ended, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve until killed; return in each child, which is then to run the program."""
        while True:
            ready, _, _ = select.select([self._listener, self._ended, sys.stdin], [], [])
            if sys.stdin in ready:
                sys.exit()
            if self._ended in ready:
                os.read(self._ended, 4096)
                self._reap()
            if self._listener in ready and self._fork():
                return

    def _fork(self) -> bool:
        requester, _ = self._listener.accept()
        text, descriptors, _, _ = socket.recv_fds(requester, LARGEST_REQUEST, 3)
        while not text.endswith(b"\n"):
            text += requester.recv(LARGEST_REQUEST)
        child = os.fork()
        if not child:
            for one in (self._listener, requester, *self._children.values()):
                one.detach()
            become(json.loads(text), descriptors)
            return True
        for descriptor in descriptors:
            os.close(descriptor)
        self._children[child] = requester
        requester.sendall(b"%d\n" % child)
        return False

    def _reap(self) -> None:
        while self._children:
            child, status = os.waitpid(-1, os.WNOHANG)
            if not child:
                return
            with self._children.pop(child) as requester:
                try:
                    requester.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
                except OSError:  # The requester does not wait for it any more.
                    continue


if __name__ == "__main__":
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        import_all()
        ForkServer(requests).run()
    from scp.commands.main import main

    main()
