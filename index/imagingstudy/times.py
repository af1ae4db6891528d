"""DICOM dates and times to FHIR date and dateTime.

FHIR wants seconds and a zone with every time; where the zone is not known, only the date is written.
"""

import datetime as dt
import re
import zoneinfo
from functools import lru_cache

_DATE = re.compile(r"[0-9]{8}")
_TIME = re.compile(r"([01][0-9]|2[0-3])([0-5][0-9])(?:([0-5][0-9])(\.[0-9]{1,6})?)?")
_OFFSET = re.compile(r"([+-])(0[0-9]|1[0-4]):?([0-5][0-9])")
_WIDEST = dt.timedelta(hours=14)
"""FHIR dateTime allows no offset beyond 14:00."""


@lru_cache(maxsize=64)
def zone(name: str) -> dt.tzinfo | None:
    """Return the zone of an offset like +01:00 or +0100, or of an IANA name. None: it is neither."""
    fixed = _OFFSET.fullmatch(name)
    if fixed:
        sign, hours, minutes = fixed.groups()
        offset = dt.timedelta(hours=int(hours), minutes=int(minutes))
        if offset > _WIDEST:
            return None
        return dt.timezone(-offset if sign == "-" else offset)
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return None


def date(value: str) -> str:
    """Return a FHIR date of a DA value, YYYYMMDD only (PS3.5 Section 6.2). Empty: there is no such day."""
    if not _DATE.fullmatch(value):
        return ""
    try:
        return dt.date(int(value[:4]), int(value[4:6]), int(value[6:])).isoformat()
    except ValueError:
        return ""


def is_offset(value: str) -> bool:
    """Return whether a TimezoneOffsetFromUTC (0008,0201) can be in a dateTime."""
    return _OFFSET.fullmatch(value) is not None and zone(value) is not None


def is_time(value: str) -> bool:
    """Return whether a TM value can be in a dateTime: hours and minutes at least, no leap second."""
    return _TIME.fullmatch(value) is not None


def date_time(day: str, time: str, offset: str, configured: str | None) -> str:
    """Return a FHIR dateTime of a DA and a TM value, TimezoneOffsetFromUTC and the configured zone.

    HHMM gets zero seconds, as FHIR allows; with hours alone, a malformed time or no zone it is a date.
    """
    written = date(day)
    parts = _TIME.fullmatch(time)
    if not written or not parts:
        return written
    hours, minutes, seconds, fraction = parts.groups()
    clock = f"{hours}:{minutes}:{seconds or '00'}"
    suffix = _suffix(f"{written}T{clock}", offset, configured)
    if not suffix:
        return written
    return f"{written}T{clock}{(fraction or '').rstrip('.0')}{suffix}"


def is_before(one: str, other: str) -> bool:
    """Return whether a FHIR dateTime is before another; where one is a date, the dates are compared."""
    if "T" in one and "T" in other:
        return dt.datetime.fromisoformat(one) < dt.datetime.fromisoformat(other)
    return one.partition("T")[0] < other.partition("T")[0]


def _suffix(local: str, offset: str, configured: str | None) -> str:
    """Return the zone of a local time as +HH:MM. Empty: not known, or with seconds as old zones have."""
    known = zone(offset) if is_offset(offset) else None
    known = known or (zone(configured) if configured else None)
    if known is None:
        return ""
    shift = dt.datetime.fromisoformat(local).replace(tzinfo=known).utcoffset()
    if shift is None or abs(shift) > _WIDEST or shift.total_seconds() % 60:
        return ""
    minutes = int(abs(shift).total_seconds()) // 60
    return f"{'-' if shift < dt.timedelta(0) else '+'}{minutes // 60:02}:{minutes % 60:02}"
