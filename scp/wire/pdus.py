"""Protocol data units as bytes (PS3.8 Section 9.3): types, headers, bounds, reasons."""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import Protocol

# PS3.8 Section 9.3.1: type, reserved, length.
PDU_HEADER = struct.Struct(">BxL")

# PS3.8 Section 9.3.5.1: length, context id, and the message control header, the first byte of the data.
PDV_HEADER = struct.Struct(">LBB")
CONTEXT_AND_CONTROL_LENGTH = 2

# PS3.8 Annex E.2, the message control header; its other bits are not checked.
COMMAND = 0x01
DATA_SET = 0x00
LAST = 0x02

A_ASSOCIATE_RQ = 0x01
A_ASSOCIATE_AC = 0x02
A_ASSOCIATE_RJ = 0x03
P_DATA_TF = 0x04
A_RELEASE_RQ = 0x05
A_RELEASE_RP = 0x06
A_ABORT = 0x07

# Room for 128 presentation contexts with every transfer syntax; it fits the buffer of wire/connection.py.
ASSOCIATE_LENGTH = 256 * 1024

# Least and greatest length of each type except P-DATA-TF, whose length is negotiated.
PDU_LENGTHS = {
    0x01: (68, ASSOCIATE_LENGTH),
    0x02: (68, ASSOCIATE_LENGTH),
    0x03: (4, 4),
    0x05: (4, 4),
    0x06: (4, 4),
    0x07: (4, 4),
}


# What is sent by one write, and the longest of our PDUs, in bytes. More in one write gains nothing.
SEND_LENGTH = 256 * 1024
_LONGEST_SENT = 64 * 1024


class AbortReason(IntEnum):
    """The reason of an abort by the service provider (PS3.8 Section 9.3.8)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    INVALID_PARAMETER_VALUE = 6


class ProtocolViolation(Exception):
    """Raised when the peer breaks the protocol; `reason` is for the abort."""

    def __init__(self, reason: AbortReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class InvalidMessage(ValueError):
    """Raised when presentation data values are not a valid or expected message."""


def fragment_pdus(context_id: int, kind: int, encoded: bytes, max_pdu: int) -> bytes:
    """Return a COMMAND or DATA_SET in P-DATA-TF PDUs of at most `max_pdu` bytes; 0: no limit (PS3.8 D.1)."""
    most = _even(max_pdu - PDV_HEADER.size)
    if most <= 0:
        most = max(len(encoded), 1)
    pdus = bytearray()
    for start in range(0, len(encoded), most):
        piece = encoded[start : start + most]
        control = kind | (LAST if start + most >= len(encoded) else 0)
        pdus += PDU_HEADER.pack(P_DATA_TF, PDV_HEADER.size + len(piece))
        pdus += PDV_HEADER.pack(len(piece) + CONTEXT_AND_CONTROL_LENGTH, context_id, control) + piece
    return bytes(pdus)


def _even(room: int) -> int:
    """Return the longest fragment for so much room: it has an even length (PS3.8 Section 9.3.1)."""
    return room // 2 * 2 or room


class DataSource(Protocol):
    """A data set that is sent. `size` is in bytes."""

    size: int

    def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
        """Fill these buffers, one after the other, with the bytes from `offset` on. Raises OSError."""


class BytesSource:
    """A data set in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self.size = len(data)

    def read_into(self, buffers: Sequence[memoryview], offset: int) -> None:
        """See DataSource."""
        for buffer in buffers:
            buffer[:] = self._data[offset : offset + len(buffer)]
            offset += len(buffer)


def message_pdus(
    context_id: int, encoded: bytes, data: DataSource | None, max_pdu: int, memory: memoryview
) -> Iterator[memoryview]:
    """Yield a message in P-DATA-TF PDUs of at most `max_pdu` bytes (PS3.8 Annex D), several at a time.

    They are views of `memory`, of SEND_LENGTH bytes, valid until the next one. `data` is read as it is sent.
    Raises OSError where it cannot be read.
    """
    command = fragment_pdus(context_id, COMMAND, encoded, max_pdu)
    if data is None or len(command) > len(memory) // 2:
        yield memoryview(command)
        command = b""
    if data is None:
        return
    memory[: len(command)] = command
    used, offset = len(command), 0
    most = _even(min(max_pdu or _LONGEST_SENT, _LONGEST_SENT) - PDV_HEADER.size)
    most = most if most > 0 else _LONGEST_SENT
    while True:
        used, done = _fill(context_id, data, offset, most, memory, used)
        yield memory[:used]
        if done >= data.size:
            return
        offset, used = done, 0


def _fill(
    context_id: int, data: DataSource, offset: int, most: int, memory: memoryview, used: int
) -> tuple[int, int]:
    """Put PDUs behind the `used` bytes; return how many are used then, and how far the data set has come."""
    begun = offset
    pieces: list[memoryview] = []
    headers = PDU_HEADER.size + PDV_HEADER.size
    while not pieces or (offset < data.size and used + headers + most <= len(memory)):
        length = min(most, data.size - offset)
        offset += length
        PDU_HEADER.pack_into(memory, used, P_DATA_TF, PDV_HEADER.size + length)
        PDV_HEADER.pack_into(
            memory,
            used + PDU_HEADER.size,
            length + CONTEXT_AND_CONTROL_LENGTH,
            context_id,
            LAST if offset >= data.size else 0,
        )
        used += headers
        pieces.append(memory[used : used + length])
        used += length
    data.read_into(pieces, begun)
    return used, offset
