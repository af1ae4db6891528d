"""Matching of a whole identifier against worklist items (PS3.4 Sections C.2.2.2.6 and K.4).

Identifiers and items are mappings by keyword, nested for sequences; see records.py. An identifier is made a
`Wanted` once, which then looks at every item.
"""

from collections.abc import Callable, Mapping
from typing import Any

from index.dicom.value_rules import texts, valid_values
from index.query.keys import KEYS, Key
from index.query.matching import BadIdentifier, Matcher, limits, matcher, moment, plain
from index.records import Attributes

# Table K.6-1: both given for matching, they are one period from first date and time to last date and time.
_DATE, _TIME = "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime"

Test = Callable[[Attributes], bool]


class Wanted:
    """What the keys of one level ask of an item. No test at all: every item matches.

    `ignore_accents`: names match without regard to them. Raises BadIdentifier where a key's value is none of
    its VR, or no sequence where one is due.
    """

    def __init__(
        self, identifier: Attributes, keys: Mapping[str, Key] = KEYS, *, ignore_accents: bool = False
    ) -> None:
        self._tests = _tests(identifier, keys, ignore_accents=ignore_accents)

    @property
    def is_universal(self) -> bool:
        """Whether it matches whatever comes."""
        return not self._tests

    def fits(self, item: Attributes) -> bool:
        """Whether an item has all that is asked for."""
        return all(test(item) for test in self._tests)


def _tests(identifier: Attributes, keys: Mapping[str, Key], *, ignore_accents: bool) -> list[Test]:
    together = _period(identifier) if _DATE in keys else None
    tests = [together] if together else []
    for keyword, value in identifier.items():
        key = keys.get(keyword)
        if key is None or (together and keyword in (_DATE, _TIME)):
            continue
        make = _in_sequence if key.vr == "SQ" else _on_value
        test = make(key, value, ignore_accents=ignore_accents)
        if test:
            tests.append(test)
    return tests


def _on_value(key: Key, value: Any, *, ignore_accents: bool) -> Test | None:
    match = matcher(key.keyword, key.vr, texts(value), ignore_accents=ignore_accents)
    return _Tested(key.keyword, match) if match else None


class _Tested:
    """A matcher at its attribute."""

    def __init__(self, keyword: str, match: Matcher) -> None:
        self._keyword = keyword
        self._match = match

    def __call__(self, item: Attributes) -> bool:
        return self._match(valid_values(self._keyword, item.get(self._keyword)))


def _in_sequence(key: Key, value: Any, *, ignore_accents: bool) -> Test | None:
    """Sequence matching: one item has to have all that is asked for."""
    if not value:
        return None
    if isinstance(value, str) or not all(isinstance(item, Mapping) for item in value):
        raise BadIdentifier(key.keyword, "must be a sequence")
    if len(value) > 1:
        raise BadIdentifier(key.keyword, "a sequence in a query has one item (PS3.4 C.2.2.2.6)")
    below = Wanted(value[0], key.items, ignore_accents=ignore_accents)
    if below.is_universal:
        return None
    return lambda item: any(below.fits(one) for one in item.get(key.keyword) or ())


def _period(identifier: Attributes) -> Test | None:
    """Return the test for date and time as one period; None where they are none: the time is no range."""
    dates, times = texts(identifier.get(_DATE)), texts(identifier.get(_TIME))
    if len(dates) != 1 or len(times) != 1 or "-" not in times[0]:
        return None
    first_day, last_day = limits(_DATE, "DA", dates[0])
    first_time, last_time = limits(_TIME, "TM", times[0])
    first = (first_day + (first_time or "")) if first_day else ""
    # Behind every time of its day.
    last = (last_day or "~") + (last_time or "~")

    def fits(item: Attributes) -> bool:
        day, time = (
            "".join(valid_values(_DATE, item.get(_DATE))),
            "".join(valid_values(_TIME, item.get(_TIME))),
        )
        return bool(day and time) and first <= moment("DA", day) + moment("TM", time) <= last

    return fits


def exactly(identifier: Attributes, keyword: str) -> str | None:
    """Return the one value that a key asks for, where it has no wildcard; for SQL to choose rows by."""
    values = texts(identifier.get(keyword))
    return values[0] if len(values) == 1 and not set("*?") & set(values[0]) else None


def days(identifier: Attributes) -> tuple[str | None, str | None] | None:
    """Return the range of days that a step's keys ask for. None: any. Raises BadIdentifier."""
    dates = texts(identifier.get(_DATE))
    if len(dates) != 1:
        for date in dates:
            plain(_DATE, "DA", date)
        return None
    return limits(_DATE, "DA", dates[0])
