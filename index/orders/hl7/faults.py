"""What is wrong with a message, as an acknowledgement says it (HL7 v2.5.1 Section 2.9, Table 0357)."""

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
    """A message that cannot be taken: the segment and field, the code, and what is wrong with it.

    `reject` says AR instead of AE: the message is of no kind that we take at all.
    """

    def __init__(self, code: Code, place: str, text: str, *, number: int = 1, reject: bool = False) -> None:
        super().__init__(f"{place}: {text}")
        self.code = code
        self.segment, _, self.field = place.partition("-")
        self.number = number
        self.text = f"{place}: {text}"
        self.reject = reject
