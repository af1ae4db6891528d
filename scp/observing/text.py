"""What comes from outside as text that a terminal shows and does not obey.

Names, identifiers and file names are chosen by whoever sends. A control character among them would move the
cursor, change the window's title (ECMA-48 Section 5.4) or begin a line that looks like one of ours; a
bidirectional control (Unicode Standard Annex #9) would show another order of characters than there is.
"""

import json
import re
import unicodedata
from typing import Any

# Without these some names cannot be written: the joiners of Persian and of the Indic scripts.
_JOINERS = frozenset("\u200c\u200d")
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
# Line and paragraph separator; all of C are controls, formats, surrogates and what is not assigned.
_SEPARATORS = frozenset(("Zl", "Zp"))


def plain(value: object) -> str:
    r"""Return a value as text of one line: what is not to be seen stands as an escape, as \x1b or \n."""
    return _NOT_ASCII.sub(_escaped, str(value))


def json_line(value: Any) -> bytes:
    r"""Return a value as a line of JSON in UTF-8, in which what is not to be seen is escaped: \u001b."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return visible_json(text) + b"\n"


def visible_json(text: str) -> bytes:
    """Return JSON as it is but for what is not to be seen within its texts; line feeds between them stay."""
    return _NOT_ASCII.sub(_escaped_json, text).encode()


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    return character if _is_seen(character) else character.encode("unicode_escape").decode()


def _escaped_json(match: re.Match[str]) -> str:
    character = match[0]
    return character if character == "\n" or _is_seen(character) else json.dumps(character)[1:-1]


def _is_seen(character: str) -> bool:
    category = unicodedata.category(character)
    return character in _JOINERS or not (category.startswith("C") or category in _SEPARATORS)
