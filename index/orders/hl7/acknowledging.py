"""Acknowledgements: MSH, MSA and, for a fault, ERR (HL7 v2.5.1 Section 2.9)."""

import itertools
import re
import time

from index.orders.hl7.faults import TEXTS, BadMessage
from index.orders.hl7.message import Message

ACCEPT, ERROR, REJECT = "AA", "AE", "AR"
# From this version on ERR has single fields, before it had one composite field (Section 2.15.5).
_SINGLE_FIELDS = (2, 5)
_VERSION = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}")
_NUMBERS = itertools.count(1)
# Characters of MSA-3 (ST), and of ERR-8.
_MSA_3 = 80
_ERR_8 = 1000


def acknowledge(message: Message | None, fault: BadMessage | None = None) -> tuple[str, bytes]:
    """Return the acknowledgement code and message; `message` is None if it could not be read at all."""
    answer = ACCEPT if fault is None else REJECT if fault.reject else ERROR
    msh = message.first("MSH") if message else None

    def value(field: int, component: int = 0) -> str:
        return _escaped(message.value(msh, field, component)) if message else ""

    version = value(12, 1) or "2.5.1"
    trigger = value(9, 2)
    now = time.strftime("%Y%m%d%H%M%S")
    charset = "~".join(_escaped(message.part(one)) for one in message.repetitions(msh, 18)) if message else ""
    header = [
        "MSH", "^~\\&", value(5), value(6), value(3), value(4), now, "",
        f"ACK^{trigger}^ACK" if trigger else "ACK",
        f"{now}{next(_NUMBERS)}", value(11, 1) or "P", version, "", "", "", "", "", charset,
    ]  # fmt: skip
    msa = ["MSA", answer, value(10), _escaped(fault.text[:_MSA_3]) if fault else ""]
    segments = ["|".join(fields).rstrip("|") for fields in (header, msa)]
    if fault:
        segments.append(_error(fault, version))
    codec = message.codec if message else "utf-8"
    return answer, "".join(f"{segment}\r" for segment in segments).encode(codec, "replace")


def refuse(content: bytes, fault: BadMessage) -> bytes:
    """Return the acknowledgement of a message that is not taken apart."""
    return acknowledge(header_of(content), fault)[1]


def header_of(content: bytes) -> Message | None:
    """Return a message as far as an answer needs it, where it cannot be decoded."""
    try:
        return Message(content, header_only=True)
    except BadMessage:
        return None


def _error(fault: BadMessage, version: str) -> str:
    location, text = f"{fault.segment}^{fault.number}^{fault.field}".rstrip("^"), TEXTS[fault.code]
    if _number(version) < _SINGLE_FIELDS:
        return f"ERR|{location}^{'' if fault.field else '^'}{fault.code}&{text}&HL70357"
    return f"ERR||{location}|{fault.code}^{text}^HL70357|E||||{_escaped(fault.text[:_ERR_8])}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split("."))) if _VERSION.fullmatch(version) else _SINGLE_FIELDS


_ESCAPES = {"\\": "E", "|": "F", "^": "S", "&": "T", "~": "R", "\r": ".br", "\n": ".br"}
# Delimiters, and control characters, some of which frame messages in MLLP.
_SPECIAL = re.compile(r"[\\|^&~\x00-\x1f\x7f]")


def _escaped(text: str) -> str:
    """Escape the characters that a field cannot contain (HL7 v2.5.1 Section 2.7)."""
    return _SPECIAL.sub(lambda sign: f"\\{_ESCAPES.get(sign[0], f'X{ord(sign[0]):02X}')}\\", text)
