"""Matching of an identifier against items: all its keys together (PS3.4 Sections C.2.2.2.6 and K.4).

Identifiers and items are mappings by keyword, nested for sequences.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from index.dicom.value_rules import texts, valid_values
from index.query.keys import NOT_MATCHED, Key
from index.query.value_matching import BadIdentifier, comparable, matcher, range_of
from index.records import Attributes

Test = Callable[[Attributes], bool]
Values = Callable[[str, Any], list[str]]


class IdentifierMatcher:
    """Tells which items match an identifier. An identifier without values matches every item.

    `period` is the keywords of a date and a time. Where both are asked for, they are one period, from the
    first date and time to the last (PS3.4 Table K.6-1). `ignore_accents`: names match without accents.
    `values` returns the values of an item's attribute. Raises BadIdentifier where a value is not allowed.
    """

    def __init__(
        self,
        identifier: Attributes,
        keys: Mapping[str, Key],
        period: tuple[str, str] | None = None,
        *,
        ignore_accents: bool = False,
        values: Values = valid_values,
    ) -> None:
        self._values = values
        self._keys = keys
        self._period = period
        self._ignore_accents = ignore_accents
        self._tests = list(self._make_tests(identifier))

    @property
    def fits_all(self) -> bool:
        """Whether every item fits."""
        return not self._tests

    def fits(self, item: Attributes) -> bool:
        """Whether an item has all that is asked for."""
        return all(test(item) for test in self._tests)

    def _make_tests(self, identifier: Attributes) -> Iterator[Test]:
        period = self._period if self._period and self._period[0] in self._keys else None
        in_period = self._period_test(identifier, *period) if period else None
        if in_period:
            yield in_period
        for keyword, value in identifier.items():
            key = self._keys.get(keyword)
            if key is None or key.matching == NOT_MATCHED or (in_period and period and keyword in period):
                continue
            test = self._sequence_test(key, value) if key.vr == "SQ" else self._value_test(key, value)
            if test:
                yield test

    def _value_test(self, key: Key, value: Any) -> Test | None:
        if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            raise BadIdentifier(key.keyword, "must be a value, not a sequence")
        match = matcher(key.keyword, key.vr, texts(value), ignore_accents=self._ignore_accents)
        if match is None:
            return None
        return lambda item: match(self._values(key.keyword, item.get(key.keyword)))

    def _sequence_test(self, key: Key, value: Any) -> Test | None:
        """Sequence matching: one item must have all that is asked for."""
        if not value:
            return None
        if isinstance(value, str) or not all(isinstance(item, Mapping) for item in value):
            raise BadIdentifier(key.keyword, "must be a sequence")
        if len(value) > 1:
            raise BadIdentifier(key.keyword, "a sequence in a query has one item (PS3.4 C.2.2.2.6)")
        below = IdentifierMatcher(
            value[0], key.items, self._period, ignore_accents=self._ignore_accents, values=self._values
        )
        if not below._tests:
            return None
        return lambda item: any(below.fits(one) for one in item.get(key.keyword) or ())

    def _period_test(self, identifier: Attributes, date_keyword: str, time_keyword: str) -> Test | None:
        """Return the test for a date and a time as one period. None: the time is not a range."""
        dates, times = texts(identifier.get(date_keyword)), texts(identifier.get(time_keyword))
        if len(dates) != 1 or len(times) != 1 or "-" not in times[0]:
            return None
        first_date, last_date = range_of(date_keyword, "DA", dates[0])
        first_time, last_time = range_of(time_keyword, "TM", times[0])
        first = (first_date + (first_time or "")) if first_date else ""
        # "~" sorts after every digit: an open end.
        last = (last_date or "~") + (last_time or "~")

        def fits(item: Attributes) -> bool:
            date = "".join(self._values(date_keyword, item.get(date_keyword)))
            time = "".join(self._values(time_keyword, item.get(time_keyword)))
            return bool(date and time) and first <= comparable("DA", date) + comparable("TM", time) <= last

        return fits
