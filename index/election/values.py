"""Which value stands where instances disagree. The order of arrival does not matter.

- Date, time and zone of the start are one value: the earliest date stands.
- Attributes of the patient's body or identity stand only where all values are equal (UNANIMOUS).
- Of any other attribute the most frequent value stands; of equally frequent ones the smallest.

A missing value is no vote. Values are compared as canonical JSON.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from index.database.tables import canonical
from index.dicom.attributes import BODY
from index.records import Attributes, Disagreed, Series

_DATE = re.compile(r"\d{8}")
# Greater than every time: of values of one day, those with a time are earlier.
_NO_TIME = "~"
_TIME_LENGTH = 6  # HHMMSS
_ZONE = "TimezoneOffsetFromUTC"

# The attributes of the start, by level: date, time and zone.
START: Mapping[str, tuple[str, ...]] = {
    "study": ("StudyDate", "StudyTime", _ZONE),
    "series": ("SeriesDate", "SeriesTime", _ZONE),
}

# By level. A wrong side or sex does more harm than none.
UNANIMOUS: Mapping[str, frozenset[str]] = {
    "patient": frozenset(("PatientBirthDate", "PatientBirthTime", "PatientSex")),
    "study": frozenset(("AdmissionID",)),
    "series": BODY,
}


@dataclass(frozen=True, slots=True)
class Variant:
    """A distinct set of attributes, and how many instances have it."""

    attributes: Attributes
    instances: int


def elect(variants: Sequence[Variant], level: str, uid: str) -> tuple[dict[str, Any], list[Disagreed]]:
    """Return the elected attributes of one patient, study or series, and the attributes that differ."""
    start = START.get(level, ())
    variants = stored(variants)
    if len(variants) == 1 and (not start or _has_date(variants[0].attributes, start)):
        return dict(variants[0].attributes), []
    elected: dict[str, Any] = {}
    disagreements = []
    for keyword, votes in sorted(_count(variants).items()):
        if len(votes) > 1:
            values = sorted(
                ((orjson.loads(text), n) for text, n in votes.items()), key=lambda v: (-v[1], canonical(v[0]))
            )
            disagreements.append(Disagreed(level, uid, keyword, tuple(values)))
            if keyword in UNANIMOUS[level]:
                continue
        if keyword not in start:
            elected[keyword] = orjson.loads(min(votes, key=lambda text: (-votes[text], text)))
    return elected | _earliest(variants, start), disagreements


def body_variants(variants: Sequence[Variant]) -> tuple[Attributes, ...]:
    """Return each distinct set of attributes of the patient's body (BODY), ordered by value."""
    of_body = [
        {keyword: value for keyword, value in variant.attributes.items() if keyword in BODY}
        for variant in stored(variants)
    ]
    distinct = {canonical(attributes): attributes for attributes in of_body if attributes}
    return tuple(distinct[text] for text in sorted(distinct))


def stored(variants: Sequence[Variant]) -> Sequence[Variant]:
    """Leave out variants without instances, unless there are no others: those of a withdrawn study."""
    return [variant for variant in variants if variant.instances] or variants


def _has_date(attributes: Attributes, start: Sequence[str]) -> bool:
    """Whether the date of the start is valid (PS3.5 Table 6.2-1, DA)."""
    return bool(_DATE.fullmatch(attributes.get(start[0], "")))


def _count(variants: Iterable[Variant]) -> dict[str, dict[str, int]]:
    """Return how many instances have each value, by keyword and canonical value."""
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for variant in variants:
        for keyword, value in variant.attributes.items():
            counts[keyword][canonical(value)] += variant.instances
    return counts


def _earliest(variants: Iterable[Variant], start: Sequence[str]) -> dict[str, Any]:
    """Return date, time and zone of the variant with the earliest valid date."""
    dated = [variant.attributes for variant in variants if start and _has_date(variant.attributes, start)]
    if not dated:
        return {}
    first = min(dated, key=lambda attributes: [attributes.get(keyword, _NO_TIME) for keyword in start])
    return {keyword: first[keyword] for keyword in start if keyword in first}


def series_before_study(uid: str, study: Attributes, series: Sequence[Series]) -> list[Disagreed]:
    """Return the series that start before their study, where both have the same time zone."""
    own = _start(study, "study")
    values = []
    for one in series:
        start = _start(one.attributes, "series")
        is_comparable = bool(own and start) and study.get(_ZONE) == one.attributes.get(_ZONE)
        if is_comparable and start[: len(own)] < own[: len(start)]:
            values.append((f"series {one.uid}: {' '.join(start)}", len(one.instances)))
    if not values:
        return []
    of_study = (" ".join(own), sum(len(one.instances) for one in series))
    return [Disagreed("study", uid, "started", (of_study, *values))]


def _start(attributes: Attributes, level: str) -> tuple[str, ...]:
    """Return date and time (six digits at least) to compare; the date alone without a time."""
    date, time = (str(attributes.get(keyword, "")) for keyword in START[level][:2])
    if not _DATE.fullmatch(date):
        return ()
    return (date, time.ljust(_TIME_LENGTH, "0")) if time else (date,)
