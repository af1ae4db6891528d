"""A query's identifier as it came, and the answers to it (PS3.4 Section K.4.1.1.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items

from index.dicom.value_rules import has_valid_code, is_single, tag_and_vr, valid_values
from index.query.charsets import UTF_8, charset_for
from index.query.keys import KEYS, Key
from index.query.matching import BadIdentifier
from index.records import Attributes

# Table K.6-1 nests three deep; an identifier that goes on for longer means no good.
MAX_DEPTH = 8
# Said by the answer itself, or of no meaning in it.
_OWN = frozenset(("SpecificCharacterSet", "TimezoneOffsetFromUTC"))
_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"))
_INTEGERS = frozenset(("SL", "SS", "UL", "US", "SV", "UV"))
_FLOATS = frozenset(("FD", "FL"))
# One value, whatever it contains: the backslash is text (PS3.5 Section 6.2).
_ONE_VALUE = frozenset(("LT", "ST", "UR", "UT"))

Tree = dict[str, Any]


def tree_of(dataset: Dataset, depth: int = 0) -> Tree:
    """Return an identifier by keyword, keys without a value as empty texts, private ones by their tag.

    Raises BadIdentifier where it cannot be read.
    """
    if depth > MAX_DEPTH:
        raise BadIdentifier("identifier", f"nested more than {MAX_DEPTH} deep")
    tree: Tree = {}
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception as error:  # pydicom raises whatever the bytes bring up
            raise BadIdentifier(str(tag), "cannot be read") from error
        if tag.element == 0 or element.keyword in _OWN:
            continue
        name = element.keyword or str(tag)
        if element.VR == "SQ":
            tree[name] = [tree_of(item, depth + 1) for item in element.value or ()]
        elif element.VR in _BINARY or element.value is None:
            tree[name] = ""
        else:
            value = element.value
            many = not isinstance(value, str) and hasattr(value, "__iter__") and element.VR != "PN"
            tree[name] = [str(one) for one in value] if many or element.VM > 1 else str(value)
    return tree


def unsupported(tree: Tree, keys: Mapping[str, Key] = KEYS) -> list[str]:
    """Return the keys that Table K.6-1 does not name: they are not matched."""
    found = []
    for keyword, value in tree.items():
        key = keys.get(keyword)
        if key is None:
            found.append(keyword)
        elif key.vr == "SQ" and isinstance(value, list):
            found += [f"{keyword}.{below}" for item in value for below in unsupported(item, key.items)]
    return found


def answer(tree: Tree, item: Attributes, charset: str) -> Dataset:
    """Return an item as far as it was asked for, in `charset` or, where that cannot hold it, in UTF-8.

    Keys without a value come empty; keys that neither the table nor the item knows do not come.
    """
    dataset = _asked(tree, item, KEYS)
    chosen = charset_for(dataset, (charset, UTF_8))
    if chosen:
        dataset.SpecificCharacterSet = chosen
    return dataset


def _asked(tree: Tree, item: Attributes, keys: Mapping[str, Key]) -> Dataset:
    made = Dataset()
    for keyword, wanted in tree.items():
        key, value = keys.get(keyword), item.get(keyword)
        if key is None and value is None:
            continue
        tag, vr = (key.tag, key.vr) if key else tag_and_vr(keyword)
        if vr != "SQ":
            content = _value(keyword, vr, value)
        elif isinstance(wanted, list) and wanted and wanted[0]:
            below = key.items if key else {}
            content = Items([_asked(wanted[0], one, below) for one in value or () if has_valid_code(one)])
        else:
            content = Items([_whole(one) for one in value or () if has_valid_code(one)])
        made.add(DataElement(tag, vr, content))
    return made


def _whole(item: Attributes) -> Dataset:
    """Return an item with all that it has: its sequence was asked for without keys."""
    made = Dataset()
    for keyword, value in item.items():
        try:
            tag, vr = tag_and_vr(keyword)
        except KeyError:
            continue
        items = (value or ()) if vr == "SQ" else ()
        whole = Items([_whole(one) for one in items if has_valid_code(one)])
        content = whole if vr == "SQ" else _value(keyword, vr, value)
        made.add(DataElement(tag, vr, content))
    return made


def _value(keyword: str, vr: str, value: Any) -> Any:
    """Return a value as pydicom takes it; what its VR cannot hold is left out."""
    several = valid_values(keyword, value)
    try:
        if vr in _INTEGERS:
            numbers: Sequence[Any] = [int(text) for text in several]
        elif vr in _FLOATS:
            numbers = [float(text) for text in several]
        else:
            return _text(keyword, vr, several)
    except ValueError:
        return None
    return numbers[0] if len(numbers) == 1 else list(numbers) or None


def _text(keyword: str, vr: str, several: Sequence[str]) -> Any:
    if vr in _BINARY or not several:
        return None
    if vr in _ONE_VALUE or is_single(keyword):
        return several[0]
    return several[0] if len(several) == 1 else list(several)
