"""Make the values of orders valid for their VR (PS3.5 Table 6.2-1), or leave them out.

Orders are kept as received. Values that are sent to a scanner or matched are made valid: text is corrected;
an invalid identifier, code, title, date or number is left out, since a part of it would name another thing.
"""

import datetime as dt
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from itertools import zip_longest
from struct import Struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset
    from pydicom.tag import BaseTag

from index.dicom.uids import UID

# Half a surrogate pair is not a character.
_CONTROL = r"\0-\x1f\x7f-\x9f\ud800-\udfff"
# Text of one line. The backslash separates values (PS3.5 Section 6.1.2.3).
_NO_LINE = re.compile(rf"[\\{_CONTROL}]+")
# Text of several lines has TAB, LF, FF and CR (PS3.5 Section 6.1.3).
_NO_LINES = re.compile(r"[\0-\x08\x0b\x0e-\x1f\x7f-\x9f\ud800-\udfff]+")
_LINE = ("LO", "PN", "SH", "UC")
_LINES = ("LT", "ST", "UT")
_LENGTHS = {"LO": 64, "LT": 10240, "SH": 16, "ST": 1024}
"""In characters, of VRs whose text may be shortened."""
# Of one component group, and how many groups and components a name has (PS3.5 Section 6.2.1).
_GROUP_LENGTH, _GROUPS, _COMPONENTS = 64, 3, 5
# Keywords whose values must not be shortened.
_IDENTIFIER = re.compile(r"(IDs?|Numbers?|CodeValue|Designator)$")
SEPARATORS = {"DA": ".", "TM": ":"}
"""Of ACR-NEMA, as in 2026.01.02 and 10:11:12."""


def _table(**patterns: str) -> dict[str, re.Pattern[str]]:
    return {vr: re.compile(pattern, re.ASCII) for vr, pattern in patterns.items()}


_ALLOWED = _table(
    AE=r"[ -\[\]-~]{1,16}",
    AS=r"\d{3}[DWMY]",
    CS=r"[A-Z0-9_ ]{1,16}",
    DA=r"\d{8}",
    DS=r"(?=.{1,16}$)[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?",
    DT=r"\d{4}(\d{2}){0,5}(\.\d{1,6})?([+-]\d{4})?",
    IS=r"(?=.{1,12}$)[+-]?\d+",
    LO=rf"[^\\{_CONTROL}]{{1,64}}",
    PN=rf"[^\\{_CONTROL}]+",
    SH=rf"[^\\{_CONTROL}]{{1,16}}",
    TM=r"([01]\d|2[0-3])([0-5]\d(([0-5]\d|60)(\.\d{1,6})?)?)?",
    UC=rf"[^\\{_CONTROL}]+",
    UI=UID.pattern,
    UR=r"[!-\[\]-~]+",
)


_UNDEFINED = 0xFFFFFFFF  # PS3.5 Section 7.1.1
# Sequences within sequences that are looked into: the readers of worklist items, keys and steps take no more.
_NESTING_LIMIT = 8


def cut_off(dataset: "Dataset", depth: int = 0) -> str:
    """Return the keyword of an element whose value does not fit its length; empty where all fit.

    Such a value ends too early, or has a part of the next item. pydicom takes it, but a part of an identifier
    names another thing. Sequences that pydicom cannot read are left to the caller.
    """
    from pydicom.datadict import keyword_for_tag
    from pydicom.dataelem import RawDataElement

    for tag in dataset.keys():  # noqa: SIM118  items would be decoded
        # An element without a value counts as deferred, and would be decoded too: that fails for unknown VRs.
        element: Any = dataset.get_item(tag, keep_deferred=True)
        if isinstance(element, RawDataElement):
            items = _items(element)
            if element.length not in (_UNDEFINED, len(element.value or b"")) or not _fit(items, element):
                return keyword_for_tag(tag) or str(tag)
        else:
            items = element.value or () if element.VR == "SQ" else ()
        if depth < _NESTING_LIMIT:
            for item in items:
                if name := cut_off(item, depth + 1):
                    return name
    return ""


def _items(element: "RawDataElement") -> "Iterable[Dataset]":
    """Return the items of an element of defined length; none where pydicom does not read any.

    The element stays as it is: one that pydicom failed to decode would be another at the next access.
    """
    from pydicom.datadict import dictionary_has_tag, dictionary_VR
    from pydicom.values import convert_SQ

    tag, vr, value = element.tag, element.VR, element.value or b""
    if vr in (None, "UN") and dictionary_has_tag(tag):
        vr = dictionary_VR(tag)
    if vr != "SQ":
        return ()
    try:
        return convert_SQ(value, element.is_implicit_VR, element.is_little_endian, offset=element.value_tell)
    except Exception:  # noqa: BLE001  pydicom raises many kinds of error for damaged bytes
        return ()


def _fit(items: "Iterable[Dataset]", sequence: "RawDataElement") -> bool:
    """Whether each item of defined length ends where the next one begins, the last within the sequence."""
    value = sequence.value or b""
    to_number = Struct("<I" if sequence.is_little_endian else ">I").unpack_from
    starts = [item.seq_item_tell - sequence.value_tell for item in items]
    for start, end in zip_longest(starts, starts[1:]):
        (length,) = to_number(value, start + 4)
        behind = start + 8 + length
        if length != _UNDEFINED and (behind > len(value) if end is None else behind != end):
            return False
    return True


@cache
def tag_and_vr(keyword: str) -> tuple["BaseTag", str]:
    """Return tag and VR of a keyword of PS3.6. Raises KeyError."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.tag import Tag

    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return Tag(tag), dictionary_VR(tag)


@cache
def is_single(keyword: str) -> bool:
    """Whether a keyword of PS3.6 has one value."""
    from pydicom.datadict import dictionary_VM

    return dictionary_VM(keyword) == "1"


def texts(value: Any) -> list[str]:
    """Return the values of an attribute as texts, empty ones left out."""
    several = value if isinstance(value, list | tuple) else (value,)
    return [text for one in several if one is not None and (text := str(one).strip())]


def valid_values(keyword: str, value: Any) -> list[str]:
    """Return the values of an attribute, made valid for its VR; empty and invalid ones are left out."""
    return [made for one in texts(value) if (made := _valid(keyword, one))]


def stored_values(keyword: str, value: Any) -> list[str]:
    """Return the values of an attribute of instances. Text and codes are kept, however long they are.

    They are what a file has, and what it is looked for by. Of other VRs invalid values are left out.
    """
    vr = tag_and_vr(keyword)[1]
    if vr == "CS":
        return [text.upper() for text in texts(value)]
    return texts(value) if vr in _LINE or vr in _LINES else valid_values(keyword, value)


def valid_value(item: Mapping[str, Any], keyword: str) -> str:
    """Return the valid value of an attribute for a column; nothing where there are none or several."""
    values = valid_values(keyword, item.get(keyword))
    return values[0] if len(values) == 1 else ""


@lru_cache(maxsize=4096)  # worklist queries of a day ask for the same values
def _valid(keyword: str, text: str) -> str:
    vr = tag_and_vr(keyword)[1]
    made = text.strip("\0 ").replace(SEPARATORS.get(vr, "\0"), "")
    if vr == "CS":
        made = made.upper()
    elif vr in _LINES:
        made = _NO_LINES.sub(" ", made)[: _LENGTHS.get(vr)]
    elif vr in _LINE and not _IDENTIFIER.search(keyword):
        made = _NO_LINE.sub(" ", made)
        made = (_name(made) if vr == "PN" else made[: _LENGTHS.get(vr)]).strip()
    allowed = _ALLOWED.get(vr)
    fits = allowed is None or (allowed.fullmatch(made) and (vr != "DA" or _is_date(made)))
    return made if fits else ""


def _name(text: str) -> str:
    groups = []
    for group in text.split("=")[:_GROUPS]:
        parts = group.split("^")
        whole = [*parts[: _COMPONENTS - 1], " ".join(parts[_COMPONENTS - 1 :])]
        groups.append("^".join(whole[: len(parts)])[:_GROUP_LENGTH].rstrip())
    return "=".join(groups)


def _is_date(text: str) -> bool:
    try:
        dt.date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return False
    return True


def has_valid_code(item: Mapping[str, Any]) -> bool:
    """Whether the code of an item, if it has one, is valid."""
    names = ("CodeValue", "CodingSchemeDesignator")
    return all(valid_values(name, item[name]) for name in names if item.get(name))


def doubts(attributes: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Yield which attributes are sent changed or are left out, without their values."""
    for keyword, value in attributes.items():
        if value and isinstance(value, list) and isinstance(value[0], Mapping):
            for item in value:
                yield from doubts(item, f"{place}{keyword}.")
        elif (given := texts(value)) and (made := valid_values(keyword, value)) != given:
            what = "changed" if len(made) == len(given) else "left out"
            yield f"{place}{keyword}: {what}, no {tag_and_vr(keyword)[1]}"
