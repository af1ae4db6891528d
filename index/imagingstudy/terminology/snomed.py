"""SNOMED-RT style codes to SNOMED CT (PS3.16 Annex J): the schemes SRT, SNM3 and 99SDM.

The table, `snomed_rt.txt`, has 7,990 rows: those that pydicom ships in `pydicom.sr`.
"""

import re
from functools import cache
from pathlib import Path

SCHEMES = frozenset(("SCT", "SRT", "SNM3", "99SDM"))
"""CodingSchemeDesignators of SNOMED; senders use each with codes of both styles."""

_CONCEPT_ID = re.compile(r"[1-9][0-9]{5,17}")
"""A SNOMED CT identifier: 6 to 18 digits."""

_RT_STYLE = re.compile(r"[A-Z][0-9A-Z]?-[0-9A-Z]+")


def concept_id(code: str, scheme: str) -> str:
    """Return the SNOMED CT code of a code of one of SCHEMES, in either style. Empty: there is none."""
    known = _table().get(code.upper())
    if known:
        return known
    if scheme == "SCT":  # expressions too
        return "" if _RT_STYLE.fullmatch(code.upper()) else code
    return code if _CONCEPT_ID.fullmatch(code) else ""


@cache
def _table() -> dict[str, str]:
    text = Path(__file__).with_name("snomed_rt.txt").read_text(encoding="ascii")
    return dict(row.split() for row in text.splitlines())
