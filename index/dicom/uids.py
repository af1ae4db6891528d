"""Unique identifiers (PS3.5 Section 9.1): their form, and which of them an instance needs."""

import re
import uuid

from index.errors import InvalidUID
from index.records import Header

# PS3.5 Section 9.1. Components with leading zeros are not valid, but devices send them: they are taken.
UID = re.compile(r"[0-9.]{1,64}")
_PADDING = " \0"


def is_uid(text: str) -> bool:
    """Whether a text is 1 to 64 characters of a UID."""
    return bool(UID.fullmatch(text))


def check_uid(name: str, value: str) -> str:
    """Return the UID without padding. Raises InvalidUID where it is missing or not valid."""
    uid = value.rstrip(_PADDING)
    if not uid:
        raise InvalidUID(f"{name} is missing")
    if not is_uid(uid):
        raise InvalidUID(f"{name} = {uid[:64]!r} is not 1 to 64 characters of 0-9 and dot")
    return uid


def check_header(header: Header) -> None:
    """Raise InvalidUID where a UID that the index needs is missing or not valid."""
    for name, value in (
        ("Study Instance UID", header.study_uid),
        ("Series Instance UID", header.series_uid),
        ("SOP Instance UID", header.sop_instance_uid),
    ):
        check_uid(name, value)


def derived_uid(*names: str) -> str:
    """Return the UID of these names, always the same (PS3.5 Section B.2, by a name-based UUID)."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, ' '.join(names)).int}"
