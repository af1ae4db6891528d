"""The identifier of a query, and the identifiers that answer it (PS3.4 Sections C.4.1.1.3 and K.4.1.1.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from index.dicom.value_rules import cut_off, has_valid_code, is_single, tag_and_vr, valid_values
from index.query.charsets import UTF_8, charset_for
from index.query.keys import Key
from index.query.value_matching import BadIdentifier
from index.records import Attributes

# PS3.4 Table K.6-1 nests three deep; a deeper identifier is an attack or a fault.
MAX_DEPTH = 8
# The answer has its own character set, and no time zone.
_NO_KEYS = frozenset(("SpecificCharacterSet", "TimezoneOffsetFromUTC"))
_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"))
_INTEGERS = frozenset(("SL", "SS", "UL", "US", "SV", "UV"))
_FLOATS = frozenset(("FD", "FL"))
# These have one value, in which a backslash is text (PS3.5 Section 6.2).
_SINGLE_TEXTS = frozenset(("LT", "ST", "UR", "UT"))

Identifier = dict[str, Any]
"""A text, a list of texts or a list of items by keyword; private attributes stand under their tag."""
Keys = Mapping[str, Key]


def read_identifier(dataset: Dataset, depth: int = 0) -> Identifier:
    """Return the identifier in a data set; keys without a value are empty texts.

    Raises BadIdentifier where it cannot be read.
    """
    if depth > MAX_DEPTH:
        raise BadIdentifier("identifier", f"nested more than {MAX_DEPTH} deep")
    if not depth and (name := cut_off(dataset)):
        raise BadIdentifier(name, "ends within its value")
    identifier: Identifier = {}
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception as error:  # pydicom raises many kinds of error for damaged bytes
            raise BadIdentifier(str(tag), "cannot be read") from error
        if tag.element == 0 or element.keyword in _NO_KEYS:
            continue
        name, value = element.keyword or str(tag), element.value
        if element.VR == "SQ":
            identifier[name] = [read_identifier(item, depth + 1) for item in value or ()]
        elif element.VR in _BINARY or value is None:
            identifier[name] = ""
        else:
            is_list = not isinstance(value, str) and hasattr(value, "__iter__") and element.VR != "PN"
            identifier[name] = [str(one) for one in value] if is_list or element.VM > 1 else str(value)
    return identifier


def unsupported(identifier: Identifier, keys: Keys) -> list[str]:
    """Return the names in an identifier that are not in `keys`: they are not matched."""
    found = []
    for keyword, value in identifier.items():
        key = keys.get(keyword)
        if key is None:
            found.append(keyword)
        elif key.vr == "SQ" and isinstance(value, list):
            found += [f"{keyword}.{name}" for item in value for name in unsupported(item, key.items)]
    return found


def answer(identifier: Identifier, item: Attributes, charset: str, keys: Keys) -> Dataset:
    """Return the attributes of an item that are asked for, in `charset` or, where that is not enough, UTF-8.

    Attributes without a value are empty. Attributes that neither `keys` nor the item has are left out.
    """
    dataset = _requested(identifier, item, keys)
    chosen = charset_for(dataset, (charset, UTF_8))
    if chosen:
        dataset.SpecificCharacterSet = chosen
    return dataset


def _requested(identifier: Identifier, item: Attributes, keys: Keys) -> Dataset:
    dataset = Dataset()
    for keyword, asked in identifier.items():
        key, value = keys.get(keyword), item.get(keyword)
        if key is None and value is None:
            continue
        tag, vr = (key.tag, key.vr) if key else tag_and_vr(keyword)
        if vr != "SQ":
            content = _value(keyword, vr, value)
        elif isinstance(asked, list) and asked and asked[0]:
            keys_of_items = key.items if key else {}
            content = Items([_requested(asked[0], one, keys_of_items) for one in _valid_items(value)])
        else:
            content = _all_items(value)
        dataset.add(DataElement(tag, vr, content))
    return dataset


def _valid_items(value: Any) -> list[Attributes]:
    return [item for item in value or () if has_valid_code(item)]


def _all_items(value: Any) -> Items:
    """Return items with all their attributes: the answer to a sequence that is asked for without keys."""
    return Items([_all_attributes(item) for item in _valid_items(value)])


def _all_attributes(item: Attributes) -> Dataset:
    dataset = Dataset()
    for keyword, value in item.items():
        try:
            tag, vr = tag_and_vr(keyword)
        except KeyError:
            continue
        dataset.add(DataElement(tag, vr, _all_items(value) if vr == "SQ" else _value(keyword, vr, value)))
    return dataset


def _value(keyword: str, vr: str, value: Any) -> Any:
    """Return a value as pydicom takes it, without what its VR does not allow."""
    values = valid_values(keyword, value)
    try:
        if vr in _INTEGERS:
            numbers: Sequence[Any] = [int(text) for text in values]
        elif vr in _FLOATS:
            numbers = [float(text) for text in values]
        else:
            return _text(keyword, vr, values)
    except ValueError:
        return None
    return numbers[0] if len(numbers) == 1 else list(numbers) or None


def _text(keyword: str, vr: str, values: Sequence[str]) -> Any:
    if vr in _BINARY or not values:
        return None
    is_one = len(values) == 1 or vr in _SINGLE_TEXTS or is_single(keyword)
    return values[0] if is_one else list(values)
