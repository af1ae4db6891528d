"""Acknowledgements: MSH, MSA and, where something is wrong, ERR (HL7 v2.5.1 Section 2.9)."""

import itertools
import re
import time

from index.orders.hl7.faults import TEXTS, BadMessage
from index.orders.hl7.message import Message

ACCEPT, ERROR, REJECT = "AA", "AE", "AR"
# From this version on ERR has its fields by name; before it is one composite (Section 2.15.5).
_NAMED_FIELDS = (2, 5)
_VERSION = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){0,3}")
_NUMBERS = itertools.count(1)
# ST of MSA-3 holds 80 characters.
_SHORT = 80
# What ERR-8 repeats of a value that is wrong.
_LONG = 1000


def acknowledge(message: Message | None, fault: BadMessage | None = None) -> tuple[str, bytes]:
    """Return the acknowledgement code and message; `message` is None where it could not be taken apart."""
    answer = ACCEPT if fault is None else REJECT if fault.reject else ERROR
    msh = message.first("MSH") if message else None

    def said(field: int, component: int = 0) -> str:
        return _escaped(message.value(msh, field, component)) if message else ""

    version = said(12, 1) or "2.5.1"
    trigger = said(9, 2)
    now = time.strftime("%Y%m%d%H%M%S")
    charset = "~".join(_escaped(message.part(one)) for one in message.repetitions(msh, 18)) if message else ""
    header = [
        "MSH", "^~\\&", said(5), said(6), said(3), said(4), now, "",
        f"ACK^{trigger}^ACK" if trigger else "ACK",
        f"{now}{next(_NUMBERS)}", said(11, 1) or "P", version, "", "", "", "", "", charset,
    ]  # fmt: skip
    segments = ["|".join(header).rstrip("|")]
    segments.append(
        "|".join(["MSA", answer, said(10), _escaped(fault.text[:_SHORT]) if fault else ""]).rstrip("|")
    )
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
    place, text = f"{fault.segment}^{fault.number}^{fault.field}".rstrip("^"), TEXTS[fault.code]
    if _number(version) < _NAMED_FIELDS:
        return f"ERR|{place}^{'' if fault.field else '^'}{fault.code}&{text}&HL70357"
    return f"ERR||{place}|{fault.code}^{text}^HL70357|E||||{_escaped(fault.text[:_LONG])}"


def _number(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split("."))) if _VERSION.fullmatch(version) else _NAMED_FIELDS


_NAMES = {"\\": "E", "|": "F", "^": "S", "&": "T", "~": "R", "\r": ".br", "\n": ".br"}
# Delimiters, and control characters, of which some are MLLP's own.
_SPECIAL = re.compile(r"[\\|^&~\x00-\x1f\x7f]")


def _escaped(text: str) -> str:
    """Escape what a field cannot hold as it is (HL7 v2.5.1 Section 2.7)."""
    return _SPECIAL.sub(lambda sign: f"\\{_NAMES.get(sign[0], f'X{ord(sign[0]):02X}')}\\", text)
