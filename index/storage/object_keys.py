"""The paths of objects below a data directory. Each tells in which directory, of which node, the object is.

Several nodes may share one index. The paths of the node that was there first, and of the only one, have no
number in them; those of the others begin with theirs: `objects/3-000000/000.dcm`, `conflicts/3-….dcm`.

Keys of a store that nodes share tell when the object came, and by which node:
`objects/3-2026/1126/0315/019ac0….dcm` came to the third one on 26 November at 3:15 UTC.
"""

import datetime as dt
import os
import re
import time

# The number of the node that was there first.
FIRST = 0
FOLDERS = "objects", "conflicts"
_NODE = re.compile(r"(?:objects|conflicts)/([1-9][0-9]*)-")
_FOLDER = re.compile(r"(?:([1-9][0-9]*)-)?([0-9a-f]{6,})")
_YEAR = re.compile(r"objects/(?:[1-9][0-9]*-)?([0-9]{4})")
_DAY = re.compile(r"objects/(?:[1-9][0-9]*-)?([0-9]{4})/([0-9]{4})/")


def node_of(path: str) -> int:
    """Return the number of the node in whose data directory this object is."""
    found = _NODE.match(path)
    return int(found[1]) if found else FIRST


def conflict_path(sha1: str, node: int) -> str:
    """Return where a node keeps a data set aside: one for each hash."""
    return f"conflicts/{_begin(node)}{sha1}.dcm"


def folder_name(node: int, number: int) -> str:
    """Return the name of a folder that a node makes in `objects/`."""
    return f"{_begin(node)}{number:06x}"


def folder_number(name: str, node: int) -> int | None:
    """Return the number of such a folder; None: it is another node's, or none at all."""
    found = _FOLDER.fullmatch(name)
    return int(found[2], 16) if found and int(found[1] or FIRST) == node else None


def new_key(node: int, now: float | None = None) -> str:
    """Return a key that no other object has: by the minute, then a UUID of version 7 (RFC 9562 Section 5.7).

    `now` is in seconds since 1970.
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    bits = int.from_bytes(os.urandom(10))
    head = (milliseconds << 80) | (7 << 76) | ((bits >> 68 & 0xFFF) << 64)
    value = head | (2 << 62) | (bits & (1 << 62) - 1)
    at = dt.datetime.fromtimestamp(milliseconds / 1000, dt.UTC)
    return f"objects/{_begin(node)}{at:%Y/%m%d/%H%M}/{value:032x}.dcm"


def is_year(folder: str) -> bool:
    """Tell whether a folder in `objects/` holds the keys of a year: `objects/3-2026`."""
    return _YEAR.fullmatch(folder) is not None


def day_of(path: str) -> dt.date | None:
    """Return the day of a key; None: it is of another form."""
    found = _DAY.match(path)
    try:
        return dt.datetime.strptime(found[1] + found[2], "%Y%m%d").date() if found else None  # noqa: DTZ007
    except ValueError:
        return None


def patterns(node: int) -> tuple[str, ...]:
    """Return what LIKE finds the paths of a node by; of the first, those that are not its paths."""
    return tuple(f"{folder}/{_begin(node) or '%-'}%" for folder in FOLDERS)


def _begin(node: int) -> str:
    return f"{node}-" if node else ""
