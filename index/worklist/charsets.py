"""Specific character sets of answers (PS3.3 Section C.12.1.1.2): one that holds the text."""

from collections.abc import Iterable, Iterator, Sequence

from pydicom.charset import python_encoding
from pydicom.dataset import Dataset

UTF_8 = "ISO_IR 192"
_TEXT = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))


def is_charset(terms: str) -> bool:
    """Whether these are defined terms of SpecificCharacterSet (0008,0005), separated by backslashes."""
    return all(term in python_encoding for term in terms.split("\\"))


def charset_for(dataset: Dataset, offered: Iterable[str]) -> str | list[str] | None:
    """Return the first of the character sets that holds all texts of a data set. None: ASCII will do.

    The last one offered is taken on trust. Terms are separated by backslashes.
    """
    text = "".join(_texts(dataset))
    if text.isascii():
        return None
    chosen = ""
    for chosen in offered:
        if chosen and _holds(chosen.split("\\"), text):
            break
    terms = chosen.split("\\")
    return terms if len(terms) > 1 else chosen


def _texts(dataset: Dataset) -> Iterator[str]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in _TEXT and element.value is not None:
            yield str(element.value)


def _holds(terms: Sequence[str], text: str) -> bool:
    """Whether each character is in one of the sets; pydicom switches between them by escape sequences."""
    codecs = [python_encoding[term] for term in terms if term in python_encoding]
    return all(any(_has(codec, one) for codec in codecs) for one in set(text) if not one.isascii())


def _has(codec: str, character: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True
