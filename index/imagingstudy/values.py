"""DICOM values to FHIR primitives. A value that FHIR cannot hold becomes empty."""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from index.records import Attributes

LONGEST_STRING = 1024 * 1024
"""FHIR string: at most 1 MB (R4 and R5 datatypes, string); counted in UTF-8."""

LARGEST_INTEGER = 2147483647
"""FHIR integer and unsignedInt are of 32 bits."""

_LONGEST_NUMBER = 12
"""Characters of an IS value (PS3.5 Section 6.2)."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|[^\S ]")
_OID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))*")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s<>\"{}|\\^`]+")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_TOKEN = re.compile(r"[^\s]+( [^\s]+)*")


def clean(value: Any) -> str:
    """Return a FHIR string: control characters and other white space become spaces, the ends are trimmed."""
    if not isinstance(value, str):
        return ""
    text: str = value
    if not text.isprintable():
        text = _UNPRINTABLE.sub(" ", text)
    text = text.strip()
    if len(text) * 4 > LONGEST_STRING and len(text.encode()) > LONGEST_STRING:
        return ""
    return text


def code(value: Any) -> str:
    """Return a FHIR code: words separated by single spaces. Empty: the value is not one."""
    text = clean(value)
    return text if _TOKEN.fullmatch(text) else ""


def unsigned(value: Any) -> int | None:
    """Return a FHIR unsignedInt of an IS value (PS3.5 Section 6.2). None: negative, textual or too large."""
    if not isinstance(value, str):
        return None
    digits = value.strip(" \0").removeprefix("+")
    if not (digits.isdigit() and digits.isascii()) or len(digits) > _LONGEST_NUMBER:
        return None
    number = int(digits)
    return number if number <= LARGEST_INTEGER else None


def is_oid(uid: str) -> bool:
    """Whether `urn:oid:` and this UID is a DSTU2 oid: no leading zeros, no empty components."""
    return _OID.fullmatch(uid) is not None


def is_uri(text: str) -> bool:
    """Return whether the text is an absolute URI without the characters that RFC 3986 excludes."""
    return _URI.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """Whether the text is a FHIR id."""
    return _ID.fullmatch(text) is not None


def hashed_id(*parts: Any) -> str:
    """Return a FHIR id that is a function of the parts (JSON values)."""
    canonical = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:32]


def fhir_id(text: str) -> str:
    """Return the text where it is a FHIR id, else a hash of it."""
    return text if is_id(text) else hashed_id(text)


def first(attributes: Attributes, keyword: str) -> str:
    """Return the cleaned value of an attribute, the first of several. Empty: none."""
    value = attributes.get(keyword)
    if value is None or isinstance(value, str):  # nearly always
        return clean(value)
    return next(iter(texts(attributes, keyword)), "")


def texts(attributes: Attributes, keyword: str) -> list[str]:
    """Return the cleaned values of an attribute that are not empty."""
    value = attributes.get(keyword)
    values = value if isinstance(value, (list, tuple)) else [value]
    return [text for text in map(clean, values) if text]


def items(attributes: Attributes, keyword: str) -> list[Attributes]:
    """Return the items of a sequence attribute that are not empty."""
    value = attributes.get(keyword)
    if value is None:
        return []
    if isinstance(value, Mapping):
        value = [value]
    return (
        [item for item in value if isinstance(item, Mapping) and item]
        if isinstance(value, (list, tuple))
        else []
    )
