"""Matching of single attributes (PS3.4 Section C.2.2.2): what a key's value asks of an attribute's values.

Universal matching is no matcher at all (None).
"""

import fnmatch
import re
import unicodedata
from collections.abc import Callable, Sequence

from index.errors import IndexFault

Matcher = Callable[[Sequence[str]], bool]

# PS3.4 Section C.2.2.2.4: all others are matched without wildcards.
_WILD = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_NUMBERS = frozenset(("DS", "IS", "FD", "FL", "SL", "SS", "UL", "US"))
_WILDCARDS = re.compile(r"[*?]")
_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
# The least and the greatest time that an imprecise one means (PS3.5 Table 6.2-1).
_EARLIEST, _LATEST = "000000.000000", "235959.999999"
# Marks of Latin, Greek and Cyrillic; those of Kana (U+3099) make other syllables.
_MARKS = re.compile("[\u0300-\u036f]")
# What Unicode does not take apart.
_STROKES = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe"}  # noqa: RUF001
)


class BadIdentifier(IndexFault):
    """A key of a query has a value that is none of its VR; `keyword` names it."""

    def __init__(self, keyword: str, why: str) -> None:
        super().__init__(f"{keyword}: {why}")
        self.keyword = keyword


def matcher(keyword: str, vr: str, wanted: Sequence[str], *, ignore_accents: bool = False) -> Matcher | None:
    """Return what matches any of the values wanted (list of UID matching for UI). Raises BadIdentifier.

    `ignore_accents` is for names: PS3.4 Section C.2.2.2.1 leaves that to the application.
    """
    asked = [value.strip() for value in wanted if value.strip()]
    if not asked or (vr in _WILD and any(set(value) == {"*"} for value in asked)):
        return None
    plain_name = without_accents if ignore_accents else str
    each = [_single(keyword, vr, value, plain_name) for value in asked]
    return lambda values: any(one(value) for value in values for one in each)


def _single(keyword: str, vr: str, wanted: str, plain_name: Callable[[str], str]) -> Callable[[str], bool]:
    if vr in ("DA", "TM"):
        return _moment(keyword, vr, wanted)
    if vr == "PN":
        return _name(wanted, plain_name)
    if vr in _WILD:
        return _text(wanted)
    if vr in _NUMBERS:
        return lambda value: _number(value) == _number(wanted)
    return lambda value: value == wanted


def _text(wanted: str) -> Callable[[str], bool]:
    """Wildcard matching: * is any text, also none; ? is one character. Case counts."""
    if not _WILDCARDS.search(wanted):
        return lambda value: value.strip() == wanted
    # fnmatch's expressions take linear time for any number of wildcards; it knows [ too, DICOM does not.
    pattern = re.compile(fnmatch.translate(wanted.replace("[", "[[]")))
    return lambda value: pattern.match(value.strip()) is not None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


# --- person names ---


def groups(name: str) -> list[str]:
    """Return a name's component groups (PS3.5 Section 6.2.1) for comparison: without case and padding."""
    folded = unicodedata.normalize("NFC", name).casefold()
    return ["^".join(part.strip() for part in group.split("^")).rstrip("^") for group in folded.split("=")]


def without_accents(text: str) -> str:
    """Return a case-folded text without diacritical marks: Müller is Muller, Łódź is Lodz."""
    return _MARKS.sub("", unicodedata.normalize("NFD", text)).translate(_STROKES)


def _name(wanted: str, plain_name: Callable[[str], str]) -> Callable[[str], bool]:
    """Match group by group; a key of one group matches whichever group of the name it fits."""
    asked = [_text(group) if group else None for group in groups(plain_name(wanted.casefold()))]
    if len(asked) == 1 and asked[0]:
        only = asked[0]
        return lambda value: any(only(group) for group in groups(plain_name(value.casefold())) if group)

    def fits(value: str) -> bool:
        said = groups(plain_name(value.casefold()))
        said += [""] * (len(asked) - len(said))
        return all(one is None or one(group) for one, group in zip(asked, said, strict=False))

    return fits


# --- dates and times ---


def _moment(keyword: str, vr: str, wanted: str) -> Callable[[str], bool]:
    """Single value or range matching (PS3.4 Section C.2.2.2.5)."""
    if "-" not in wanted:
        exact = plain(keyword, vr, wanted)
        return lambda value: moment(vr, value) == lowest(vr, exact)
    first, last = limits(keyword, vr, wanted)
    return lambda value: (first or "") <= moment(vr, value) and (last is None or moment(vr, value) <= last)


def limits(keyword: str, vr: str, wanted: str) -> tuple[str | None, str | None]:
    """Return the ends of a range, None where it is open; a single value is a range of its own.

    Raises BadIdentifier.
    """
    first, dash, last = (part.strip() for part in wanted.partition("-"))
    if not dash:
        last = first
    if not (first or last):
        raise BadIdentifier(keyword, "a range needs a first or a last value")
    return (
        lowest(vr, plain(keyword, vr, first)) if first else None,
        highest(vr, plain(keyword, vr, last)) if last else None,
    )


def plain(keyword: str, vr: str, text: str) -> str:
    """Return a date or time of a key without the separators of ACR-NEMA. Raises BadIdentifier."""
    bare = _bare(vr, text)
    if not (_DATE if vr == "DA" else _TIME).fullmatch(bare):
        raise BadIdentifier(keyword, f"no value of {vr}")
    return bare


def _bare(vr: str, text: str) -> str:
    """Leave out the separators of 2026.01.02 and 10:11:12."""
    return text.strip().replace("." if vr == "DA" else ":", "")


def moment(vr: str, text: str) -> str:
    """Return an item's date or time as it is compared."""
    return lowest(vr, _bare(vr, text))


def lowest(vr: str, text: str) -> str:
    """Return the first moment that a date or time, perhaps imprecise, can mean."""
    return text if vr == "DA" else text + _EARLIEST[len(text) :]


def highest(vr: str, text: str) -> str:
    """Return the last moment that a date or time, perhaps imprecise, can mean."""
    return text if vr == "DA" else text + _LATEST[len(text) :]
