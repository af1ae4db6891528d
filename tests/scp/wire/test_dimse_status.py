"""The status of each failure; ErrorComment (0000,0902) tells the reason, and nothing of our files."""

import errno
import os

import pytest

from index import (
    BadStepValue,
    DatabaseFault,
    Disagreement,
    IndexFault,
    InvalidUID,
    NotKept,
    StepEnded,
    TooLarge,
    Unreadable,
)
from scp.wire.status import (
    C_STORE,
    ERROR_COMMENT_LENGTH,
    PROCEDURE_STEP,
    STORAGE_COMMITMENT,
    Statuses,
    error_comment,
    status_of,
)

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/dicom/incoming/0000000000000000000001.dcm")


def not_kept(path: str) -> NotKept:
    """Return what index/storage/object_writer.py raises."""
    error = NotKept(f"{path}: {FULL.strerror}")
    error.__cause__ = FULL
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (not_kept("/srv/dicom/incoming/" + "0" * 60), "No space left on device"),
        (not_kept("imagingstudyd-data/incoming/1"), "No space left on device"),
        (FULL, "No space left on device"),
        (OSError("/srv/dicom"), "OSError"),
        (NotKept("/srv/dicom/journal/0: the journal is full"), "the journal is full"),
        (NotKept("database: database or disk is full"), "database: database or disk is full"),
        (DatabaseFault("/srv/dicom/index.sqlite: file is not a database (x)"), "file is not a database (x)"),
        (NotKept("free space is 1 bytes, below 2"), "free space is 1 bytes, below 2"),
        (InvalidUID("SOP Instance UID = '../1' is none"), "SOP Instance UID = '../1' is none"),
        (KeyError("/srv/dicom"), "internal fault: KeyError"),
        (RecursionError("in /usr/lib/python3/x.py"), "internal fault: RecursionError"),
    ],
)
def test_a_comment_tells_the_reason_and_not_our_path(error: Exception, expected: str) -> None:
    assert expected == error_comment(error)


def test_a_comment_is_a_long_string() -> None:
    """PS3.7 Section E.1: LO, which has 64 characters, no backslash and no control characters (PS3.5 6.2)."""
    said = error_comment("Gr\xf6\xdfe \\ \x1b[31m\n" + "x" * 100)

    assert "Gr??e ? ?[31m?" == said[:14]
    assert ERROR_COMMENT_LENGTH == len(said)


@pytest.mark.parametrize(
    ("statuses", "kind", "expected"),
    [
        (C_STORE, Disagreement, 0xA900),
        (C_STORE, InvalidUID, 0xC001),
        (C_STORE, Unreadable, 0xC000),
        *((C_STORE, kind, 0xA700) for kind in (NotKept, TooLarge, DatabaseFault, OSError, KeyError)),
        (PROCEDURE_STEP, BadStepValue, 0x0106),
        (PROCEDURE_STEP, InvalidUID, 0x0117),
        (PROCEDURE_STEP, NotKept, 0x0213),
        *((PROCEDURE_STEP, kind, 0x0110) for kind in (StepEnded, DatabaseFault, KeyError)),
        (STORAGE_COMMITMENT, IndexFault, 0x0213),
        (STORAGE_COMMITMENT, KeyError, 0x0110),
    ],
)
def test_the_status_of_a_failure(statuses: Statuses, kind: type[Exception], expected: int) -> None:
    """PS3.4 Tables B.2-1 and F.7.2-2, PS3.7 Annex C."""
    assert expected == status_of(kind("why"), statuses)
