"""Which value stands where instances disagree: rules that know no order of arrival.

A date stands with its time and zone, and the earliest wins. What is of the patient's body or identity stands
only where all that say it say the same. Of any other attribute the most frequent value wins, ties to the
smallest. Values are compared as canonical JSON.
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
# Sorts after every time: of one day's values those with a time come first.
_NO_TIME = "~"
_TIME_LENGTH = 6  # HHMMSS
_ZONE = "TimezoneOffsetFromUTC"


@dataclass(frozen=True, slots=True)
class Opinion:
    """A distinct set of attributes, and how many instances carry it."""

    attributes: Attributes
    instances: int


@dataclass(frozen=True, slots=True)
class Moment:
    """Date and time attributes that are elected as one."""

    date: str
    time: str


# By level; a patient has none.
MOMENTS: Mapping[str, Moment | None] = {
    "patient": None,
    "study": Moment("StudyDate", "StudyTime"),
    "series": Moment("SeriesDate", "SeriesTime"),
}

# By level: a wrong side or sex harms more than none.
UNANIMOUS: Mapping[str, frozenset[str]] = {
    "patient": frozenset(("PatientBirthDate", "PatientBirthTime", "PatientSex")),
    "study": frozenset(("AdmissionID",)),
    "series": BODY,
}


def elect(opinions: Sequence[Opinion], level: str, uid: str) -> tuple[dict[str, Any], list[Disagreed]]:
    """Return the elected attributes of one patient, study or series, and where opinions differ."""
    moment = MOMENTS[level]
    opinions = _carried(opinions)
    if len(opinions) == 1 and (moment is None or _has_date(opinions[0].attributes, moment)):
        return dict(opinions[0].attributes), []
    together = (moment.date, moment.time, _ZONE) if moment else ()
    elected: dict[str, Any] = {}
    disagreements = []
    for keyword, votes in sorted(_count(opinions).items()):
        if len(votes) > 1:
            values = sorted(
                ((orjson.loads(text), n) for text, n in votes.items()), key=lambda v: (-v[1], canonical(v[0]))
            )
            disagreements.append(Disagreed(level, uid, keyword, tuple(values)))
            if keyword in UNANIMOUS[level]:
                continue
        if keyword not in together:
            elected[keyword] = orjson.loads(min(votes, key=lambda text: (-votes[text], text)))
    if moment:
        elected |= _earliest(opinions, moment)
    return elected, disagreements


def body(opinions: Sequence[Opinion]) -> tuple[Attributes, ...]:
    """Return each distinct set of what instances say of the patient's body, ordered by value."""
    said = [
        {keyword: value for keyword, value in opinion.attributes.items() if keyword in BODY}
        for opinion in _carried(opinions)
    ]
    distinct = {canonical(one): one for one in said if one}
    return tuple(distinct[text] for text in sorted(distinct))


def _carried(opinions: Sequence[Opinion]) -> Sequence[Opinion]:
    """Leave out what no instance carries: of a withdrawn study, it counts where nothing else is there."""
    return [opinion for opinion in opinions if opinion.instances] or opinions


def _has_date(attributes: Attributes, moment: Moment) -> bool:
    return bool(_DATE.fullmatch(attributes.get(moment.date, "")))


def _count(opinions: Iterable[Opinion]) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for opinion in opinions:
        for keyword, value in opinion.attributes.items():
            counts[keyword][canonical(value)] += opinion.instances
    return counts


def _earliest(opinions: Iterable[Opinion], moment: Moment) -> dict[str, Any]:
    """Return date, time and zone of the earliest opinion whose date is one (PS3.5 Table 6.2-1, DA)."""
    keywords = (moment.date, moment.time, _ZONE)
    dated = [o.attributes for o in opinions if _has_date(o.attributes, moment)]
    if not dated:
        return {}

    def key(attributes: Attributes) -> tuple[str, ...]:
        return tuple(attributes.get(keyword, _NO_TIME) for keyword in keywords)

    first = min(dated, key=key)
    return {keyword: first[keyword] for keyword in keywords if keyword in first}


def starts(uid: str, study: Attributes, series: Sequence[Series]) -> list[Disagreed]:
    """Return the series that start before their study, where all times are of one zone."""
    own = _start(study, "Study")
    values = []
    for one in series:
        start = _start(one.attributes, "Series")
        is_comparable = bool(own and start) and study.get(_ZONE) == one.attributes.get(_ZONE)
        if is_comparable and start[: len(own)] < own[: len(start)]:
            values.append((f"series {one.uid}: {' '.join(start)}", len(one.instances)))
    if not values:
        return []
    of_study = (" ".join(own), sum(len(one.instances) for one in series))
    return [Disagreed("study", uid, "started", (of_study, *values))]


def _start(attributes: Attributes, level: str) -> tuple[str, ...]:
    """Return date and time as they compare: of six digits at least; a date alone where it stands alone."""
    date, time = (str(attributes.get(f"{level}{word}", "")) for word in ("Date", "Time"))
    if not _DATE.fullmatch(date):
        return ()
    return (date, time.ljust(_TIME_LENGTH, "0")) if time else (date,)
