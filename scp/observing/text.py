"""Text from outside, made harmless for a terminal.

Names, identifiers and file names come from senders. A control character in them could move the cursor, change
the window's title (ECMA-48 Section 5.4) or begin a line that looks like one of ours. A bidirectional control
(Unicode Standard Annex #9) could change the order in which characters are shown.
"""

import json
import re
import unicodedata
from typing import Any

# Joiners, which names in Persian and in Indic scripts need.
_JOINERS = frozenset("\u200c\u200d")
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")
# Line and paragraph separator. The categories C* are controls, formats, surrogates and unassigned ones.
_SEPARATORS = frozenset(("Zl", "Zp"))


def plain(value: object) -> str:
    r"""Return a value as text of one line, with invisible characters as escapes, such as \x1b or \n."""
    return _NOT_ASCII.sub(_escaped, str(value))


def json_line(value: Any) -> bytes:
    r"""Return a value as a line of JSON in UTF-8, with invisible characters as escapes: \u001b."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return visible_json(text) + b"\n"


def visible_json(text: str) -> bytes:
    """Return JSON in UTF-8, with invisible characters as escapes, except line feeds."""
    return _NOT_ASCII.sub(_escaped_json, text).encode()


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    return character if _is_visible(character) else character.encode("unicode_escape").decode()


def _escaped_json(match: re.Match[str]) -> str:
    character = match[0]
    return character if character == "\n" or _is_visible(character) else json.dumps(character)[1:-1]


def _is_visible(character: str) -> bool:
    category = unicodedata.category(character)
    return character in _JOINERS or not (category.startswith("C") or category in _SEPARATORS)
