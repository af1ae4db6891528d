"""What a site gives a service: systemd's notify socket, and certificates."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path


class NotifySocket:
    """The service manager's $NOTIFY_SOCKET: keeps every message with its time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.messages: list[tuple[float, dict[str, str]]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            data = self._socket.recv(4096).decode()
            self.messages.append((time.monotonic(), dict(line.split("=", 1) for line in data.splitlines())))

    def states(self) -> list[str]:
        """Return the first key of each message, watchdog pings left out."""
        return [next(iter(message)) for _, message in self.messages if "WATCHDOG" not in message]

    def pings(self, since: float = 0.0) -> int:
        """Return the number of watchdog pings since then."""
        return sum("WATCHDOG" in message for at, message in self.messages if at >= since)

    def wait_for(self, holds: Callable[["NotifySocket"], bool], seconds: float = 180) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + seconds
        while not holds(self):
            assert time.monotonic() < deadline, self.messages
            time.sleep(0.01)


class Authority:
    """A certificate authority in a folder, made by the command openssl."""

    def __init__(self, folder: Path, name: str = "Site CA") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = folder / "ca.pem", folder / "ca.key"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                 "-keyout", str(self._key), "-out", str(self.certificate),
                 "-subj", f"/CN={name}", "-days", "2")  # fmt: skip

    def issue(self, name: str, *, days: int = 2, password: str | None = None) -> tuple[Path, Path]:
        """Return the files of a new certificate and its key. With negative days it has expired."""
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "pem"))
        cipher = ("-passout", f"pass:{password}") if password else ("-nodes",)
        _openssl("req", "-newkey", "rsa:2048", *cipher, "-keyout", str(key), "-out", str(request),
                 "-subj", f"/O=Site/CN={name}")  # fmt: skip
        _openssl("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key),
                 "-CAcreateserial", "-out", str(certificate), "-days", str(days))  # fmt: skip
        return certificate, key


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
