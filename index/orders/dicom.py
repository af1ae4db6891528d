"""Worklist items as DICOM data sets: files as wlmscpfs and Orthanc keep them, upstream answers."""

import re
import stat
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import structlog
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from index.dicom.value_rules import is_single, tag_and_vr, valid_values
from index.orders.records import NewOrder, Source
from index.orders.states import order_status, step_status

log = structlog.get_logger(__name__)

# A worklist item is some kB.
MAX_FILE = 4 * 1024 * 1024
# PS3.5 sets no limit; the worklist information model (PS3.4 Table K.6-1) nests three deep.
MAX_DEPTH = 8
_PATIENT_GROUP = 0x0010
_SEQUENCE = "ScheduledProcedureStepSequence"
_DATE = "ScheduledProcedureStepStartDate"
# Values that are no text: no key of Table K.6-1 has one.
_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
# No text has them, and no database takes them: padding of C, and half a surrogate pair.
_NO_TEXT = re.compile("[\0\ud800-\udfff]+")


class BadItem(ValueError):
    """A file or data set that is no worklist item; the text says why."""


class _File(BytesIO):
    """A file's bytes. All that is left is read at once of a deflated data set only: that is bounded."""

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if size is None or size < 0:
            inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, MAX_FILE + 1)
            if len(inflated) > MAX_FILE:
                raise BadItem(f"it inflates to more than {MAX_FILE} bytes")
        return content


def read_file(path: Path) -> Dataset:
    """Read a worklist file, with or without file meta information. Raises BadItem, OSError."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise BadItem("is no regular file")
    if status.st_size > MAX_FILE:
        raise BadItem(f"{status.st_size} bytes are more than the {MAX_FILE} that a worklist item may have")
    content = path.read_bytes()
    try:
        dataset: Dataset = dcmread(_File(content), force=True)
    except Exception as error:  # pydicom raises whatever a damaged file brings up
        raise BadItem(f"cannot be read as DICOM: {error}") from error
    return dataset


def printable(path: Path) -> str:
    """Return the name of a path as text that can be kept and printed: a file's name is any bytes."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def order_of(dataset: Dataset, source: Source, sender: str, identity: str, stamp: str = "") -> NewOrder:
    """Return the order that a worklist item tells of. Raises BadItem, naming what is missing."""
    if not dataset:
        raise BadItem("has no attributes")
    attributes = attributes_of(dataset)
    steps = attributes.pop(_SEQUENCE, [])
    if not steps:
        raise BadItem(f"has no {_SEQUENCE} (0040,0100) with an item")
    for day in (step.get(_DATE) for step in steps):
        if day and not valid_values(_DATE, day):
            raise BadItem(f"{_DATE} (0040,0002) is {day!r}, no date")
    patient = {keyword: attributes.pop(keyword) for keyword in list(attributes) if _is_patients(keyword)}
    if not patient.get("PatientID") and not patient.get("PatientName"):
        raise BadItem("has neither PatientID (0010,0020) nor PatientName (0010,0010)")
    if not valid_values("StudyInstanceUID", attributes.get("StudyInstanceUID")):
        attributes.pop("StudyInstanceUID", None)
    charset = attributes.pop("SpecificCharacterSet", "")
    return NewOrder(
        source,
        sender,
        identity,
        patient,
        attributes,
        steps,
        order_status([step_status(step) for step in steps]),
        "\\".join(charset) if isinstance(charset, list) else charset,
        stamp=stamp,
    )


def _is_patients(keyword: str) -> bool:
    return tag_and_vr(keyword)[0].group == _PATIENT_GROUP


def attributes_of(dataset: Dataset, depth: int = 0) -> dict[str, Any]:
    """Return what a data set says, by keyword. Raises BadItem where it is nested too deep.

    Private and binary elements are left out, and what cannot be read or is no sequence where one is due.
    """
    if depth > MAX_DEPTH:
        raise BadItem(f"is nested more than {MAX_DEPTH} deep")
    made: dict[str, Any] = {}
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
            value = _value(element, depth)
        except BadItem:
            raise
        except Exception as error:  # noqa: BLE001  pydicom raises whatever the bytes bring up
            log.warning("attribute_left_out", tag=str(tag), reason=type(error).__name__)
            continue
        if value:
            made[element.keyword] = value
    return made


def _value(element: DataElement, depth: int) -> Any:
    """Return an element's value: items, text, or texts where its attribute has several values."""
    keyword = element.keyword
    if tag_for_keyword(keyword) != element.tag or element.VR in _BINARY:
        return None
    is_sequence = tag_and_vr(keyword)[1] == "SQ"
    if is_sequence != (element.VR == "SQ"):
        log.warning("attribute_left_out", tag=str(element.tag), reason=f"has VR {element.VR}")
        return None
    if is_sequence:
        items = (attributes_of(item, depth + 1) for item in element.value or ())
        return [item for item in items if item]
    several = element.value if isinstance(element.value, MultiValue | list) else [element.value]
    told = [_NO_TEXT.sub(" ", "" if one is None else str(one)).strip() for one in several]
    # A backslash in a text of one value is none that separates values.
    is_list = len(told) > 1 and (element.VR == "CS" or not is_single(keyword))
    return told if is_list else "\\".join(told)
