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
C_STORE_RSP = 0x8001
RESPONSE = 0x8000

# Of requests (PS3.7 Sections 9.1 and 10.1).
NAMES = {
    C_STORE_RQ: "C-STORE",
    C_GET_RQ: "C-GET",
    C_FIND_RQ: "C-FIND",
    C_MOVE_RQ: "C-MOVE",
    C_ECHO_RQ: "C-ECHO",
    N_GET_RQ: "N-GET",
    N_SET_RQ: "N-SET",
    N_ACTION_RQ: "N-ACTION",
    N_CREATE_RQ: "N-CREATE",
    N_DELETE_RQ: "N-DELETE",
    C_CANCEL_RQ: "C-CANCEL",
}

# Requests with Requested SOP Class and Instance UIDs (PS3.7 Section 10.3); all others have Affected ones.
_REQUESTED = frozenset({N_GET_RQ, N_SET_RQ, N_ACTION_RQ, N_DELETE_RQ})

# Elements of group 0000.
_AFFECTED_SOP_CLASS_UID = 0x0002
_REQUESTED_SOP_CLASS_UID = 0x0003
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_PRIORITY = 0x0700
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000
_REQUESTED_SOP_INSTANCE_UID = 0x1001
_SUBOPERATIONS = 0x1020
_MOVE_ORIGINATOR_AET = 0x1030
_MOVE_ORIGINATOR_MESSAGE_ID = 0x1031

_UIDS = {
    False: (_AFFECTED_SOP_CLASS_UID, _AFFECTED_SOP_INSTANCE_UID),
    True: (_REQUESTED_SOP_CLASS_UID, _REQUESTED_SOP_INSTANCE_UID),
}

# PS3.7 Section E.1: any value but this one announces a data set.
NO_DATA_SET = 0x0101
HAS_DATA_SET = 0x0001
MEDIUM = 0
_MOST = 0xFFFF  # of a US

# PS3.5 Table 6.2-1, UI.
_UID_LENGTH = 64

_ELEMENT = struct.Struct("<HHL")
_US = struct.Struct("<H")
_UL = struct.Struct("<L")


class MoveOriginator(NamedTuple):
    """The requester of a C-MOVE, for its C-STORE sub-operations (PS3.7 Section 9.1.1.1)."""

    aet: str
    message_id: int


class Suboperations(NamedTuple):
    """How many sub-operations of a C-MOVE or C-GET remain, are completed, failed, have ended with a warning.

    None: not for this status (PS3.4 Sections C.4.2.3.1 and C.4.3.3.1).
    """

    remaining: int | None
    completed: int
    failed: int
    warning: int


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
            _encode(_COMMAND_DATA_SET_TYPE, _US.pack(HAS_DATA_SET)),
            _encode(_STATUS, _US.pack(status)),
        )
    )
    return _encode(0x0000, _UL.pack(len(body))) + body


def encode_store_request(
    sop_class_uid: str, sop_instance_uid: str, message_id: int, originator: MoveOriginator | None = None
) -> bytes:
    """Return an encoded C-STORE-RQ (PS3.7 Section 9.3.1.1)."""
    body = b"".join(
        (
            _encode_uid(_AFFECTED_SOP_CLASS_UID, sop_class_uid.encode("ascii")),
            _encode(_COMMAND_FIELD, _US.pack(C_STORE_RQ)),
            _encode(_MESSAGE_ID, _US.pack(message_id)),
            _encode(_PRIORITY, _US.pack(MEDIUM)),
            _encode(_COMMAND_DATA_SET_TYPE, _US.pack(HAS_DATA_SET)),
            _encode_uid(_AFFECTED_SOP_INSTANCE_UID, sop_instance_uid.encode("ascii")),
        )
    )
    if originator is not None:
        body += _encode(_MOVE_ORIGINATOR_AET, _even(originator.aet.encode("ascii", "replace"), b" "))
        body += _encode(_MOVE_ORIGINATOR_MESSAGE_ID, _US.pack(originator.message_id))
    return _encode(0x0000, _UL.pack(len(body))) + body


def encode_retrieve_response(
    request: tuple[int, str, int],
    status: int,
    suboperations: Suboperations | None,
    comment: str = "",
    *,
    has_data_set: bool = False,
) -> bytes:
    """Return an encoded C-MOVE-RSP or C-GET-RSP (PS3.7 Sections 9.3.3.2 and 9.3.4.2).

    `request`: its Command Field, SOP Class UID and Message ID. 65,535 stands for all higher counts.
    """
    field, sop_class_uid, message_id = request
    body = b"".join(
        (
            _encode_uid(_AFFECTED_SOP_CLASS_UID, sop_class_uid.encode("ascii")),
            _encode(_COMMAND_FIELD, _US.pack(field | RESPONSE)),
            _encode(_MESSAGE_ID_BEING_RESPONDED_TO, _US.pack(message_id)),
            _encode(_COMMAND_DATA_SET_TYPE, _US.pack(HAS_DATA_SET if has_data_set else NO_DATA_SET)),
            _encode(_STATUS, _US.pack(status)),
            _encode(_ERROR_COMMENT, _even(comment.encode("ascii", "replace"), b" ")) if comment else b"",
        )
    )
    for number, count in enumerate(suboperations or (), _SUBOPERATIONS):
        if count is not None:
            body += _encode(number, _US.pack(min(count, _MOST)))
    return _encode(0x0000, _UL.pack(len(body))) + body


def response_status(command: Command) -> tuple[int | None, str]:
    """Return status and ErrorComment of a response; None where it has no status."""
    elements = _elements(command.encoded)
    comment = elements.get(_ERROR_COMMENT, b"").strip(b"\0 ").decode("latin-1")
    return _number(elements, _STATUS), comment


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
