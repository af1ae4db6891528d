"""Protocol data units as bytes (PS3.8 Section 9.3): types, headers, bounds, reasons."""

import struct
from enum import IntEnum

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
A_ASSOCIATE_RJ = 0x03
P_DATA_TF = 0x04

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


def message_pdus(context_id: int, kind: int, encoded: bytes, max_pdu: int) -> bytes:
    """Return a COMMAND or DATA_SET in P-DATA-TF PDUs of at most `max_pdu` bytes; 0: no limit (PS3.8 D.1)."""
    most = max_pdu - PDV_HEADER.size
    if most <= 0:
        most = max(len(encoded), 1)
    pdus = bytearray()
    for start in range(0, len(encoded), most):
        piece = encoded[start : start + most]
        control = kind | (LAST if start + most >= len(encoded) else 0)
        pdus += PDU_HEADER.pack(P_DATA_TF, PDV_HEADER.size + len(piece))
        pdus += PDV_HEADER.pack(len(piece) + CONTEXT_AND_CONTROL_LENGTH, context_id, control) + piece
    return bytes(pdus)
