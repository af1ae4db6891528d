"""An index with a few studies, and DICOMweb over it: in this process, by calls and by a socket."""

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydicom.dataset import Dataset
from starlette.applications import Starlette
from starlette.testclient import TestClient

from index import DicomWeb, DicomWebSettings, Index
from support.dicom import instance, sample, save

STUDY, SERIES = "1.2.826.0.1.3680043.10.1555.1", "1.2.826.0.1.3680043.10.1555.1.1"


@dataclass
class Served:
    """DICOMweb over an index, with the files from which that was made."""

    index: Index
    app: Starlette
    client: TestClient
    files: dict[str, Path]

    def get(self, path: str, accept: str = "*/*", **parameters: Any) -> Any:
        return self.client.get(f"/dicom-web{path}", headers={"accept": accept}, params=parameters)


def serve(index: Index, files: dict[str, Path]) -> Served:
    web = DicomWeb(index, DicomWebSettings("ARCHIVE"))
    app = Starlette(routes=web.routes())
    return Served(index, app, TestClient(app, base_url="http://archive"), files)


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


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("dicomweb")
    files = {}
    for number, dataset in enumerate(made()):
        files[str(dataset.SOPInstanceUID)] = save(dataset, folder / "in" / f"{number}.dcm")
    for name in ("JPEG2000.dcm", "SC_rgb_rle_2frame.dcm", "CT_small.dcm", "examples_ybr_color.dcm"):
        path = sample(name)
        files[name] = path
    with Index(folder / "data") as index:
        index.import_files([folder / "in", *files.values()])
        index.publish()
        yield serve(index, files)


@pytest.fixture(scope="module")
def address(served: Served) -> Iterator[str]:
    """The URL of a server over it."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(served.app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/dicom-web"
    server.should_exit = True
    thread.join(60)
