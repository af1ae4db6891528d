"""A stored or foreign Part 10 file read as far as its header; import, reindex and verify do it alike."""

import dataclasses
import os
from typing import BinaryIO

from index.dicom.header import HEAD_SIZE, read_header, tell_transfer_syntax
from index.dicom.part10 import FileMeta, NotPart10, read_meta
from index.dicom.scanning.byte_window import Window
from index.dicom.uids import check_header
from index.records import Header

# PS3.10 Section 8: the directory of a medium; it is no instance of a study.
DICOMDIR = "1.2.840.10008.1.3.10"


def read_object(file: BinaryIO) -> tuple[Header, FileMeta]:
    """Return a file's header and meta information; its UIDs are there and are UIDs.

    A file has no command set, and its meta information is often wrong: its data set is what counts.
    Raises NotPart10, Unreadable, InvalidUID, OSError.
    """
    descriptor = file.fileno()
    size = os.fstat(descriptor).st_size
    start = os.pread(descriptor, HEAD_SIZE, 0)
    meta = read_meta(Window(start, lambda offset, length: os.pread(descriptor, length, offset), size))
    if meta.sop_class_uid == DICOMDIR:
        raise NotPart10("a DICOMDIR, no instance")
    head = start[meta.offset :] or os.pread(descriptor, HEAD_SIZE, meta.offset)

    def more(offset: int, length: int) -> bytes:
        return os.pread(descriptor, length, meta.offset + offset)

    size -= meta.offset
    if not meta.transfer_syntax:
        syntax = tell_transfer_syntax(head, more, size)
        meta = dataclasses.replace(meta, transfer_syntax=syntax)
    header = read_header(head, meta.transfer_syntax, more=more, size=size)
    check_header(header)
    if not header.sop_class_uid:
        header = dataclasses.replace(header, sop_class_uid=meta.sop_class_uid)
    return header, meta
