"""The paths of objects below a data directory. Each tells in which directory, of which node, the object is.

Several nodes may share one index. The paths of the node that was there first, and of the only one, have no
number in them; those of the others begin with theirs: `objects/3-000000/000.dcm`, `conflicts/3-….dcm`.
"""

import re

# The number of the node that was there first.
FIRST = 0
FOLDERS = "objects", "conflicts"
_NODE = re.compile(r"(?:objects|conflicts)/([1-9][0-9]*)-")
_FOLDER = re.compile(r"(?:([1-9][0-9]*)-)?([0-9a-f]{6,})")


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


def patterns(node: int) -> tuple[str, ...]:
    """Return what LIKE finds the paths of a node by; of the first, those that are not its paths."""
    return tuple(f"{folder}/{_begin(node) or '%-'}%" for folder in FOLDERS)


def _begin(node: int) -> str:
    return f"{node}-" if node else ""
