"""Encodes data sets for the tests of the header reader, also in ways that break the standard."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from struct import pack
from typing import Any
from unittest import mock

from index.dicom.header import read_header
from index.dicom.scanning.encodings import UnknownEncoding
from index.records import Header

LONG = {"OB", "OW", "SQ", "UC", "UN", "UR", "UT"}
UNDEFINED = 0xFFFFFFFF

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
BIG = "1.2.840.10008.1.2.2"

SOP = (0x00080018, "UI", b"1.2.3.1\0")
STUDY = (0x0020000D, "UI", b"1.2.3.2\0")
SERIES = (0x0020000E, "UI", b"1.2.3.3\0")
UIDS = (SOP, STUDY, SERIES)


@dataclass(frozen=True)
class Items:
    """A sequence: its items' elements, and which lengths are undefined."""

    items: Sequence[Sequence[tuple[int, str, Any]]]
    open: bool = False
    open_items: bool = False


@dataclass(frozen=True)
class Writer:
    """One encoding: encodes elements of (tag, VR, bytes | int | Items)."""

    explicit: bool = True
    little: bool = True

    def data_set(self, elements: Sequence[tuple[int, str, Any]]) -> bytes:
        return b"".join(self.element(*element) for element in elements)

    def element(self, tag: int, vr: str, value: Any, length: int | None = None) -> bytes:
        # PS3.5 Section 6.2.2: values of VR UN are Implicit VR Little Endian in every transfer syntax.
        inner = replace(self, explicit=False, little=True) if vr == "UN" else self
        encoded = inner.value(value)
        if length is None:
            length = UNDEFINED if isinstance(value, Items) and value.open else len(encoded)
        return self.header(tag, vr, length) + encoded

    def value(self, value: Any) -> bytes:
        if isinstance(value, int):
            return pack(self._order + "H", value)
        if isinstance(value, Items):
            return b"".join(map(self._item(is_open=value.open_items), value.items)) + (
                self._bare(0xFFFEE0DD, 0) if value.open else b""
            )
        return value

    def header(self, tag: int, vr: str, length: int) -> bytes:
        if not self.explicit:
            return self._bare(tag, length)
        start = pack(self._order + "HH", tag >> 16, tag & 0xFFFF) + vr.encode()
        return start + (
            pack(self._order + "HI", 0, length) if vr in LONG else pack(self._order + "H", length)
        )

    @property
    def _order(self) -> str:
        return "<" if self.little else ">"

    def _bare(self, tag: int, length: int) -> bytes:
        return pack(self._order + "HHI", tag >> 16, tag & 0xFFFF, length)

    def _item(self, *, is_open: bool) -> Any:
        def encode(elements: Sequence[tuple[int, str, Any]]) -> bytes:
            encoded = self.data_set(elements)
            if is_open:
                return self._bare(0xFFFEE000, UNDEFINED) + encoded + self._bare(0xFFFEE00D, 0)
            return self._bare(0xFFFEE000, len(encoded)) + encoded

        return encode


WRITERS = {IMPLICIT: Writer(explicit=False), EXPLICIT: Writer(), BIG: Writer(little=False)}


def explicit(*elements: tuple[int, str, Any]) -> bytes:
    """A data set in Explicit VR Little Endian with the three UIDs and these elements, in ascending order."""
    return Writer().data_set(sorted((*UIDS, *elements), key=lambda element: element[0]))


def read_by_pydicom(data: bytes | memoryview, syntax: str) -> Header:
    """Read as `read_header` does, by pydicom's parser alone."""
    with mock.patch("index.dicom.header.scan", side_effect=UnknownEncoding):
        return read_header(data, syntax)
