"""DIMSE statuses, and the status of each failure."""

import re
from collections.abc import Mapping

from index import (
    BadStepValue,
    DatabaseFault,
    Disagreement,
    DuplicateStep,
    IndexFault,
    InvalidUID,
    MissingAttribute,
    MissingValue,
    NoSuchStep,
    NotKept,
    Unreadable,
)

SUCCESS = 0x0000
# PS3.7 Annex C.
INVALID_ATTRIBUTE_VALUE = 0x0106
ATTRIBUTE_LIST_ERROR = 0x0107
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_SOP_INSTANCE = 0x0112
INVALID_ARGUMENT_VALUE = 0x0115
INVALID_SOP_INSTANCE = 0x0117
NO_SUCH_SOP_CLASS = 0x0118
MISSING_ATTRIBUTE = 0x0120
MISSING_ATTRIBUTE_VALUE = 0x0121
SOP_CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION_TYPE = 0x0123
UNRECOGNIZED_OPERATION = 0x0211
MISTYPED_ARGUMENT = 0x0212
RESOURCE_LIMITATION = 0x0213
# Warnings of any service (PS3.7 Section C.4).
WARNINGS = frozenset((0x0001, ATTRIBUTE_LIST_ERROR, 0x0116))
# PS3.4 Table F.8.2-2 (N-GET of a performed procedure step).
OPTIONAL_ATTRIBUTES_NOT_SUPPORTED = 0x0001
# PS3.4 Table B.2-1 (storage).
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH_SOP_CLASS = 0xA900
CANNOT_UNDERSTAND = 0xC000
INVALID_UID = 0xC001
# PS3.4 Tables C.4-1 (query) and K.4-1 (worklist); OUT_OF_RESOURCES is in them too.
IDENTIFIER_DOES_NOT_MATCH = 0xA900
UNABLE_TO_PROCESS = 0xC000
# PS3.4 Tables C.4-2 and C.4-3 (C-MOVE and C-GET).
CANNOT_COUNT = 0xA701
CANNOT_PERFORM_SUBOPERATIONS = 0xA702
MOVE_DESTINATION_UNKNOWN = 0xA801
SUBOPERATIONS_FAILED = 0xB000
CANCELLED = 0xFE00
PENDING = 0xFF00
PENDING_WITHOUT_SOME_KEYS = 0xFF01

# The status of a failure by its type; the first that matches decides.
Statuses = Mapping[type[Exception], int]
C_STORE: Statuses = {
    Disagreement: DOES_NOT_MATCH_SOP_CLASS,
    InvalidUID: INVALID_UID,
    Unreadable: CANNOT_UNDERSTAND,
    Exception: OUT_OF_RESOURCES,
}
# PS3.4 Section F.7.2.
PROCEDURE_STEP: Statuses = {
    BadStepValue: INVALID_ATTRIBUTE_VALUE,
    DuplicateStep: DUPLICATE_SOP_INSTANCE,
    NoSuchStep: NO_SUCH_SOP_INSTANCE,
    InvalidUID: INVALID_SOP_INSTANCE,
    MissingAttribute: MISSING_ATTRIBUTE,
    MissingValue: MISSING_ATTRIBUTE_VALUE,
    NotKept: RESOURCE_LIMITATION,
    Exception: PROCESSING_FAILURE,
}
STORAGE_COMMITMENT: Statuses = {IndexFault: RESOURCE_LIMITATION, Exception: PROCESSING_FAILURE}

# ErrorComment (0000,0902) is LO (PS3.7 Section E.1): 64 characters.
ERROR_COMMENT_LENGTH = 64

# A file or folder in a message of ours, with the blank after it: "/data/index.sqlite: ".
_PATH = re.compile(r"\S*/\S*\s?")


def status_of(error: Exception, statuses: Statuses) -> int:
    """Return the status of a failure."""
    return next(status for kind, status in statuses.items() if isinstance(error, kind))


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
