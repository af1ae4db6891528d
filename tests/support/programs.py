"""Programs of others that are peers in whole sessions: DCMTK's servers, Orthanc."""

import contextlib
import json
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from support.daemon import WITH_US, eventually

OUR_TITLE = "IMAGINGSTUDYD"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextlib.contextmanager
def process(*command: str, folder: Path, port: int) -> Iterator[None]:
    """Run a program until the end, in a folder, from when it listens on the port."""
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        running = subprocess.Popen([*WITH_US, *command], cwd=folder, stdout=log, stderr=log)
    try:
        assert eventually(lambda: listens(port)), (folder.parent / f"{folder.name}.log").read_text()
        yield
    finally:
        running.terminate()
        running.wait(60)


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def orthanc(folder: Path, daemon_port: int, port: int) -> Iterator[Callable[..., object]]:
    """Run Orthanc, which knows us as a modality; yield what calls its REST interface."""
    http = free_port()
    settings = {
        "Name": "test",
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "HttpPort": http,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "StorageDirectory": str(folder / "storage"),
        "StorageCompression": False,
        "DicomModalities": {"us": [OUR_TITLE, "127.0.0.1", daemon_port]},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))

    def call(path: str, body: object | None = None, method: str | None = None) -> object:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{http}{path}", data, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            content = answer.read()
        return (
            json.loads(content) if answer.headers["Content-Type"].startswith("application/json") else content
        )

    with process("Orthanc", str(folder / "orthanc.json"), folder=folder, port=http):
        assert eventually(lambda: listens(port))
        yield call
