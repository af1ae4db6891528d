"""Dates and times of FHIR as intervals of milliseconds (R4 3.1.1.4.7, Date Search)."""

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

EARLIEST, LATEST = -(1 << 62), 1 << 62
"""Of a Period without start or end."""

# FHIR's dateTime; a search may leave out seconds. A blank is a plus sign that was not written as %2B.
_MOMENT = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(\.\d{1,9})?)?(Z|[+ -]\d\d:\d\d)?)?)?)?",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# ISO 8601, 24 hours at most; FHIR's is 14.
_LARGEST_OFFSET = 24 * 60
_MINUTE_MS = 60_000


class BadDate(ValueError):
    """A text is no date or time of FHIR."""


@dataclass(frozen=True, slots=True)
class Interval:
    """What a date or time covers, in milliseconds since 1970, its end excluded, by the clock of its zone.

    `offset`: that clock's, in milliseconds ahead of UTC; None: it has none.
    """

    low: int
    high: int
    offset: int | None = None

    @property
    def instant(self) -> tuple[int, int]:
        """The same in UTC; without a zone, the clock counts as UTC's."""
        offset = self.offset or 0
        return self.low - offset, self.high - offset


def interval(text: str) -> Interval:
    """Return what a date or dateTime covers. Raises BadDate."""
    found = _MOMENT.fullmatch(text)
    if not found:
        raise BadDate(
            f"{text[:40]!r} is no date: allowed are YYYY, YYYY-MM, YYYY-MM-DD, YYYY-MM-DDThh:mm:ss+hh:mm"
        )
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        low, length = _begin_and_length(year, month, day, hour, minute, second)
    except ValueError as error:
        raise BadDate(f"{text[:40]!r} is no date: {error}") from error
    if fraction:
        low += int(float(fraction) * 1000)
        length = 1
    return Interval(low, low + length, _offset(zone))


def _begin_and_length(
    year: str, month: str | None, day: str | None, hour: str | None, minute: str | None, second: str | None
) -> tuple[int, int]:
    # A leap second counts as the one before it.
    seconds = min(int(second or 0), 59)
    begin = datetime(
        int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), seconds, tzinfo=UTC
    )
    if second is not None:
        length = timedelta(seconds=1)
    elif hour is not None:
        length = timedelta(minutes=1)
    elif day is not None:
        length = timedelta(days=1)
    elif month is not None:
        length = timedelta(days=monthrange(begin.year, begin.month)[1])
    else:
        length = timedelta(days=365 + (monthrange(begin.year, 2)[1] == 29))  # noqa: PLR2004  a leap year
    return (begin - _EPOCH) // _MILLISECOND, length // _MILLISECOND


def _offset(zone: str | None) -> int | None:
    if zone is None:
        return None
    if zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[4:6])
    if minutes > _LARGEST_OFFSET:
        raise BadDate(f"{zone!r} is no offset from UTC")
    return (-minutes if zone[0] == "-" else minutes) * _MINUTE_MS


def interval_of(value: Any) -> Interval | None:
    """Return what an element covers: a date, dateTime, instant or Period. None: it is none."""
    try:
        if isinstance(value, str):
            return interval(value)
        if isinstance(value, dict) and ("start" in value or "end" in value):
            start = interval(value["start"]) if "start" in value else Interval(EARLIEST, EARLIEST)
            end = interval(value["end"]) if "end" in value else Interval(LATEST, LATEST)
            return Interval(start.low, end.high, start.offset if "start" in value else end.offset)
    except (BadDate, TypeError):
        pass
    return None
