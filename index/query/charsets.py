"""The character set of an answer: one that has all its characters (PS3.3 Section C.12.1.1.2)."""

from collections.abc import Iterable, Iterator, Sequence

from pydicom.charset import convert_encodings, encode_string, python_encoding
from pydicom.dataset import Dataset
from pydicom.valuerep import PersonName

from index.dicom.charsets import NAME_DELIMITERS, TEXT_DELIMITERS, decode, repertoire

UTF_8 = "ISO_IR 192"
_TEXT = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
# pydicom uses Latin-1 for these, to read wrongly declared text. Other readers do not.
_ASCII = frozenset(("", "ISO_IR 6", "ISO 2022 IR 6"))
# Sets without code extensions: they cannot be combined (PS3.3 Table C.12-5).
_ALONE = frozenset((UTF_8, "GB18030", "GBK"))


def is_charset(terms: str) -> bool:
    """Whether all terms, separated by backslashes, are defined for SpecificCharacterSet (0008,0005)."""
    return all(term in python_encoding for term in terms.split("\\"))


def charset_for(dataset: Dataset, offered: Iterable[str]) -> str | list[str] | None:
    """Return the first character set that can encode all texts of a data set, else the last. None: ASCII.

    The terms of one set are separated by backslashes.
    """
    texts = [(vr, text) for vr, text in _texts(dataset) if not text.isascii()]
    if not texts:
        return None
    chosen = ""
    for chosen in offered:
        if chosen and _can_encode(chosen, texts):
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


def _can_encode(charset: str, texts: Sequence[tuple[str, str]]) -> bool:
    """Whether the texts are the same after encoding and decoding in a character set."""
    terms = charset.split("\\")
    if not is_charset(charset) or (len(terms) > 1 and _ALONE & set(terms)):
        return False
    codecs = ["ascii" if term in _ASCII else python_encoding[term] for term in terms]
    characters = {one for _, text in texts for one in text if not one.isascii()}
    # pydicom would write replacement characters and a warning.
    if not all(any(_has_character(codec, one) for codec in codecs) for one in characters):
        return False
    encodings, initial = convert_encodings(terms), repertoire(charset.encode())
    for vr, text in texts:
        is_name = vr == "PN"
        written = PersonName(text).encode(encodings) if is_name else encode_string(text, encodings)
        # Padded as in a data set: if a two-byte set is still active, the blank is half a character.
        padding = " " * (len(written) % 2)
        delimiters = NAME_DELIMITERS if is_name else TEXT_DELIMITERS
        if decode(written + padding.encode(), initial, delimiters) != (text + padding, True):
            return False
    return True


def _has_character(codec: str, character: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
