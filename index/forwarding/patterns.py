"""Texts with the wildcards * and ?, and the SOP Classes that they stand for."""

import re
from functools import cache

_WILDCARDS = {"*": ".*", "?": "."}


def as_expression(pattern: str) -> str:
    """Return a regular expression for a text with wildcards: * is any text or none, ? is one character."""
    return "".join(_WILDCARDS.get(letter) or re.escape(letter) for letter in pattern)


@cache
def sop_classes(pattern: str) -> tuple[str, ...]:
    """Return the UIDs of the SOP Classes whose keyword fits a pattern (PS3.6 Table A-1)."""
    from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]  # it is public

    fits = re.compile(as_expression(pattern)).fullmatch
    return tuple(
        uid
        for uid, (_, kind, _, _, keyword) in UID_dictionary.items()
        if kind == "SOP Class" and keyword and fits(keyword)
    )
