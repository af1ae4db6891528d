"""Processes, told apart by id and start."""

import os
from pathlib import Path


def started(process: int) -> str:
    """Return when a process began, in ticks since the machine did (proc(5), stat); empty where there is none.

    Process ids come again, soon where the daemon is the first process of a container; this does not.
    """
    try:
        status = Path(f"/proc/{process}/stat").read_text(encoding="ascii", errors="replace")
        return status.rpartition(")")[2].split()[19]
    except OSError:
        return ""


def is_alive(process: str) -> bool:
    """Whether a process of this id runs that is not ours."""
    return process.isdigit() and int(process) != os.getpid() and bool(started(int(process)))
