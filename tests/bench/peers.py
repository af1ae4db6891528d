"""The receivers that are compared, each started as its users start it."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Bounds, not expectations.
START_SECONDS = 180
STOP_SECONDS = 180

Command = Callable[[Path, int], list[str]]


@dataclass(frozen=True)
class Peer:
    """A receiver: its command for a folder and a port, and its environment variables."""

    name: str
    command: Command
    environment: dict[str, str] = field(default_factory=dict)


def ours(durability: str = "power-loss") -> Peer:
    """Return this daemon. It indexes, and publishes the resources of what arrives."""
    environment = {"IMAGINGSTUDYD_STORAGE__DURABILITY": durability}

    def command(folder: Path, port: int) -> list[str]:
        serve = [sys.executable, "-m", "scp", "serve", "--data", str(folder)]
        return [*serve, "--host", "127.0.0.1", "--port", str(port), "--no-http"]

    return Peer(f"imagingstudyd {durability}", command, environment)


def _storescp(*options: str) -> Command:
    return lambda folder, port: ["storescp", *options, "-od", str(folder), str(port)]


def _dcmqrscp(folder: Path, port: int) -> list[str]:
    (folder / "storage").mkdir()
    (folder / "dcmqrscp.cfg").write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nANY-SCP {folder}/storage RW (100000, 1000gb) ANY\nAETable END\n"
    )
    return ["dcmqrscp", "-c", str(folder / "dcmqrscp.cfg"), str(port)]


def _orthanc(folder: Path, port: int) -> list[str]:
    """Orthanc with its defaults: SQLite and files synced; its HTTP server is off, since it is not used."""
    settings = {
        "DicomPort": port,
        "StorageDirectory": str(folder / "storage"),
        "HttpServerEnabled": False,
        "DicomCheckCalledAet": False,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    return ["Orthanc", str(folder / "orthanc.json")]


def _pynetdicom(folder: Path, port: int) -> list[str]:
    return [sys.executable, "-m", "pynetdicom", "storescp", str(port), "-od", str(folder)]


# DCMTK, and programs that are built on it, switch Nagle's algorithm off only with this variable.
NO_DELAY = {"TCP_NODELAY": "1"}

STORESCP_INSTALLED = Peer("storescp as installed", _storescp())
STORESCP = Peer("storescp TCP_NODELAY=1", _storescp(), NO_DELAY)
STORESCP_FORK = Peer("storescp --fork TCP_NODELAY=1", _storescp("--fork"), NO_DELAY)
DCMQRSCP_INSTALLED = Peer("dcmqrscp as installed", _dcmqrscp)
ORTHANC_INSTALLED = Peer("Orthanc as installed", _orthanc)
ORTHANC = Peer("Orthanc TCP_NODELAY=1", _orthanc, NO_DELAY)
PYNETDICOM = Peer("pynetdicom storescp", _pynetdicom)


@dataclass(frozen=True)
class Running:
    """A receiver that runs."""

    address: tuple[str, int]
    process: "subprocess.Popen[bytes]"


@contextlib.contextmanager
def running(peer: Peer, folder: Path) -> Iterator[Running]:
    """Start a receiver on a free port; end it afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = ("127.0.0.1", free.getsockname()[1])
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin", **peer.environment}
    with (
        (folder.parent / f"{folder.name}.log").open("wb") as log,
        subprocess.Popen(
            peer.command(folder, address[1]),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            _wait(address, process, peer)
            yield Running(address, process)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(address: tuple[str, int], process: "subprocess.Popen[bytes]", peer: Peer) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(address, 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{peer.name} does not listen on port {address[1]}")
