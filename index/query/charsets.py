"""Specific character sets of answers (PS3.3 Section C.12.1.1.2): one that holds the text."""

from collections.abc import Iterable, Iterator, Sequence

from pydicom.charset import convert_encodings, encode_string, python_encoding
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

from index.dicom.charsets import NAME_DELIMITERS, TEXT_DELIMITERS, decode, repertoire

UTF_8 = "ISO_IR 192"
_TEXT = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
# pydicom has Latin-1 for these, to read what is declared wrongly; no other reader has to.
_ASCII = frozenset(("", "ISO_IR 6", "ISO 2022 IR 6"))
# Sets without code extensions: they stand alone (PS3.3 Table C.12-5).
_ALONE = frozenset((UTF_8, "GB18030", "GBK"))


def is_charset(terms: str) -> bool:
    """Whether these are defined terms of SpecificCharacterSet (0008,0005), separated by backslashes."""
    return all(term in python_encoding for term in terms.split("\\"))


def charset_for(dataset: Dataset, offered: Iterable[str]) -> str | list[str] | None:
    """Return the first of the character sets that holds all texts of a data set. None: ASCII will do.

    The last one offered is taken on trust. Terms are separated by backslashes.
    """
    texts = [(vr, text) for vr, text in _texts(dataset) if not text.isascii()]
    if not texts:
        return None
    chosen = ""
    for chosen in offered:
        if chosen and _holds(chosen, texts):
            break
    terms = chosen.split("\\")
    return terms if len(terms) > 1 else chosen


def _texts(dataset: Dataset) -> Iterator[tuple[str, str]]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in _TEXT and element.value is not None:
            several = element.value if element.VM > 1 else [element.value]
            yield from ((element.VR, str(one)) for one in several)


def _holds(charset: str, texts: Sequence[tuple[str, str]]) -> bool:
    """Whether what is written in a character set reads as the same texts again."""
    terms = charset.split("\\")
    if not is_charset(charset) or (len(terms) > 1 and _ALONE & set(terms)):
        return False
    codecs = ["ascii" if term in _ASCII else python_encoding[term] for term in terms]
    characters = {one for _, text in texts for one in text if not one.isascii()}
    # pydicom would write replacements and a warning.
    if not all(any(_has(codec, one) for codec in codecs) for one in characters):
        return False
    encodings, initial = convert_encodings(terms), repertoire(charset.encode())
    for vr, text in texts:
        is_name = vr == "PN"
        written = PersonName(text).encode(encodings) if is_name else encode_string(text, encodings)
        # As it stands in a data set: where a two-byte set is still in force, the blank that pads is half a
        # character.
        padding = " " * (len(written) % 2)
        delimiters = NAME_DELIMITERS if is_name else TEXT_DELIMITERS
        if decode(written + padding.encode(), initial, delimiters) != (text + padding, True):
            return False
    return True


def _has(codec: str, character: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
