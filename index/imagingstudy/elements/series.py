"""The elements of a series and of its instances that all versions share."""

from collections.abc import Callable
from typing import Any

from pydicom.config import IGNORE
from pydicom.uid import UID

from index.imagingstudy.context import Build, attribute_text
from index.imagingstudy.terminology.modalities import MODALITIES, OTHER, RETIRED
from index.imagingstudy.values import clean, code, first, items, unsigned
from index.records import Attributes, Instance, Series

AVAILABILITIES = ("ONLINE", "NEARLINE", "OFFLINE", "UNAVAILABLE")
"""InstanceAvailability (0008,0056), best first; a group is as available as the worst in it."""

_NAMES = MODALITIES | RETIRED


def modality(build: Build, series: Series) -> dict[str, str]:
    """Return the Coding of Modality (0008,0060): OT where it is missing, no system where it is unknown."""
    subject = f"series {series.uid}"
    value = _modality(series)
    if not value:
        build.doubts.add(subject, "Modality is missing or no code, written as OT")
        value = OTHER
    display = _NAMES.get(value)
    if display:
        return {"system": build.dialect.dicom, "code": value, "display": display}
    build.doubts.add(subject, "Modality is no Defined Term, written without a system")
    return {"code": value}


def modalities(build: Build) -> list[dict[str, str]]:
    """Return the distinct modalities of the series that the version's study level holds, in order of code."""
    found = {_modality(series) or OTHER for series in build.study.series}
    return [
        {"system": build.dialect.dicom, "code": value, "display": _NAMES[value]}
        for value in sorted(found & build.dialect.modalities)
    ]


def _modality(series: Series) -> str:
    """Return Modality as a code, in the case of its Defined Term. Empty: it is missing or no code."""
    value = code(first(series.attributes, "Modality"))
    return value.upper() if value.upper() in _NAMES else value


def number(build: Build, attributes: Attributes, keyword: str, subject: str) -> int | None:
    """Return an unsignedInt of an IS attribute; a negative or textual one is a doubt."""
    value = attributes.get(keyword)
    made = unsigned(value)
    if made is None and value:
        build.doubts.add(subject, f"{keyword} is no unsignedInt, left out")
    return made


def availability(instances: list[Instance]) -> str:
    """Return the worst InstanceAvailability, ONLINE where none says otherwise. Empty: no instance."""
    if not instances:
        return ""
    worst = 0
    for instance in instances:
        said = instance.attributes.get("InstanceAvailability")
        if said and said in AVAILABILITIES:
            worst = max(worst, AVAILABILITIES.index(said))
    return AVAILABILITIES[worst]


def class_name(uid: str) -> str:
    """Return the name of a SOP Class (PS3.6 Annex A). Empty: not a standard one."""
    name = UID(uid, validation_mode=IGNORE).name
    return "" if name == uid else name


def titles() -> Callable[[Attributes], str]:
    """Return a function that gives an instance its title, remembering the ImageTypes that it saw.

    ContentLabel (PR), else the concept name's meaning (SR, KO), else DocumentTitle (documents), else
    ImageType (images), as the official maps have it.
    """
    seen: dict[Any, str] = {}

    def title(attributes: Attributes) -> str:
        for keyword in ("ContentLabel", "ConceptNameCodeSequence", "DocumentTitle"):
            if keyword in attributes:
                found = _document_title(attributes)
                if found:
                    return found
                break
        image_type = attributes.get("ImageType")
        if not image_type:
            return ""
        remembered = tuple(image_type) if isinstance(image_type, list) else image_type
        known = seen.get(remembered)
        if known is None:
            known = seen[remembered] = attribute_text(image_type)
        return known

    return title


def _document_title(attributes: Attributes) -> str:
    concepts = items(attributes, "ConceptNameCodeSequence")
    meaning = first(concepts[0], "CodeMeaning") if concepts else ""
    return first(attributes, "ContentLabel") or meaning or clean(first(attributes, "DocumentTitle"))
