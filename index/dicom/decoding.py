"""Make a Header from the bytes of the kept elements: decode text, trim padding, record doubts."""

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
from index.dicom.scanning.encodings import Doubts, Raw
from index.records import Header

_PADDING = b" \0"
_COMPONENT_GROUPS = 3  # alphabetic, ideographic, phonetic (PS3.5 Section 6.2.1.1)
_NUMBER_SIZES = (2, 4)  # bytes of US and SS, UL and SL
# C0 and C1 controls, and what neither JSON readers nor XML take; several-line text keeps \t and \n.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
_CONTROLS_OF_LINES = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufffe\uffff\ud800-\udfff]")
_LINE_END = re.compile("\r\n?|\x0c")
_SINGLE = (Kind.CODE, Kind.NAME)  # kinds in which a backslash always separates values

# Attributes that differ between the instances of a series.
_OF_INSTANCE = frozenset(tag for tag, one in WANTED.items() if one.levels == ("instance",)) | {
    SOP_CLASS_UID.tag,
    SOP_INSTANCE_UID.tag,
}

# Where a single-frame image has the attributes of FrameAnatomySequence.
_OF_IMAGE = {ANATOMIC_REGION.keyword: "AnatomicRegionSequence", FRAME_LATERALITY.keyword: "ImageLaterality"}

Levels = dict[str, dict[str, Any]]


class _Decoder:
    """Decodes values in the byte order of one data set, and collects doubts."""

    def __init__(self, *, little: bool, doubts: Doubts) -> None:
        self._order: Any = "little" if little else "big"
        self.doubts = doubts

    def repertoire(self, raw: Raw, inherited: Repertoire) -> Repertoire:
        """Return the character set of a data set or item (PS3.5 Section 7.5.3)."""
        value = raw.get(SPECIFIC_CHARACTER_SET.tag)
        if value is None:
            return inherited
        declared = repertoire(value)
        self.doubts.update(dict.fromkeys(declared.doubts))
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
            self.doubts[f"{attribute.keyword} has several values; the first is kept"] = None
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
                self.doubts[f"{attribute.keyword} has characters outside its character set"] = None
        return text if text.isprintable() else self._printable(attribute, text)

    def _printable(self, attribute: Attribute, text: str) -> str:
        controls = _CONTROLS
        if attribute.kind is Kind.LONG:
            text = _LINE_END.sub("\n", text)
            controls = _CONTROLS_OF_LINES
        text, removed = controls.subn("", text)
        if removed:
            self.doubts[f"{attribute.keyword} has control characters; they are left out"] = None
        return text

    def _one(self, attribute: Attribute, text: str) -> str:
        """Trim one value."""
        if attribute.kind is Kind.NAME:
            groups = [group.strip(" ").rstrip("^ ") for group in text.split("=")]
            return "=".join(groups[:_COMPONENT_GROUPS]).rstrip("=")
        return text.rstrip() if attribute.kind is Kind.LONG else text.strip(" ")

    def _number(self, attribute: Attribute, value: bytes) -> str:
        if value and len(value) not in _NUMBER_SIZES:
            self.doubts[f"{attribute.keyword} is left out: it is no single integer"] = None
            return ""
        return str(int.from_bytes(value, self._order)) if value else ""

    def _items(self, attribute: Attribute, items: list[Raw], inherited: Repertoire) -> list[dict[str, Any]]:
        decoded = []
        for raw in items:
            charset = self.repertoire(raw, inherited)
            found = {
                child.keyword: value
                for tag, child in attribute.items.items()
                if tag in raw and child is not SPECIFIC_CHARACTER_SET
                if (value := self.value(child, raw[tag], charset))
            }
            if found:
                decoded.append(found)
        return decoded


def _add_frame_anatomy(raw: Raw, series: dict[str, Any], decoder: _Decoder, charset: Repertoire) -> None:
    """Add the anatomy of the frames to the series (PS3.3 Section C.7.6.16.2.8).

    An anatomy of all frames becomes the attributes of a single-frame image, unless these have other values.
    """
    distinct = {}
    for group in raw[SHARED_GROUPS.tag]:
        inner = decoder.repertoire(group, charset)
        for anatomy in decoder.value(FRAME_ANATOMY, group.get(FRAME_ANATOMY.tag, []), inner):
            distinct[orjson.dumps(anatomy, option=orjson.OPT_SORT_KEYS)] = anatomy
    anatomies = [distinct[text] for text in sorted(distinct)]
    if len(anatomies) == 1:
        of_image = {_OF_IMAGE[keyword]: value for keyword, value in anatomies[0].items()}
        if all(series.get(keyword, value) == value for keyword, value in of_image.items()):
            series |= of_image
            return
    if anatomies:
        series[FRAME_ANATOMY.keyword] = anatomies


class LevelsCache:
    """Patient, study and series of the last data set: the next one of a series has the same."""

    def __init__(self) -> None:
        self._raw: Raw | None = None
        self._little = True
        self._levels: dict[str, dict[str, Any]] = {}

    def levels(self, raw: Raw, decoder: _Decoder, charset: Repertoire, little: bool) -> Levels:  # noqa: FBT001
        """Return the attributes of each level but the instance's; equal ones are the same mappings."""
        shared = {tag: value for tag, value in raw.items() if tag not in _OF_INSTANCE}
        if shared == self._raw and little is self._little:
            return self._levels
        doubts: Doubts = {}
        levels = _levels(shared, _Decoder(little=little, doubts=doubts), charset)
        decoder.doubts.update(doubts)
        self._raw, self._little, self._levels = None if doubts else shared, little, levels
        return levels


def _levels(raw: Raw, decoder: _Decoder, charset: Repertoire) -> Levels:
    levels: Levels = {level: {} for level in LEVELS}
    for tag, value in raw.items():
        attribute = WANTED[tag]
        if attribute.levels and (text := decoder.value(attribute, value, charset)):
            for level in attribute.levels:
                levels[level][attribute.keyword] = text
    if SHARED_GROUPS.tag in raw:
        _add_frame_anatomy(raw, levels["series"], decoder, charset)
    return levels


def decode_header(raw: Raw, doubts: Doubts, *, little: bool, cache: LevelsCache) -> Header:
    """Make the Header of a data set in this byte order. The given doubts come first in it."""
    decoder = _Decoder(little=little, doubts=doubts)
    charset = decoder.repertoire(raw, DEFAULT)
    levels = cache.levels(raw, decoder, charset, little)
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
        _levels(own, decoder, charset)["instance"],
        tuple(doubts),
    )
