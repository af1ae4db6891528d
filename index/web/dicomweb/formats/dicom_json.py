"""The DICOM JSON Model (PS3.18 Annex F), from data sets of pydicom.

Elements that pydicom has not decoded are encoded from their bytes: a study's metadata has a hundred thousand.
"""

import base64
import math
import struct
from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as Items

from index.dicom.charsets import DEFAULT, NAME_DELIMITERS, TEXT_DELIMITERS, Repertoire, decode, repertoire
from index.dicom.transcoding import vr_of

Model = dict[str, Any]
"""A data set in the DICOM JSON Model."""
Path = tuple[int | str, ...]
"""Where an element stands: tags, and between them the numbers of items."""
Bulk = Callable[[Path], str]
"""Returns the BulkDataURI of an element."""

# Binary values that are longer are bulk data, in bytes.
INLINE_LIMIT = 1024
BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_NAMES = ("Alphabetic", "Ideographic", "Phonetic")
_SINGLE = frozenset(("LT", "ST", "UR", "UT"))
_TEXT = frozenset(("LO", "SH", "UC")) | _SINGLE
_FORMATS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}
_CHARSET, _PIXEL_REPRESENTATION = 0x00080005, 0x00280103
# Integers that a reader of JSON, which may have doubles only, keeps exactly.
_EXACT = 1 << 53
_NO_NUMBERS = {math.inf: "inf", -math.inf: "-inf"}
# Nesting of sequences; structured reports have below 20.
_DEPTH = 64


class JsonEncoder:
    """Encodes data sets. `bulk` makes the BulkDataURI of long values; None: all are left out."""

    def __init__(self, bulk: Bulk | None = None, *, little: bool = True) -> None:
        self._bulk = bulk
        self._order = "<" if little else ">"

    def encode(
        self,
        dataset: Dataset,
        path: Path = (),
        characters: Repertoire = DEFAULT,
        *,
        signed: bool = False,
    ) -> Model:
        """Return a data set in the model, in UTF-8. Elements that cannot be read are left out."""
        if len(path) > 2 * _DEPTH:
            return {}
        model: Model = {}
        if _CHARSET in dataset:
            characters = repertoire(_terms(dataset.get_item(_CHARSET).value))
        if _PIXEL_REPRESENTATION in dataset:
            signed = dataset[_PIXEL_REPRESENTATION].value == 1
        element: Any
        for number, element in sorted(
            ((int(tag), element) for tag, element in dataset.items()), key=itemgetter(0)
        ):
            if not number & 0xFFFF:
                continue  # group lengths, retired
            tag = f"{number:08X}"
            vr = vr_of(element, signed=signed)
            try:
                content = self._content(dataset, element, vr, (*path, tag), characters, signed=signed)
            except Exception:  # noqa: BLE001, S112  pydicom raises many kinds of error for damaged bytes
                continue
            # PS3.18 Section F.2: the texts of the model are in UTF-8.
            if number == _CHARSET:
                content = {"Value": ["ISO_IR 192"]}
            model[tag] = {"vr": vr, **content}
        return model

    def _content(
        self, dataset: Dataset, element: Any, vr: str, path: Path, characters: Repertoire, *, signed: bool
    ) -> Model:
        if vr == "SQ":
            items = [
                self.encode(item, (*path, number), characters, signed=signed)
                for number, item in enumerate(dataset[element.tag].value or ())
            ]
            return {"Value": items} if items else {}
        if getattr(element, "is_raw", False):
            if element.value is None:  # empty, or too long to be read
                return self._bulk_data(path) if element.length else {}
            values = self._raw_values(element.value, vr, characters)
        else:
            values = element.value
        if vr in BINARY:
            return self._binary(values, path)
        return _made(values, vr)

    def _binary(self, value: Any, path: Path) -> Model:
        if not isinstance(value, bytes | bytearray) or not value:
            return {}
        if len(value) > INLINE_LIMIT and self._bulk:
            return self._bulk_data(path)
        return {"InlineBinary": base64.b64encode(value).decode()}

    def _bulk_data(self, path: Path) -> Model:
        return {"BulkDataURI": self._bulk(path)} if self._bulk else {}

    def _raw_values(self, value: bytes, vr: str, characters: Repertoire) -> Any:
        if code := _FORMATS.get(vr):
            count = len(value) // struct.calcsize(code)
            return list(struct.unpack_from(f"{self._order}{count}{code}", value))
        if vr == "AT":
            numbers = struct.unpack_from(f"{self._order}{len(value) // 4 * 2}H", value)
            return [high << 16 | low for high, low in zip(numbers[::2], numbers[1::2], strict=True)]
        if vr in BINARY:
            return value
        if vr in _TEXT or vr == "PN":
            delimiters = NAME_DELIMITERS if vr == "PN" else TEXT_DELIMITERS
            text = decode(value, characters, delimiters)[0]
        else:
            text = value.decode("latin_1")
        text = text.rstrip("\0 ")
        return [text] if vr in _SINGLE else text.split("\\")


def _terms(value: Any) -> bytes:
    """Return the value of SpecificCharacterSet as it stands in a file."""
    if isinstance(value, bytes):
        return value
    return "\\".join([value] if isinstance(value, str) else value or ()).encode("latin_1", "replace")


def _made(values: Any, vr: str) -> Model:
    """Return the values of an element as the model has them (PS3.18 Table F.2.3-1)."""
    is_list = isinstance(values, list | tuple | MultiValue | Items)
    several: Iterable[Any] = values if is_list else () if values is None else (values,)
    made = [_value(one, vr) for one in several]
    while made and made[-1] is None:
        made.pop()
    return {"Value": made} if made else {}


def _value(value: Any, vr: str) -> Any:
    if value is None:
        return None
    if vr == "PN":
        groups = zip(_NAMES, str(value).split("="), strict=False)
        return {name: group.strip() for name, group in groups if group.strip()} or None
    if vr == "AT":
        return f"{int(value):08X}"
    if vr in _FORMATS:
        return _binary_number(value)
    text = str(value).rstrip("\0 ") if vr in _SINGLE else str(value).strip("\0 ")
    return _number(text, vr) if vr in ("DS", "IS") and text else text or None


def _binary_number(value: Any) -> int | float | str:
    """Return a number; a text where JSON has no number for it (PS3.18 Section F.2.2)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else _NO_NUMBERS.get(value, "NaN")
    return int(value) if abs(int(value)) <= _EXACT else str(value)


def _number(text: str, vr: str) -> int | float | str:
    """Return the number of a text; the text where it is none."""
    try:
        number = int(text) if vr == "IS" else float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) and abs(number) <= _EXACT else text
