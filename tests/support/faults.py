"""Faults of disks: system calls of one association that strace lets fail, and a small disk."""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from support.daemon import Daemon, eventually, run
from support.sender import Sender


def threads(daemon: Daemon) -> set[str]:
    """Return the ids of the daemon's threads."""
    return {path.name for path in Path(f"/proc/{daemon.process.pid}/task").iterdir()}


def associate(daemon: Daemon) -> tuple[Sender, set[str]]:
    """Open an association; return it and the threads that serve it."""
    before = threads(daemon)
    sender = Sender((daemon.host, daemon.port))
    return sender, threads(daemon) - before


@contextlib.contextmanager
def injected(mine: set[str], fault: str, trace: Path, path: Path | None = None) -> Iterator[None]:
    """Let system calls of these threads (on one path) fail by strace; write them to `trace`."""
    call = fault.partition(":")[0]
    command = ["strace", "-y", "-o", str(trace), "-e", f"trace={call}", "-e", f"inject={fault}"]
    command += ["-P", str(path)] if path else []
    for thread in mine:
        command += ["-p", thread]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as strace:
        assert eventually(lambda: all(_is_traced(thread) for thread in mine)), "strace cannot attach"
        try:
            yield
        finally:
            strace.send_signal(signal.SIGINT)


def _is_traced(thread: str) -> bool:
    try:
        status = Path(f"/proc/{thread}/status").read_text()
    except OSError:  # it has ended
        return True
    return "TracerPid:\t0\n" not in status


def small_disk(path: Path, size: int, *, inodes: int = 0) -> tuple[str, ...]:
    """Return a command that runs another with a disk of `size` bytes on `path`, which only it sees."""
    path.mkdir(parents=True)
    mount = f'mount -t tmpfs -o size={size},nr_inodes={inodes} tmpfs "$0" && exec "$@"'
    return ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, str(path))


def on_small_disk(script: str, path: Path, size: int, *, inodes: int = 0) -> str:
    """Run a Python script, whose first argument is `path`, on a disk of its own; return what it printed.

    `fill(path, rest)` there leaves `rest` bytes free, and returns the file to be removed for more.
    """
    command = [*small_disk(path, size, inodes=inodes), sys.executable, "-c", f"{_FILL}{script}", str(path)]
    done = run(*command, PYTHONPATH=str(Path(__file__).parents[1]))
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


_FILL = """
import contextlib, os, sys
from pathlib import Path
def fill(path, rest=0):
    ballast = path / f"ballast-{len(list(path.iterdir()))}"
    with ballast.open("wb") as file:
        # Other programs write meanwhile, and freed space comes back later.
        while (free := os.statvfs(path)).f_bavail * free.f_frsize > rest:
            with contextlib.suppress(OSError):
                size = os.fstat(file.fileno()).st_size
                os.posix_fallocate(file.fileno(), size, free.f_bavail * free.f_frsize - rest)
    return ballast
path = Path(sys.argv[1])
"""


def inside(daemon: Daemon, path: Path) -> Path:
    """Return the path from outside of a file on the daemon's own mounts. SQLite cannot open it there."""
    return Path(f"/proc/{daemon.process.pid}/root{path}")


def copied(data: Path, target: Path) -> Path:
    """Copy a data directory in which next to nothing happens; return the copy."""

    def copy() -> bool:
        shutil.rmtree(target, ignore_errors=True)
        try:
            shutil.copytree(data, target)
        except shutil.Error:  # something has gone while it was copied
            return False
        return True

    assert eventually(copy)
    return target
