"""Worklist items as DICOM data sets: files as wlmscpfs and Orthanc keep them, upstream answers."""

from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue

from index.orders.records import NewOrder, Source, is_date
from index.orders.states import order_status, step_status

# A worklist item is some kB.
MAX_FILE = 4 * 1024 * 1024
# PS3.5 sets no limit; the worklist information model (PS3.4 Table K.6-1) nests three deep.
MAX_DEPTH = 8
_PATIENT_GROUP = 0x0010
_SEQUENCE = "ScheduledProcedureStepSequence"
_DATE = "ScheduledProcedureStepStartDate"
# Values that are no text: no key of Table K.6-1 has one.
_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))


class BadItem(ValueError):
    """A file or data set that is no worklist item; the text says why."""


def read_file(path: Path) -> Dataset:
    """Read a worklist file, with or without file meta information. Raises BadItem, OSError."""
    size = path.stat().st_size
    if size > MAX_FILE:
        raise BadItem(f"{size} bytes are more than the {MAX_FILE} that a worklist item may have")
    try:
        try:
            dataset: Dataset = dcmread(path)
        except InvalidDicomError:
            dataset = dcmread(path, force=True)
        # Elements are decoded when they are asked for: now is the time to learn what is wrong.
        dataset.decode()
        _ = str(dataset.to_json_dict(bulk_data_threshold=MAX_FILE, bulk_data_element_handler=lambda _: ""))
    except OSError:
        raise
    except Exception as error:  # pydicom raises whatever a damaged file brings up
        raise BadItem(f"cannot be read as DICOM: {error}") from error
    return dataset


def order_of(dataset: Dataset, source: Source, sender: str, identity: str, stamp: str = "") -> NewOrder:
    """Return the order that a worklist item tells of. Raises BadItem, naming what is missing."""
    if not dataset:
        raise BadItem("has no attributes")
    attributes = attributes_of(dataset)
    steps = attributes.pop(_SEQUENCE, [])
    if not steps:
        raise BadItem(f"has no {_SEQUENCE} (0040,0100)")
    for day in (step.get(_DATE) for step in steps if isinstance(step, dict)):
        if day and not is_date(str(day)):
            raise BadItem(f"{_DATE} (0040,0002) is {day!r}, no date")
    patient = {
        keyword: attributes.pop(keyword)
        for keyword in [element.keyword for element in dataset if element.tag.group == _PATIENT_GROUP]
        if keyword in attributes
    }
    if not patient.get("PatientID") and not patient.get("PatientName"):
        raise BadItem("has neither PatientID (0010,0020) nor PatientName (0010,0010)")
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


def attributes_of(dataset: Dataset, depth: int = 0) -> dict[str, Any]:
    """Return what a data set says, by keyword; private and binary elements are left out. Raises BadItem."""
    if depth > MAX_DEPTH:
        raise BadItem(f"is nested more than {MAX_DEPTH} deep")
    made: dict[str, Any] = {}
    for element in dataset:
        if not element.keyword or element.VR in _BINARY:
            continue
        if element.VR == "SQ":
            value: Any = [
                item for item in (attributes_of(item, depth + 1) for item in element.value or ()) if item
            ]
        elif isinstance(element.value, MultiValue | list):
            value = [str(one) for one in element.value]
        else:
            value = "" if element.value is None else str(element.value).strip()
        if value:
            made[element.keyword] = value
    return made
