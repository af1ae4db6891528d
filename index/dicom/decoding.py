"""From the bytes of kept elements to a Header: text decoded, padding trimmed, what is odd said as a doubt."""

import re
from typing import Any

import orjson

from index.dicom.attributes import (
    ANATOMIC_REGION,
    FRAME_ANATOMY,
    FRAME_LATERALITY,
    LEVELS,
    SERIES_INSTANCE_UID,
    SHARED_GROUPS,
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    SPECIFIC_CHARACTER_SET,
    STUDY_INSTANCE_UID,
    WANTED,
    Attribute,
    Kind,
)
from index.dicom.charsets import (
    DEFAULT,
    ESC,
    NAME_DELIMITERS,
    TEXT_DELIMITERS,
    Repertoire,
    decode,
    repertoire,
)
from index.dicom.scanning.scanner import Issues, Raw
from index.records import Header

_PADDING = b" \0"
_COMPONENT_GROUPS = 3  # alphabetic, ideographic, phonetic (PS3.5 Section 6.2.1.1)
_NUMBER_SIZES = (2, 4)  # bytes of US and SS, UL and SL
# C0 and C1 controls, and what neither JSON readers nor XML take; several-line text keeps \t and \n.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
_CONTROLS_OF_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
_LINE_END = re.compile("\r\n?|\x0c")
_SINGLE = (Kind.CODE, Kind.NAME)  # where a second value can be told from a stray backslash


# What differs between the instances of a series.
_OF_INSTANCE = frozenset(tag for tag, one in WANTED.items() if one.levels == ("instance",)) | {
    SOP_CLASS_UID.tag,
    SOP_INSTANCE_UID.tag,
}

# Where a single-frame image has what FrameAnatomySequence says.
_OF_IMAGE = {ANATOMIC_REGION.keyword: "AnatomicRegionSequence", FRAME_LATERALITY.keyword: "ImageLaterality"}

Levels = dict[str, dict[str, Any]]


class _Describer:
    """Turns raw values into attributes, in the byte order of one data set, and collects doubts."""

    def __init__(self, *, little: bool, doubts: Issues) -> None:
        self._order: Any = "little" if little else "big"
        self._doubts = doubts

    def doubt(self, doubts: Issues) -> None:
        """Add doubts."""
        self._doubts.update(doubts)

    def repertoire(self, raw: Raw, inherited: Repertoire) -> Repertoire:
        """Tell the character set of a data set or item (PS3.5 Section 7.5.3)."""
        value = raw.get(SPECIFIC_CHARACTER_SET.tag)
        if value is None:
            return inherited
        declared = repertoire(value)
        self._doubts.update(dict.fromkeys(declared.doubts))
        return declared

    def value(self, attribute: Attribute, value: Any, charset: Repertoire) -> Any:
        """Decode the value of one attribute; "" or [] where it is absent."""
        if attribute.plain and value.isascii():  # nearly all values, so first and short
            text = value.decode("ascii").strip(" \0")
            if text.isprintable() and "\\" not in text:
                return text
        kind = attribute.kind
        if kind is Kind.SEQUENCE:
            return self._items(attribute, value, charset)
        if kind is Kind.NUMBER:
            return self._number(attribute, value)
        value = value.rstrip(_PADDING) if kind is Kind.LONG else value.strip(_PADDING)
        if kind is Kind.UID or not value:
            return value.decode("latin_1")
        text = self._text(attribute, value, charset)
        if attribute.many:
            return [one for one in (self._one(attribute, part) for part in text.split("\\")) if one]
        if "\\" in text and kind in _SINGLE:
            self._doubts[f"{attribute.keyword} has several values; the first is kept"] = None
            text = text.split("\\", 1)[0]
        return self._one(attribute, text)

    def _text(self, attribute: Attribute, value: bytes, charset: Repertoire) -> str:
        if value.isascii() and ESC not in value:
            text = value.decode("ascii")
        else:
            name = attribute.kind is Kind.NAME
            known = DEFAULT if attribute.kind is Kind.CODE else charset
            text, good = decode(value, known, NAME_DELIMITERS if name else TEXT_DELIMITERS)
            if not good:
                self._doubts[f"{attribute.keyword} has characters outside its character set"] = None
        return text if text.isprintable() else self._printable(attribute, text)

    def _printable(self, attribute: Attribute, text: str) -> str:
        controls = _CONTROLS
        if attribute.kind is Kind.LONG:
            text = _LINE_END.sub("\n", text)
            controls = _CONTROLS_OF_LINES
        text, removed = controls.subn("", text)
        if removed:
            self._doubts[f"{attribute.keyword} has control characters; they are left out"] = None
        return text

    def _one(self, attribute: Attribute, text: str) -> str:
        """Trim one value."""
        if attribute.kind is Kind.NAME:
            groups = [group.strip(" ").rstrip("^ ") for group in text.split("=")]
            return "=".join(groups[:_COMPONENT_GROUPS]).rstrip("=")
        return text.rstrip() if attribute.kind is Kind.LONG else text.strip(" ")

    def _number(self, attribute: Attribute, value: bytes) -> str:
        if value and len(value) not in _NUMBER_SIZES:
            self._doubts[f"{attribute.keyword} is left out: it is no single integer"] = None
            return ""
        return str(int.from_bytes(value, self._order)) if value else ""

    def _items(self, attribute: Attribute, items: list[Raw], inherited: Repertoire) -> list[dict[str, Any]]:
        described = []
        for raw in items:
            charset = self.repertoire(raw, inherited)
            found = {
                child.keyword: value
                for tag, child in attribute.items.items()
                if tag in raw and child is not SPECIFIC_CHARACTER_SET
                if (value := self.value(child, raw[tag], charset))
            }
            if found:
                described.append(found)
        return described


def _add_frame_anatomy(raw: Raw, series: dict[str, Any], describer: _Describer, charset: Repertoire) -> None:
    """Take what the frames say of their anatomy (PS3.3 Section C.7.6.16.2.8).

    What all of them say stands where a single-frame image has it, unless that says another thing already.
    """
    said = {}
    for group in raw[SHARED_GROUPS.tag]:
        inner = describer.repertoire(group, charset)
        for anatomy in describer.value(FRAME_ANATOMY, group.get(FRAME_ANATOMY.tag, []), inner):
            said[orjson.dumps(anatomy, option=orjson.OPT_SORT_KEYS)] = anatomy
    anatomies = [said[text] for text in sorted(said)]
    if len(anatomies) == 1:
        alike = {_OF_IMAGE[keyword]: value for keyword, value in anatomies[0].items()}
        if all(series.get(keyword, value) == value for keyword, value in alike.items()):
            series |= alike
            return
    if anatomies:
        series[FRAME_ANATOMY.keyword] = anatomies


class Descriptions:
    """What the last data set said of its patient, study and series: the next of a series says the same."""

    def __init__(self) -> None:
        self._raw: Raw | None = None
        self._little = True
        self._levels: dict[str, dict[str, Any]] = {}

    def levels(self, raw: Raw, describer: _Describer, charset: Repertoire, little: bool) -> Levels:  # noqa: FBT001
        """Return the attributes of each level but the instance's; equal ones are the same mappings."""
        shared = {tag: value for tag, value in raw.items() if tag not in _OF_INSTANCE}
        if shared == self._raw and little is self._little:
            return self._levels
        doubts: Issues = {}
        levels = _levels(shared, _Describer(little=little, doubts=doubts), charset)
        describer.doubt(doubts)
        self._raw, self._little, self._levels = None if doubts else shared, little, levels
        return levels


def _levels(raw: Raw, describer: _Describer, charset: Repertoire) -> Levels:
    levels: Levels = {level: {} for level in LEVELS}
    for tag, value in raw.items():
        attribute = WANTED[tag]
        if attribute.levels and (text := describer.value(attribute, value, charset)):
            for level in attribute.levels:
                levels[level][attribute.keyword] = text
    if SHARED_GROUPS.tag in raw:
        _add_frame_anatomy(raw, levels["series"], describer, charset)
    return levels


def describe(raw: Raw, doubts: Issues, *, little: bool, before: Descriptions | None = None) -> Header:
    """Make the Header of what was collected from a data set in this byte order. `doubts` come first in it.

    `before` remembers what was described before.
    """
    describer = _Describer(little=little, doubts=doubts)
    charset = describer.repertoire(raw, DEFAULT)
    levels = (before or Descriptions()).levels(raw, describer, charset, little)
    own = {tag: value for tag, value in raw.items() if tag in _OF_INSTANCE}
    sop_class, instance, study, series = (
        raw.get(uid.tag, b"").strip(_PADDING).decode("latin_1")
        for uid in (SOP_CLASS_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, SERIES_INSTANCE_UID)
    )
    return Header(
        sop_class,
        instance,
        study,
        series,
        levels["patient"],
        levels["study"],
        levels["series"],
        _levels(own, describer, charset)["instance"],
        tuple(doubts),
    )
