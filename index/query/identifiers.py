"""The identifier of a query, and the identifiers that answer it (PS3.4 Sections C.4.1.1.3 and K.4.1.1.3)."""

from collections.abc import Container, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydicom.config import IGNORE
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.tag import BaseTag, Tag

from index.dicom.value_rules import cut_off, has_valid_code, is_single, tag_and_vr, valid_values
from index.query.charsets import UTF_8, charset_for
from index.query.identifier_matching import Values
from index.query.keys import Key
from index.query.value_matching import BadIdentifier
from index.records import Attributes

# PS3.4 Table K.6-1 nests three deep; a deeper identifier is an attack or a fault.
MAX_DEPTH = 8
# A worklist's answer has its own character set, and no time zone.
_CHARSET = "SpecificCharacterSet"
_NO_KEYS = frozenset((_CHARSET, "TimezoneOffsetFromUTC"))
_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN", "AT"))
_INTEGERS = frozenset(("SL", "SS", "UL", "US", "SV", "UV"))
_FLOATS = frozenset(("FD", "FL"))
# These have one value, in which a backslash is text (PS3.5 Section 6.2).
_SINGLE_TEXTS = frozenset(("LT", "ST", "UR", "UT"))

Identifier = dict[str, Any]
"""A text, a list of texts or a list of items by keyword; private attributes stand under their tag."""
Keys = Mapping[str, Key]


def read_identifier(
    dataset: Dataset, depth: int = 0, *, no_keys: Container[str] = _NO_KEYS, has_charset: bool = False
) -> Identifier:
    """Return the identifier in a data set; keys without a value are empty texts. `no_keys` are left out.

    Texts that are not ASCII, though no character set is given, are taken for UTF-8 where they can be, as a
    terminal sends them; else for Latin-1, as pydicom reads them. Raises BadIdentifier.
    """
    if depth > MAX_DEPTH:
        raise BadIdentifier("identifier", f"nested more than {MAX_DEPTH} deep")
    if not depth and (name := cut_off(dataset)):
        raise BadIdentifier(name, "ends within its value")
    # That of an item is its own, or that of what it is in (PS3.5 Section 6.1.2.3).
    has_charset = has_charset or _CHARSET in dataset
    identifier: Identifier = {}
    for tag in sorted(dataset.keys()):
        try:
            element = dataset[tag]
        except Exception as error:  # pydicom raises many kinds of error for damaged bytes
            raise BadIdentifier(str(tag), "cannot be read") from error
        if tag.element == 0 or element.keyword in no_keys:
            continue
        name, value = element.keyword or str(tag), element.value
        if element.VR == "SQ":
            identifier[name] = [
                read_identifier(item, depth + 1, no_keys=no_keys, has_charset=has_charset)
                for item in value or ()
            ]
        elif element.VR in _BINARY or value is None:
            identifier[name] = ""
        else:
            is_list = not isinstance(value, str) and hasattr(value, "__iter__") and element.VR != "PN"
            texts = [str(one) for one in (value if is_list or element.VM > 1 else [value])]
            if not has_charset:
                texts = [_as_utf_8(text) for text in texts]
            identifier[name] = texts if is_list or element.VM > 1 else texts[0]
    return identifier


def _as_utf_8(text: str) -> str:
    """Return a text that was read as Latin-1 as UTF-8, where its bytes are that."""
    if text.isascii():
        return text
    try:
        return text.encode("latin_1").decode()
    except UnicodeError:
        return text


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


def answer(
    identifier: Identifier,
    item: Attributes,
    charset: str,
    keys: Keys,
    *,
    values: Values = valid_values,
    with_unsupported: bool = False,
) -> Dataset:
    """Return the attributes of an item that are asked for, in `charset` or, where that is not enough, UTF-8.

    Attributes without a value are empty. Attributes that neither `keys` nor the item has are left out, or
    empty too: `with_unsupported`. `values` returns the values of an item's attribute.
    """
    dataset = _requested(identifier, item, keys, values)
    if with_unsupported:
        for name in identifier.keys() - keys.keys():
            dataset.add(_empty(name))
    chosen = charset_for(dataset, (charset, UTF_8))
    if chosen:
        dataset.SpecificCharacterSet = chosen
    return dataset


def _requested(identifier: Identifier, item: Attributes, keys: Keys, values: Values) -> Dataset:
    dataset = Dataset()
    for keyword, asked in identifier.items():
        key, value = keys.get(keyword), item.get(keyword)
        if key is None and value is None:
            continue
        tag, vr = (key.tag, key.vr) if key else tag_and_vr(keyword)
        if vr != "SQ":
            content = _value(keyword, vr, value, values)
        elif isinstance(asked, list) and asked and asked[0]:
            keys_of_items = key.items if key else {}
            content = Items([_requested(asked[0], one, keys_of_items, values) for one in _valid_items(value)])
        else:
            content = _all_items(value, values)
        # What is sent is what is there; pydicom would warn of a text that is too long.
        dataset.add(DataElement(tag, vr, content, validation_mode=IGNORE))
    return dataset


def _empty(name: str) -> DataElement:
    """Return an attribute without a value, by its keyword or, where it has none, its tag."""
    tag, vr = _tag_and_one_vr(name)
    return DataElement(tag, vr, None if vr != "SQ" else Items())


@lru_cache(maxsize=1024)  # made-up tags must not fill memory
def _tag_and_one_vr(name: str) -> tuple[BaseTag, str]:
    try:
        tag, vr = tag_and_vr(name)
    except KeyError:
        return Tag(name.strip("()").replace(",", "")), "UN"
    return tag, vr.split(" ")[0]  # the dictionary has "US or SS": without a value either will do


def _valid_items(value: Any) -> list[Attributes]:
    return [item for item in value or () if has_valid_code(item)]


def _all_items(value: Any, values: Values) -> Items:
    """Return items with all their attributes: the answer to a sequence that is asked for without keys."""
    return Items([_all_attributes(item, values) for item in _valid_items(value)])


def _all_attributes(item: Attributes, values: Values) -> Dataset:
    dataset = Dataset()
    for keyword, value in item.items():
        try:
            tag, vr = tag_and_vr(keyword)
        except KeyError:
            continue
        dataset.add(
            DataElement(
                tag, vr, _all_items(value, values) if vr == "SQ" else _value(keyword, vr, value, values)
            )
        )
    return dataset


def _value(keyword: str, vr: str, value: Any, values: Values) -> Any:
    """Return a value as pydicom takes it, without what its VR does not allow."""
    found = values(keyword, value)
    try:
        if vr in _INTEGERS:
            numbers: Sequence[Any] = [int(text) for text in found]
        elif vr in _FLOATS:
            numbers = [float(text) for text in found]
        else:
            return _text(keyword, vr, found)
    except ValueError:
        return None
    return numbers[0] if len(numbers) == 1 else list(numbers) or None


def _text(keyword: str, vr: str, values: Sequence[str]) -> Any:
    if vr in _BINARY or not values:
        return None
    is_one = len(values) == 1 or vr in _SINGLE_TEXTS or is_single(keyword)
    return values[0] if is_one else list(values)
