"""systemd's protocols, without its library: sd_notify(3), sd_listen_fds(3), sd_watchdog_enabled(3)."""

import os
import socket
import time
from collections.abc import Callable, Mapping

import structlog

from index import Supervisor

log = structlog.get_logger(__name__)

# The first descriptor that the service manager passes (sd_listen_fds(3), SD_LISTEN_FDS_START).
FIRST_DESCRIPTOR = 3

# The name of a passed socket for TLS (FileDescriptorName= in its unit); all others are without TLS.
TLS_SOCKET = "dicom-tls"

# Parts of the watchdog's time: how often it is notified, and how long each probe may take. Together they stay
# below a half, as sd_watchdog_enabled(3) recommends.
WATCHDOG_INTERVAL = 1 / 4
WATCHDOG_PROBE = 1 / 5

Probe = Callable[[float], bool]


def notify(state: str) -> bool:
    """Send `state` ("READY=1", "STOPPING=1") to the service manager; return whether there is one.

    $NOTIFY_SOCKET names a path, or an abstract socket where it begins with @ (sd_notify(3)).
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.sendto(state.encode(), address)
    except OSError as error:  # the daemon works without a service manager too
        log.warning("notify_failed", address=address, error=str(error))
        return False
    return True


def reloading() -> None:
    """Notify that a reload begins; READY=1 ends it (systemd.service(5), Type=notify-reload)."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping(seconds: float) -> None:
    """Notify that the daemon is stopping, and ask for the seconds that it may take."""
    notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def passed_sockets() -> dict[str, list[socket.socket]]:
    """Return the listening sockets that the service manager has passed, by name (FileDescriptorName=).

    The variables are removed, so that a child process does not use the sockets.
    """
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return {}
    passed: dict[str, list[socket.socket]] = {}
    for number in range(int(count)):
        listening = socket.socket(fileno=FIRST_DESCRIPTOR + number)
        listening.set_inheritable(False)
        name = names[number] if number < len(names) else ""
        passed.setdefault(name, []).append(listening)
    return passed


def watchdog_seconds() -> float | None:
    """Return the watchdog's time, or None where there is no watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000


class Watchdog:
    """Notifies systemd's watchdog as long as every probe returns true within its time."""

    def __init__(self, probes: Mapping[str, Probe], workers: Supervisor | None = None) -> None:
        self._probes = dict(probes)
        self._seconds = watchdog_seconds()
        self._worker = (workers or Supervisor()).add("watchdog", self._run)

    def start(self) -> None:
        """Start notifying, where there is a watchdog."""
        if self._seconds is not None:
            self._worker.start()

    def stop(self) -> None:
        """Stop notifying."""
        self._worker.stop()

    def _run(self) -> None:
        seconds = self._seconds or 0.0
        while True:
            stuck = [name for name, probe in self._probes.items() if not probe(seconds * WATCHDOG_PROBE)]
            if stuck:
                log.error("watchdog_not_fed", stuck=stuck)
            else:
                notify("WATCHDOG=1")
            if self._worker.wait(seconds * WATCHDOG_INTERVAL):
                return
