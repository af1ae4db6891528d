"""Body Part Examined (0018,0015) to SNOMED CT: PS3.16 Annex L, Table L-1.

`body_parts.txt` has its 317 rows: the Defined Term, the SNOMED CT code and its meaning.
"""

from pathlib import Path

_ROWS = Path(__file__).with_name("body_parts.txt").read_text(encoding="ascii").splitlines()

BODY_PARTS: dict[str, tuple[str, str]] = {
    term: (code, meaning) for term, code, meaning in (row.split("|") for row in _ROWS)
}
"""Code and meaning by Defined Term."""
