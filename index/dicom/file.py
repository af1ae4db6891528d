"""The header of a Part 10 file (PS3.10): import, reindex and verify read it by the same function."""

import dataclasses
from typing import Protocol

from index.dicom.header import HEAD_SIZE, detect_transfer_syntax, read_header
from index.dicom.part10 import FileMeta, NotPart10, read_meta
from index.dicom.scanning.byte_window import ByteWindow
from index.dicom.uids import check_header
from index.records import Header

# PS3.10 Section 8: the directory of a medium, not an instance of a study.
DICOMDIR = "1.2.840.10008.1.3.10"


class Readable(Protocol):
    """A file that is read at any place."""

    size: int

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes from an offset; fewer at the end. Raises OSError."""


def read_object(file: Readable) -> tuple[Header, FileMeta]:
    """Return a file's header, whose UIDs are valid, and its meta information.

    The meta information of files is often wrong: the data set counts.
    Raises NotPart10, Unreadable, InvalidUID, OSError.
    """
    size = file.size
    start = file.read_at(0, HEAD_SIZE)
    meta = read_meta(ByteWindow(start, file.read_at, size))
    if meta.sop_class_uid == DICOMDIR:
        raise NotPart10("a DICOMDIR, not an instance")
    head = start[meta.offset :] or file.read_at(meta.offset, HEAD_SIZE)

    def more(offset: int, length: int) -> bytes:
        return file.read_at(meta.offset + offset, length)

    size -= meta.offset
    if not meta.transfer_syntax:
        syntax = detect_transfer_syntax(head, more, size)
        meta = dataclasses.replace(meta, transfer_syntax=syntax)
    header = read_header(head, meta.transfer_syntax, more=more, size=size)
    check_header(header)
    if not header.sop_class_uid:
        header = dataclasses.replace(header, sop_class_uid=meta.sop_class_uid)
    return header, meta
