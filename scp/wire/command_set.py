"""Command sets (PS3.7 Section 6.3 and Annex E), read and written without pydicom."""

import struct
from typing import NamedTuple

# PS3.7 Annex E.1: Command Field. Responses have the highest bit set.
C_STORE_RQ = 0x0001
C_GET_RQ = 0x0010
C_FIND_RQ = 0x0020
C_MOVE_RQ = 0x0021
C_ECHO_RQ = 0x0030
N_GET_RQ = 0x0110
N_SET_RQ = 0x0120
N_ACTION_RQ = 0x0130
N_CREATE_RQ = 0x0140
N_DELETE_RQ = 0x0150
C_CANCEL_RQ = 0x0FFF
RESPONSE = 0x8000

# Requests with Requested SOP Class and Instance UIDs (PS3.7 Section 10.3); all others have Affected ones.
_REQUESTED = frozenset({N_GET_RQ, N_SET_RQ, N_ACTION_RQ, N_DELETE_RQ})

# Elements of group 0000.
_AFFECTED_SOP_CLASS_UID = 0x0002
_REQUESTED_SOP_CLASS_UID = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_REQUESTED_SOP_INSTANCE_UID = 0x1001

_UIDS = {
    False: (_AFFECTED_SOP_CLASS_UID, _AFFECTED_SOP_INSTANCE_UID),
    True: (_REQUESTED_SOP_CLASS_UID, _REQUESTED_SOP_INSTANCE_UID),
}

NO_DATA_SET = 0x0101
# Any other value (PS3.7 Section E.1).
DATA_SET_FOLLOWS = 0x0001

# PS3.5 Table 6.2-1, UI.
_UID_LENGTH = 64

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")
_UL = struct.Struct("<L")


class InvalidCommandSet(ValueError):
    """Raised when the bytes are not a valid command set."""


class Command(NamedTuple):
    """A command set. UIDs are without padding, and empty where missing."""

    encoded: bytes
    field: int
    message_id: int
    has_data_set: bool
    sop_class_uid: str
    sop_instance_uid: str
    # The UIDs as received, for the response: peers that pad UIDs with blanks expect the same bytes back.
    sop_class_value: bytes
    sop_instance_value: bytes

    @property
    def is_response(self) -> bool:
        """Whether it answers a request of ours."""
        return bool(self.field & RESPONSE)

    @property
    def uid_prefix(self) -> str:
        """The prefix of its UIDs' keywords: Requested or Affected."""
        return "Requested" if self.field in _REQUESTED else "Affected"


def parse(encoded: bytes) -> Command:
    """Read a command set. Raises InvalidCommandSet."""
    elements = _elements(encoded)
    field = _number(elements, _COMMAND_FIELD)
    if field is None:
        raise InvalidCommandSet("the command set has no Command Field (0000,0100)")
    data_set_type = _number(elements, _COMMAND_DATA_SET_TYPE)
    if data_set_type is None:
        raise InvalidCommandSet("the command set has no Command Data Set Type (0000,0800)")
    number = _MESSAGE_ID_BEING_RESPONDED_TO if field & RESPONSE or field == C_CANCEL_RQ else _MESSAGE_ID
    message_id = _number(elements, number)
    if message_id is None:
        raise InvalidCommandSet(f"the command set has no (0000,{number:04X}), the number of its message")
    sop_class, instance = (elements.get(number, b"") for number in _UIDS[field in _REQUESTED])
    return Command(
        encoded,
        field,
        message_id,
        data_set_type != NO_DATA_SET,
        _uid(sop_class),
        _uid(instance),
        sop_class,
        instance,
    )


def encode_response(command: Command, status: int, comment: str = "") -> bytes:
    """Return the encoded response to a request (PS3.7 Section 9.3)."""
    body = b"".join(
        (
            _encode_uid(_AFFECTED_SOP_CLASS_UID, command.sop_class_value),
            _encode(_COMMAND_FIELD, _US.pack(command.field | RESPONSE)),
            _encode(_MESSAGE_ID_BEING_RESPONDED_TO, _US.pack(command.message_id)),
            _encode(_COMMAND_DATA_SET_TYPE, _US.pack(NO_DATA_SET)),
            _encode(_STATUS, _US.pack(status)),
            _encode(_ERROR_COMMENT, _even(comment.encode("ascii", "replace"), b" ")) if comment else b"",
            _encode_uid(_AFFECTED_SOP_INSTANCE_UID, command.sop_instance_value),
        )
    )
    return _encode(0x0000, _UL.pack(len(body))) + body


def encode_answer(sop_class_uid: str, message_id: int, status: int) -> bytes:
    """Return the encoded C-FIND response that an identifier follows (PS3.7 Section 9.3.2.2)."""
    body = b"".join(
        (
            _encode_uid(_AFFECTED_SOP_CLASS_UID, sop_class_uid.encode()),
            _encode(_COMMAND_FIELD, _US.pack(C_FIND_RQ | RESPONSE)),
            _encode(_MESSAGE_ID_BEING_RESPONDED_TO, _US.pack(message_id)),
            _encode(_COMMAND_DATA_SET_TYPE, _US.pack(DATA_SET_FOLLOWS)),
            _encode(_STATUS, _US.pack(status)),
        )
    )
    return _encode(0x0000, _UL.pack(len(body))) + body


def _elements(encoded: bytes) -> dict[int, bytes]:
    found = {}
    position, size = 0, len(encoded)
    while position < size:
        if position + _ELEMENT.size > size:
            raise InvalidCommandSet("the command set ends within an element")
        group, number, length = _ELEMENT.unpack_from(encoded, position)
        position += _ELEMENT.size
        end = position + length
        if group:
            raise InvalidCommandSet(
                f"the command set holds ({group:04X},{number:04X}), not a command element"
            )
        if end > size:
            raise InvalidCommandSet(f"(0000,{number:04X}) is longer than the command set: {length} bytes")
        found[number] = encoded[position:end]
        position = end
    return found


def _number(elements: dict[int, bytes], number: int) -> int | None:
    value = elements.get(number, b"")
    return int(_US.unpack(value)[0]) if len(value) == _US.size else None


def _uid(value: bytes) -> str:
    return value.strip(b"\0 ").decode("latin-1")


def _encode(number: int, value: bytes) -> bytes:
    return _ELEMENT.pack(0, number, len(value)) + value


def _encode_uid(number: int, value: bytes) -> bytes:
    if not value or len(value) > _UID_LENGTH:
        return b""  # the response leaves out what cannot be a UID
    return _encode(number, _even(value, b"\0"))


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding * (len(value) % 2)
