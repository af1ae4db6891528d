"""Matching of one key against the values of its attribute (PS3.4 Section C.2.2.2)."""

import fnmatch
import re
from collections.abc import Callable, Sequence

from index.dicom.person_names import folded, folded_without_accents, name_groups
from index.dicom.value_rules import SEPARATORS
from index.errors import IndexFault

Matcher = Callable[[Sequence[str]], bool]

# PS3.4 Section C.2.2.2.4: values of other VRs have no wildcards.
_WILD = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"))
_NUMBERS = frozenset(("DS", "IS", "FD", "FL", "SL", "SS", "UL", "US"))
# All others, such as UI, are matched as they are.
_BY_RULE = _WILD | _NUMBERS | {"DA", "TM"}
_WILDCARDS = re.compile(r"[*?]")
_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?")
# The ends of a time that is given without minutes or seconds (PS3.5 Table 6.2-1).
_EARLIEST, _LATEST = "000000.000000", "235959.999999"


class BadIdentifier(IndexFault):
    """Raised when the value of a key is not valid for its VR. `keyword` names the key."""

    def __init__(self, keyword: str, why: str) -> None:
        super().__init__(f"{keyword}: {why}")
        self.keyword = keyword


def matcher(keyword: str, vr: str, wanted: Sequence[str], *, ignore_accents: bool = False) -> Matcher | None:
    """Return a test for an attribute's values: one must match one of `wanted`. None: every value matches.

    `ignore_accents` is for names: PS3.4 Section C.2.2.2.1 leaves it to the application. Raises BadIdentifier.
    """
    asked = [value.strip() for value in wanted if value.strip()]
    if not asked or (vr in _WILD and any(set(value) == {"*"} for value in asked)):
        return None
    if vr not in _BY_RULE:
        exact = frozenset(asked)  # a list of UIDs may have thousands
        return lambda values: not exact.isdisjoint(values)
    fold = folded_without_accents if ignore_accents else folded
    each = [_single(keyword, vr, value, fold) for value in asked]
    return lambda values: any(one(value) for value in values for one in each)


def _single(keyword: str, vr: str, wanted: str, fold: Callable[[str], str]) -> Callable[[str], bool]:
    if vr in ("DA", "TM"):
        return _date_or_time(keyword, vr, wanted)
    if vr == "PN":
        return _name(wanted, fold)
    if vr in _WILD:
        return _text(wanted)
    return lambda value: _number(value) == _number(wanted)


def _text(wanted: str) -> Callable[[str], bool]:
    """Wildcard matching: * is any text or none, ? is one character. Case counts."""
    if not _WILDCARDS.search(wanted):
        return lambda value: value.strip() == wanted
    # An expression of fnmatch takes linear time for any number of wildcards. DICOM has no [ wildcard.
    pattern = re.compile(fnmatch.translate(wanted.replace("[", "[[]")))
    return lambda value: pattern.match(value.strip()) is not None


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


# --- person names ---


def _name(wanted: str, fold: Callable[[str], str]) -> Callable[[str], bool]:
    """Match group by group; a key of one group may match any group of the name."""
    asked = [_text(group) if group else None for group in name_groups(fold(wanted))]
    if len(asked) == 1 and asked[0]:
        only = asked[0]
        return lambda value: any(only(group) for group in name_groups(fold(value)) if group)

    def fits(value: str) -> bool:
        groups = name_groups(fold(value))
        groups += [""] * (len(asked) - len(groups))
        return all(one is None or one(group) for one, group in zip(asked, groups, strict=False))

    return fits


# --- dates and times ---


def _date_or_time(keyword: str, vr: str, wanted: str) -> Callable[[str], bool]:
    """Single value or range matching (PS3.4 Section C.2.2.2.5)."""
    if "-" not in wanted:
        exact = _earliest(vr, checked(keyword, vr, wanted))
        return lambda value: comparable(vr, value) == exact
    first, last = range_of(keyword, vr, wanted)
    return lambda value: (
        (first or "") <= comparable(vr, value) and (last is None or comparable(vr, value) <= last)
    )


def range_of(keyword: str, vr: str, wanted: str) -> tuple[str | None, str | None]:
    """Return the first and the last value of a range, None where it is open; a single value is a range too.

    Raises BadIdentifier.
    """
    first, dash, last = (part.strip() for part in wanted.partition("-"))
    if not dash:
        last = first
    if not (first or last):
        raise BadIdentifier(keyword, "a range needs a first or a last value")
    return (
        _earliest(vr, checked(keyword, vr, first)) if first else None,
        _latest(vr, checked(keyword, vr, last)) if last else None,
    )


def checked(keyword: str, vr: str, text: str) -> str:
    """Return a date or time of a key without the separators of ACR-NEMA. Raises BadIdentifier."""
    value = text.strip().replace(SEPARATORS[vr], "")
    if not (_DATE if vr == "DA" else _TIME).fullmatch(value):
        raise BadIdentifier(keyword, f"no value of {vr}")
    return value


def comparable(vr: str, text: str) -> str:
    """Return the date or time of an item as text that sorts in order of time."""
    return _earliest(vr, text.strip().replace(SEPARATORS[vr], ""))


def _earliest(vr: str, text: str) -> str:
    """Return the first instant of a date or time."""
    return text if vr == "DA" else text + _EARLIEST[len(text) :]


def _latest(vr: str, text: str) -> str:
    """Return the last instant of a date or time."""
    return text if vr == "DA" else text + _LATEST[len(text) :]
