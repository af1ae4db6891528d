"""Instances for tests: small ones made here, and pydicom's test files."""

from functools import cache
from pathlib import Path
from typing import Any

import pydicom
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ROOT = "1.2.826.0.1.3680043.10.1555"


def instance(study: int = 1, series: int = 1, number: int = 1, **attributes: Any) -> Dataset:
    """Return a small CT instance. The numbers make its UIDs; `attributes` replace values."""
    dataset = Dataset()
    dataset.SOPClassUID = CT_IMAGE_STORAGE
    dataset.StudyInstanceUID = f"{ROOT}.{study}"
    dataset.SeriesInstanceUID = f"{ROOT}.{study}.{series}"
    dataset.SOPInstanceUID = f"{ROOT}.{study}.{series}.{number}"
    dataset.PatientID = f"P{study}"
    dataset.PatientName = "Doe^Jane"
    dataset.StudyDate = "20260102"
    dataset.StudyTime = "101112"
    dataset.AccessionNumber = f"A{study}"
    dataset.StudyDescription = "Head"
    dataset.Modality = "CT"
    dataset.SeriesNumber = str(series)
    dataset.InstanceNumber = str(number)
    for keyword, value in attributes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    """Return the bytes of a data set alone, without file meta information."""
    syntax = UID(transfer_syntax)
    buffer = pydicom.filebase.DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = syntax.is_implicit_VR, syntax.is_little_endian
    pydicom.filewriter.write_dataset(buffer, dataset)
    return bytes(buffer.getvalue())


def save(dataset: Dataset, path: Path, transfer_syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set as a Part 10 file."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    path.parent.mkdir(parents=True, exist_ok=True)
    syntax = UID(transfer_syntax)
    dataset.save_as(
        path,
        enforce_file_format=True,
        implicit_vr=syntax.is_implicit_VR,
        little_endian=syntax.is_little_endian,
    )
    return path


def part10(content: bytes, uid: str, sop_class: str = CT_IMAGE_STORAGE) -> bytes:
    """Return a Part 10 file of an encoded data set (explicit VR little endian)."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(uid)
    buffer = pydicom.filebase.DicomBytesIO(bytes(128) + b"DICM")
    buffer.seek(132)
    pydicom.filewriter.write_file_meta_info(buffer, meta)
    return bytes(buffer.getvalue()) + content


@cache
def sample(name: str = "CT_small.dcm") -> Path:
    """Return one of pydicom's own test files."""
    return Path(str(get_testdata_file(name)))


def data_set_of(path: Path) -> bytes:
    """Return the bytes after the file meta information of a Part 10 file, found by pydicom alone."""
    with path.open("rb") as file:
        pydicom.filereader.read_preamble(file, force=False)
        pydicom.filereader._read_file_meta_info(file)
        return file.read()
