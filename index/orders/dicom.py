"""Worklist items as DICOM data sets: worklist files (wlmscpfs, Orthanc) and upstream answers."""

import stat
import zlib
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

import structlog
from pydicom import dcmread
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import Tag

from index.dicom.value_rules import cut_off, is_single, tag_and_vr, valid_values
from index.orders.records import NewOrder, Source, clean_text, order_status, step_status

log = structlog.get_logger(__name__)

# A worklist item has a few kB.
MAX_FILE = 4 * 1024 * 1024
# PS3.5 has no limit; the worklist information model (PS3.4 Table K.6-1) nests three deep.
MAX_DEPTH = 8
_PATIENT_GROUP = 0x0010
_SEQUENCE = "ScheduledProcedureStepSequence"
_DATE = "ScheduledProcedureStepStartDate"
# VRs whose values are not text: no key of Table K.6-1 has one.
_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))


class BadItem(ValueError):
    """Raised when a file or data set is not a worklist item; the text is the reason."""


class _File(BytesIO):
    """The bytes of a file. pydicom reads the rest at once only to inflate a data set: its size is limited."""

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(size)
        if size is None or size < 0:
            inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(content, MAX_FILE + 1)
            if len(inflated) > MAX_FILE:
                raise BadItem(f"it inflates to more than {MAX_FILE} bytes")
        return content


def read_file(path: Path) -> Dataset:
    """Read a worklist file, with or without file meta information. Raises BadItem, OSError."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise BadItem("is not a regular file")
    with path.open("rb") as file:
        return parse(file.read(MAX_FILE + 1))


def parse(content: bytes) -> Dataset:
    """Return the data set of the content of a worklist file. Raises BadItem."""
    if len(content) > MAX_FILE:
        raise BadItem(f"its bytes are more than the {MAX_FILE} that a worklist item may have")
    try:
        dataset: Dataset = dcmread(_File(content), force=True)
    except Exception as error:  # pydicom raises many kinds of error for a damaged file
        raise BadItem(f"cannot be read as DICOM: {error}") from error
    return dataset


def printable(path: Path) -> str:
    """Return a path as valid text: the name of a file can be any bytes."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def order_of(dataset: Dataset, source: Source, sender: str, identity: str, stamp: str = "") -> NewOrder:
    """Return the order of a worklist item. Raises BadItem, which names what is missing."""
    if not dataset:
        raise BadItem("has no attributes")
    attributes = attributes_of(dataset)
    steps = attributes.pop(_SEQUENCE, [])
    if not steps:
        raise BadItem(f"has no {_SEQUENCE} (0040,0100) with an item")
    for day in (step.get(_DATE) for step in steps):
        if day and not valid_values(_DATE, day):
            raise BadItem(f"{_DATE} (0040,0002) is {day!r}, not a date")
    of_patient = [keyword for keyword in attributes if tag_and_vr(keyword)[0].group == _PATIENT_GROUP]
    patient = {keyword: attributes.pop(keyword) for keyword in of_patient}
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


def attributes_of(dataset: Dataset, depth: int = 0) -> dict[str, Any]:
    """Return the attributes of a data set by keyword. Raises BadItem where it is nested too deep.

    Private, binary and unreadable elements are left out, and sequences where the dictionary has none.
    """
    if depth > MAX_DEPTH:
        raise BadItem(f"is nested more than {MAX_DEPTH} deep")
    if not depth and (name := cut_off(dataset)):
        raise BadItem(f"ends within the value of {name}")
    attributes: dict[str, Any] = {}
    for tag in sorted(map(int, dataset.keys())):
        keyword = _keyword(tag)
        if not keyword:
            continue
        try:
            value = _value(keyword, dataset[tag], depth)
        except BadItem:
            raise
        except Exception as error:  # noqa: BLE001  pydicom raises many kinds of error for damaged bytes
            log.warning("attribute_left_out", tag=str(Tag(tag)), reason=type(error).__name__)
            continue
        if value:
            attributes[keyword] = value
    return attributes


@lru_cache(maxsize=4096)
def _keyword(tag: int) -> str:
    """Return the keyword of a tag; empty where it is private, or one of a repeating group."""
    keyword = keyword_for_tag(tag)
    return keyword if tag_for_keyword(keyword) == tag else ""


def _value(keyword: str, element: DataElement, depth: int) -> Any:
    """Return the value of an element: a text, a list of texts or a list of items. None: it is left out."""
    if element.VR in _BINARY:
        return None
    is_sequence = tag_and_vr(keyword)[1] == "SQ"
    if is_sequence != (element.VR == "SQ"):
        log.warning("attribute_left_out", tag=str(element.tag), reason=f"has VR {element.VR}")
        return None
    if is_sequence:
        items = (attributes_of(item, depth + 1) for item in element.value or ())
        return [item for item in items if item]
    several = element.value if isinstance(element.value, MultiValue | list) else [element.value]
    values = ["" if one is None else clean_text(str(one)) for one in several]
    # In an attribute with one value, a backslash is part of the text.
    is_list = len(values) > 1 and (element.VR == "CS" or not is_single(keyword))
    return values if is_list else "\\".join(values)
