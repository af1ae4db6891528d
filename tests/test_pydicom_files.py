"""Every test file that pydicom and pydicom-data ship, each sent to a fresh data directory.

Several of them share a SOP Instance UID. The expected values are read by pydicom, not by our own reader.
"""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import data_store
import orjson
import pydicom
import pytest
from pydicom.errors import InvalidDicomError

from index import Index, NotExpressible
from scp.daemon.listener import Listener
from scp.services.store import StoreService
from scp.settings.sections import DicomSettings, LimitsSettings
from support.dicom import data_set_of
from support.fhirjudges import judge
from support.filling import STORAGE
from support.sender import Sender

FOLDERS = (Path(pydicom.__file__).parent / "data", Path(data_store.__file__).parent / "data")
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
REFUSED = {0xA900, 0xC000, 0xC001}
# Not an instance of a study: the directory of a medium (PS3.10 Section 8).
DICOMDIR = "1.2.840.10008.1.3.10"


def readable(path: Path) -> pydicom.Dataset | None:
    """Return the data set where pydicom reads it without `force` and knows the transfer syntax."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            known = "TransferSyntaxUID" in dataset.file_meta
            is_directory = dataset.file_meta.get("MediaStorageSOPClassUID") == DICOMDIR
        except (InvalidDicomError, OSError, KeyError, ValueError, AttributeError):
            return None
    return dataset if known and not is_directory and len(dataset) else None


def files() -> Iterator[Path]:
    for folder in FOLDERS:
        yield from sorted(path for path in folder.rglob("*") if path.is_file() and readable(path) is not None)


def name(path: Path) -> str:
    return "-".join(path.parts[-2:])


@pytest.mark.parametrize("path", files(), ids=name)
def test_is_stored_indexed_and_comes_out_or_is_refused(path: Path, tmp_path: Path) -> None:
    dataset = readable(path)
    assert dataset is not None
    uids = {keyword: str(dataset.get(keyword, "")) for keyword in UIDS}
    index = Index(tmp_path, STORAGE)
    index.serve()
    dicom = DicomSettings(host="127.0.0.1", port=0)
    listener = Listener(dicom, LimitsSettings(), (), StoreService(index))
    try:
        sender = Sender(
            listener.start(),
            sop_class=uids["SOPClassUID"] or "1.2.840.10008.5.1.4.1.1.7",
            syntax=str(dataset.file_meta.TransferSyntaxUID),
        )
        data_set = data_set_of(path)
        status = sender.send(uids["SOPInstanceUID"] or "1.2.3", data_set)
        sender.release()
    finally:
        listener.stop(5)
        index.close()
    if all(re.fullmatch(r"[0-9.]{1,64}", uid) for uid in uids.values()):
        assert 0x0000 == status
        came_out(tmp_path, uids, data_set)
    else:
        assert status in REFUSED
        assert [] == list((tmp_path / "objects").rglob("*.dcm"))


def came_out(data: Path, uids: dict[str, str], data_set: bytes) -> None:
    """The object is what was sent; the index and the resource have it."""
    (stored,) = (data / "objects").rglob("*.dcm")
    assert data_set == data_set_of(stored)
    index = Index(data, STORAGE)
    try:
        (study,) = index.studies()
        assert (uids["StudyInstanceUID"], 1, 1) == (study["uid"], study["series"], study["instances"])
        content, _ = index.resource(study["uid"], "dstu2")
    except NotExpressible:
        return  # R4 and R5 have it
    finally:
        index.close()
    assert content == (data / f"fhir/dstu2/ImagingStudy/{study['uid']}.json").read_bytes()
    resource = orjson.loads(content)
    assert 1 == resource["numberOfInstances"]
    assert f"urn:oid:{uids['SeriesInstanceUID']}" == resource["series"][0]["uid"]
    assert f"urn:oid:{uids['SOPInstanceUID']}" == resource["series"][0]["instance"][0]["uid"]
    for version in ("dstu2", "r4", "r5"):
        paths = (data / "fhir" / version).rglob("*.json")
        judge([orjson.loads(path.read_bytes()) for path in sorted(paths, key=by_kind)], version)


def by_kind(path: Path) -> tuple[bool, Path]:
    """Sort the ImagingStudy before the resources that it refers to."""
    return path.parent.name != "ImagingStudy", path
