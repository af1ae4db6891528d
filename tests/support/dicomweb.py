"""DICOMweb over an index, by a socket."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from pydicom.dataset import Dataset
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from index import Caller, DicomWeb, DicomWebSettings, Index, NotKept
from index.web.rights import ALL_RIGHTS
from support.dicom import instance

STUDY = "1.2.826.0.1.3680043.10.1555.1"
SERIES = f"{STUDY}.1"
IMAGES = f"/studies/{STUDY}/series/{SERIES}/instances"
# Seconds; a bound for machines that are many times slower.
PATIENCE = 120


@dataclass
class Served:
    """DICOMweb over an index, with the files of which that was made."""

    index: Index
    url: str
    client: httpx.Client
    files: dict[str, Path]

    def get(self, path: str, accept: str = "*/*", **parameters: Any) -> httpx.Response:
        return self.client.get(path, headers={"accept": accept}, params=parameters)


def status_of(error: Exception) -> int:
    return 0xA700 if isinstance(error, NotKept) else 0xC000


def _may_do_all(app: ASGIApp) -> ASGIApp:
    """Stand before an application as its guard does, and let everybody in."""

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["caller"] = Caller("tester", ALL_RIGHTS)
        await app(scope, receive, send)

    return serve


@contextmanager
def serving(index: Index, files: dict[str, Path], public_url: str = "") -> Iterator[Served]:
    """Serve DICOMweb on a free port."""
    web = DicomWeb(index, DicomWebSettings("ARCHIVE", public_url), status_of)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(_may_do_all(Starlette(routes=web.routes())), log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/dicom-web"
    try:
        with httpx.Client(base_url=url, timeout=PATIENCE) as client:
            yield Served(index, url, client, files)
    finally:
        server.should_exit = True
        thread.join(PATIENCE)


def parts(response: httpx.Response) -> list[tuple[str, bytes]]:
    """Return content type and content of the parts of a response, split by another way than ours."""
    boundary = re.search(r"boundary=(\w+)", response.headers["content-type"])
    assert boundary
    delimiter = b"\r\n--" + boundary[1].encode()
    first, *middle, last = response.content.split(delimiter)
    assert (b"", b"--\r\n") == (first, last)
    found = []
    for part in middle:
        head, _, content = part.partition(b"\r\n\r\n")
        found.append((head.decode().removeprefix("\r\nContent-Type: "), content))
    return found


def pixels(dataset: Dataset, frames: int = 1) -> Dataset:
    """Give an instance 4 x 4 pixels of 16 bits for each frame."""
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    if frames > 1:
        dataset.NumberOfFrames = frames
    dataset.PixelData = bytes(range(32)) * frames
    return dataset


def made() -> list[Dataset]:
    """Two studies: one of three instances in two series, with images, and one of a name with accents."""
    return [
        pixels(instance(1, 1, 1)),
        pixels(instance(1, 1, 2), frames=3),
        instance(1, 2, 1, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"),
        instance(2, 1, 1, PatientName="Müller^Zoë", StudyDate="20240229", SpecificCharacterSet="ISO_IR 192"),
    ]
