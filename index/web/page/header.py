"""The header of an instance, read from its object: every element as a line of text."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID

from index.errors import Unreadable
from index.storage.data_set_file import DataSetFile

# Pixel data and what follows is not read (PS3.5 Section 8.1): groups 7FE0 to 7FFF.
PIXELS = 0x7FE00000
# The longest value that is read, in bytes; of text so many characters are shown.
MAX_VALUE = 4096
MAX_SHOWN = 200
# Lines of one page, and how deep sequences are followed.
MAX_LINES = 3000
MAX_DEPTH = 8
# What is read of a header that is compressed or has no end, in bytes.
MAX_HEADER = 16 * 1024 * 1024
# The length of a sequence that ends with a delimiter (PS3.5 Section 7.5).
UNDEFINED = 0xFFFFFFFF
_BINARY = frozenset(("OB", "OW", "OF", "OD", "OL", "OV", "UN"))


@dataclass(frozen=True, slots=True)
class Line:
    """An element: its depth, tag, VR, keyword and value as text."""

    depth: int
    tag: str
    vr: str
    keyword: str
    value: str


@dataclass(frozen=True, slots=True)
class HeaderText:
    """The lines of a header; `is_cut`: there are more. `fault`: why they end too soon, or empty."""

    lines: list[Line]
    is_cut: bool
    fault: str


def header_text(file: DataSetFile) -> HeaderText:
    """Return the header of a data set. Raises Unreadable, OSError."""
    syntax = UID(file.transfer_syntax)
    # Of a private syntax only its maker knows; most are explicit and little endian.
    is_known = syntax.is_transfer_syntax and not syntax.is_private
    if is_known and syntax.is_deflated:
        raise Unreadable("the data set is deflated: its header is not shown here")
    source = io.BufferedReader(_Raw(file), 64 * 1024)
    try:
        dataset = read_dataset(
            source,
            is_known and syntax.is_implicit_VR,
            not is_known or syntax.is_little_endian,
            stop_when=lambda tag, _vr, _length: tag >= PIXELS,
            defer_size=MAX_VALUE,
        )
    except OSError:
        raise
    except Exception as error:  # pydicom may raise anything for invalid bytes
        raise Unreadable(f"the header cannot be read: {type(error).__name__}: {error}") from error
    lines: list[Line] = []
    fault = ""
    try:
        for line in _lines(dataset, 0):
            if len(lines) >= MAX_LINES:
                return HeaderText(lines, is_cut=True, fault="")
            lines.append(line)
    except Exception as error:  # noqa: BLE001  the same
        fault = f"{type(error).__name__}: {error}"
    return HeaderText(lines, is_cut=False, fault=fault)


def _lines(dataset: Dataset, depth: int) -> Iterator[Line]:
    for tag in sorted(dataset.keys()):
        raw = dataset.get_item(tag, keep_deferred=True)
        # A long value was passed over; its element has no value.
        length = getattr(raw, "length", 0)
        if raw is not None and raw.value is None and length not in (0, UNDEFINED):
            yield _line(depth, tag, raw.VR or "", f"{length} bytes, not shown")
            continue
        try:
            element = dataset[tag]
        except Exception as error:  # noqa: BLE001  one element that cannot be read stops no other
            yield _line(depth, tag, "", f"cannot be read: {error}")
            continue
        if element.VR != "SQ":
            yield _line(depth, tag, element.VR, _value(element))
            continue
        yield _line(depth, tag, "SQ", f"{len(element.value)} items")
        for item in element.value if depth < MAX_DEPTH else ():
            yield from _lines(item, depth + 1)


def _line(depth: int, tag: BaseTag, vr: str, value: str) -> Line:
    return Line(depth, f"({tag.group:04X},{tag.element:04X})", vr, keyword_for_tag(tag), value)


def _value(element: DataElement) -> str:
    value: Any = element.value
    if isinstance(value, bytes) or element.VR in _BINARY:
        return f"{len(value or b'')} bytes: {bytes(value or b'')[:32].hex(' ')}"
    if element.VM > 1:
        return "\\".join(map(str, value))
    return "" if value is None else str(value)


class _Raw(io.RawIOBase):
    """A data set as a file that can be read at any place, up to MAX_HEADER bytes."""

    def __init__(self, file: DataSetFile) -> None:
        self._file = file
        self._at = 0
        self.name = "object"

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._file.size - self._at)
        if size <= 0:
            return 0
        with memoryview(buffer) as whole:
            self._file.read_into([whole.cast("B")[:size]], self._at)
        self._at += size
        return size
