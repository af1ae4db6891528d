"""DIMSE statuses, and the status of each failure (PS3.4 Table B.2-1, PS3.7 Annex C)."""

import re

from index import DatabaseFault, Disagreement, IndexFault, InvalidUID, NotKept, Unreadable

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_SOP_CLASS = 0x0118
SOP_CLASS_NOT_SUPPORTED = 0x0122
UNRECOGNIZED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
INVALID_UID = 0xC001
# The same numbers in PS3.4 Table K.4-1 (worklist).
IDENTIFIER_DOES_NOT_MATCH = 0xA900
UNABLE_TO_PROCESS = 0xC000

# ErrorComment (0000,0902) is LO (PS3.7 Section E.1): 64 characters.
ERROR_COMMENT_LENGTH = 64

# A file or folder in a message of ours, with the blank after it: "/data/index.sqlite: ".
_PATH = re.compile(r"\S*/\S*\s?")

# The first type that matches decides.
STORE_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (NotKept, OUT_OF_RESOURCES),
    (Disagreement, DOES_NOT_MATCH_SOP_CLASS),
    (InvalidUID, INVALID_UID),
    (Unreadable, CANNOT_UNDERSTAND),
    (IndexFault, OUT_OF_RESOURCES),
    (OSError, OUT_OF_RESOURCES),
    (Exception, OUT_OF_RESOURCES),
)


def store_status(error: Exception) -> int:
    """Return the C-STORE status for a failure."""
    return next(status for kind, status in STORE_STATUS if isinstance(error, kind))


def reason_for_peer(error: Exception) -> str:
    """Return why something failed, for a peer: without the paths of our files."""
    origin: BaseException | None = error
    while origin is not None and not isinstance(origin, OSError):
        origin = origin.__cause__
    if origin is not None:
        return str(origin.strerror or type(origin).__name__)
    if isinstance(error, NotKept | DatabaseFault):
        return _PATH.sub("", str(error))
    return str(error) if isinstance(error, IndexFault) else f"internal fault: {type(error).__name__}"


def error_comment(text: str | Exception) -> str:
    """Return a text, or why something failed, as a value of ErrorComment.

    It has at most 64 ASCII characters, none of them a backslash or control character.
    """
    text = reason_for_peer(text) if isinstance(text, Exception) else text
    plain = "".join(c if c.isascii() and c.isprintable() and c != "\\" else "?" for c in text)
    return plain[:ERROR_COMMENT_LENGTH]
