"""The fault of a message, as its acknowledgement has it (HL7 v2.5.1 Section 2.9, Table 0357)."""

from enum import StrEnum


class Code(StrEnum):
    """Message error condition codes of HL7 Table 0357 that we use."""

    SEQUENCE = "100"
    REQUIRED = "101"
    DATA_TYPE = "102"
    TABLE_VALUE = "103"
    TOO_LONG = "104"
    MESSAGE_TYPE = "200"
    EVENT = "201"
    UNKNOWN_KEY = "204"
    INTERNAL = "207"


TEXTS = {
    Code.SEQUENCE: "Segment sequence error",
    Code.REQUIRED: "Required field missing",
    Code.DATA_TYPE: "Data type error",
    Code.TABLE_VALUE: "Table value not found",
    Code.TOO_LONG: "Value too long",
    Code.MESSAGE_TYPE: "Unsupported message type",
    Code.EVENT: "Unsupported event code",
    Code.UNKNOWN_KEY: "Unknown key identifier",
    Code.INTERNAL: "Application internal error",
}


class BadMessage(Exception):
    """Raised when a message cannot be taken. `location` is a segment or field, such as ORC-2.

    `number` counts the segments of that name. `reject`: the answer is AR, not AE, since this kind of message
    is never taken.
    """

    def __init__(
        self, code: Code, location: str, text: str, *, number: int = 1, reject: bool = False
    ) -> None:
        self.text = f"{location}: {text}"
        super().__init__(self.text)
        self.code = code
        self.segment, _, self.field = location.partition("-")
        self.number = number
        self.reject = reject
