"""The elements of a series and of its instances that all versions share."""

from collections.abc import Callable, Iterator
from typing import Any

from pydicom.config import IGNORE
from pydicom.uid import UID

from index.imagingstudy.context import BuildContext, attribute_text
from index.imagingstudy.values import clean, first, items, unsigned
from index.records import Attributes, Instance, Series

AVAILABILITIES = ("ONLINE", "NEARLINE", "OFFLINE", "UNAVAILABLE")
"""InstanceAvailability (0008,0056), best first; a group is as available as the worst in it."""


def number(context: BuildContext, series: Series) -> int | None:
    """Return SeriesNumber (0020,0011). One that is not an unsignedInt is an issue."""
    return _unsigned(context, series.attributes, "SeriesNumber", series)


def description(context: BuildContext, series: Series) -> str:
    """Return SeriesDescription (0008,103E)."""
    return context.text(series.attributes, "SeriesDescription", f"series {series.uid}")


def started(context: BuildContext, series: Series) -> str:
    """Return SeriesDate (0008,0021) and SeriesTime (0008,0031) as a dateTime."""
    return context.moment(series.attributes, "SeriesDate", "SeriesTime", f"series {series.uid}")


def availability(instances: list[Instance]) -> str:
    """Return the worst InstanceAvailability, ONLINE where no instance has one. Empty: no instance."""
    if not instances:
        return ""
    worst = 0
    for instance in instances:
        value = instance.attributes.get("InstanceAvailability")
        if value and value in AVAILABILITIES:
            worst = max(worst, AVAILABILITIES.index(value))
    return AVAILABILITIES[worst]


def instances(
    context: BuildContext,
    series: Series,
    sop_class: Callable[[str], dict[str, Any]],
    is_uid: Callable[[str], bool],
    reason: str,
) -> Iterator[tuple[Instance, dict[str, Any], int | None, str]]:
    """Yield each instance with its SOP Class element, its number and its title.

    `sop_class` makes the element of a SOP Class UID, empty where the version cannot hold that. An instance
    whose UID is not `is_uid` is left out, for `reason`.
    """
    title = titles()
    classes: dict[str, dict[str, Any]] = {}
    for instance in series.instances:
        if not is_uid(instance.uid):
            context.issues.add(f"instance {instance.uid}", reason)
            continue
        element = classes.get(instance.sop_class_uid)
        if element is None:
            element = classes[instance.sop_class_uid] = sop_class(instance.sop_class_uid)
        if not element:
            context.issues.add(f"instance {instance.uid}", "SOP Class UID is no valid urn:oid, left out")
            continue
        instance_number = _unsigned(context, instance.attributes, "InstanceNumber", series)
        yield instance, element, instance_number, title(instance.attributes)


def _unsigned(context: BuildContext, attributes: Attributes, keyword: str, series: Series) -> int | None:
    value = attributes.get(keyword)
    integer = unsigned(value)
    if integer is None and value:
        context.issues.add(f"series {series.uid}", f"{keyword} is no unsignedInt, left out")
    return integer


def class_name(uid: str) -> str:
    """Return the name of a SOP Class (PS3.6 Annex A). Empty: it is not a standard one."""
    name = UID(uid, validation_mode=IGNORE).name
    return "" if name == uid else name


def titles() -> Callable[[Attributes], str]:
    """Return a function that gives an instance its title, and remembers the ImageTypes that it has met.

    ContentLabel (PR), else the concept name's meaning (SR, KO), else DocumentTitle (documents), else
    ImageType (images), as in the official maps.
    """
    image_types: dict[Any, str] = {}

    def title(attributes: Attributes) -> str:
        is_document = "ContentLabel" in attributes or "ConceptNameCodeSequence" in attributes
        if (is_document or "DocumentTitle" in attributes) and (text := _document_title(attributes)):
            return text
        image_type = attributes.get("ImageType")
        if not image_type:
            return ""
        key = tuple(image_type) if isinstance(image_type, list) else image_type
        known = image_types.get(key)
        if known is None:
            known = image_types[key] = attribute_text(image_type)
        return known

    return title


def _document_title(attributes: Attributes) -> str:
    concepts = items(attributes, "ConceptNameCodeSequence")
    meaning = first(concepts[0], "CodeMeaning") if concepts else ""
    return first(attributes, "ContentLabel") or meaning or clean(first(attributes, "DocumentTitle"))
