"""Person names as they are compared: without case, and perhaps without accents (PS3.4 Section C.2.2.2.1)."""

import re
import unicodedata

# Accents of Latin, Greek and Cyrillic letters. The marks of Kana (U+3099) make other syllables.
_MARKS = re.compile("[\u0300-\u036f]")
# Letters that Unicode does not divide into a letter and a mark.
_STROKES = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe"}  # noqa: RUF001
)


def folded(text: str) -> str:
    """Return a text without case, composed (NFC)."""
    return unicodedata.normalize("NFC", text.casefold()).casefold()


def folded_without_accents(text: str) -> str:
    """Return the same without diacritical marks: Müller is muller, Łódź is lodz."""
    return folded(_MARKS.sub("", unicodedata.normalize("NFD", text.casefold())).translate(_STROKES))


def name_groups(folded_name: str) -> list[str]:
    """Return the component groups of a name (PS3.5 Section 6.2.1) without padding."""
    groups = folded_name.split("=")
    return ["^".join(part.strip() for part in group.split("^")).rstrip("^") for group in groups]
