"""The query parameters of a search (PS3.18 Section 8.3.4) as the identifier of a query."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.datadict import keyword_for_tag

from index.dicom.value_rules import tag_and_vr
from index.query.identifiers import MAX_DEPTH, Identifier
from index.query.information_models import UNIQUE_KEYS, Level, keys_down_to
from index.query.keys import Key

# Results of one answer, which is made in memory; a user agent asks for the rest by offset.
MOST_RESULTS = 5000
# Digits of limit and offset.
_NUMBER = re.compile(r"[0-9]{1,9}")
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
# VRs whose values have no comma: viewers separate several by it, the standard those of UIDs only.
_LISTS = {"UI": re.compile(r"[,\\]"), "CS": re.compile(r"[,\\]")}
_BACKSLASH = re.compile(r"\\")
_FLAGS = {
    "fuzzymatching": "Only literal matching has been performed.",
    "emptyvaluematching": "Empty Value Matching has not been performed.",
    "multiplevaluematching": "Multiple Value Matching has not been performed.",
}
_SUPPORTED_FLAGS = frozenset(("fuzzymatching", "multiplevaluematching"))
# Of every request, not only of a search (PS3.18 Sections 8.3.3 and 8.3.5).
_NO_MATCH = frozenset(("accept", "charset"))

# PS3.18 Tables 10.6.3-3 to 10.6.3-5, without RetrieveURL, which is made for each answer.
RETURNED: Mapping[Level, Mapping[str, Any]] = {
    Level.STUDY: dict.fromkeys(
        (
            "StudyDate",
            "StudyTime",
            "AccessionNumber",
            "InstanceAvailability",
            "ModalitiesInStudy",
            "ReferringPhysicianName",
            "TimezoneOffsetFromUTC",
            "PatientName",
            "PatientID",
            "PatientBirthDate",
            "PatientSex",
            "StudyInstanceUID",
            "StudyID",
            "NumberOfStudyRelatedSeries",
            "NumberOfStudyRelatedInstances",
        ),
        "",
    ),
    Level.SERIES: {
        **dict.fromkeys(
            (
                "Modality",
                "TimezoneOffsetFromUTC",
                "SeriesDescription",
                "StudyInstanceUID",
                "SeriesInstanceUID",
                "SeriesNumber",
                "NumberOfSeriesRelatedInstances",
                "PerformedProcedureStepStartDate",
                "PerformedProcedureStepStartTime",
            ),
            "",
        ),
        "RequestAttributesSequence": [{"ScheduledProcedureStepID": "", "RequestedProcedureID": ""}],
    },
    Level.IMAGE: dict.fromkeys(
        (
            "SOPClassUID",
            "SOPInstanceUID",
            "InstanceAvailability",
            "TimezoneOffsetFromUTC",
            "StudyInstanceUID",
            "SeriesInstanceUID",
            "InstanceNumber",
            "Rows",
            "Columns",
            "BitsAllocated",
            "NumberOfFrames",
        ),
        "",
    ),
}
_WITH_ANSWER = frozenset(("InstanceAvailability", "RetrieveAETitle"))


class BadParameter(ValueError):
    """Raised where a query parameter is not valid; the text names it, and what is allowed."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{ascii(name[:64])[1:-1]}: {why}")


@dataclass(frozen=True, slots=True)
class Search:
    """A search: the identifier of its query, which results it wants, and what its user agent is warned of."""

    level: Level
    identifier: Identifier
    limit: int
    offset: int
    is_fuzzy: bool
    warnings: Sequence[str]


def read_search(level: Level, above: Mapping[str, str], parameters: Iterable[tuple[str, str]]) -> Search:
    """Return the search for this level. `above`: the UIDs that its path names, by keyword.

    Raises BadParameter.
    """
    reader = _Reader(level, above)
    for name, value in parameters:
        reader.add(name, value)
    return reader.search()


class _Reader:
    def __init__(self, level: Level, above: Mapping[str, str]) -> None:
        self._level = level
        self._above = above
        self._keys = keys_down_to(Level.IMAGE)
        self._matched: dict[tuple[str, ...], list[str]] = {}
        self._included: dict[tuple[str, ...], None] = {}
        self._numbers: dict[str, int] = {}
        self._flags: dict[str, bool] = {}
        self._ignored: list[str] = []
        self._has_all = False

    def add(self, name: str, value: str) -> None:
        lower = name.lower()
        if lower in ("limit", "offset"):
            self._add_number(lower, value)
        elif lower in _FLAGS:
            if value.lower() not in ("true", "false"):
                raise BadParameter(name, "must be true or false")
            self._flags[lower] = value.lower() == "true"
        elif lower == "includefield":
            self._include(value)
        elif lower not in _NO_MATCH:
            self._match(name, value)

    def _add_number(self, name: str, value: str) -> None:
        if not _NUMBER.fullmatch(value):
            raise BadParameter(name, "must be a whole number of at most nine digits")
        if name in self._numbers:
            raise BadParameter(name, "is given twice")
        self._numbers[name] = int(value)

    def _include(self, value: str) -> None:
        for one in filter(None, (part.strip() for part in value.split(","))):
            if one.lower() == "all":
                self._has_all = True
            elif path := _path(one):
                self._included[path] = None
            else:
                self._ignored.append(f"includefield={one}")

    def _match(self, name: str, value: str) -> None:
        path = _path(name)
        if path is None or not self._is_key(path):
            self._ignored.append(name)
            return
        given = self._matched.setdefault(path, [])
        separator = _LISTS.get(_vr(path[-1]))
        if given and not separator:
            raise BadParameter(name, "is given twice")
        if not separator and self._flags.get("multiplevaluematching"):
            separator = _BACKSLASH
        given += separator.split(value) if separator else [value]

    def _is_key(self, path: Sequence[str]) -> bool:
        keys: Mapping[str, Key] = self._keys
        for keyword in path:
            key = keys.get(keyword)
            if key is None:
                return False
            keys = key.items
        return True

    def search(self) -> Search:
        identifier: Identifier = {}
        for asked in self._asked():
            _put(identifier, asked, "")
        for keyword, value in RETURNED[self._level].items():
            identifier[keyword] = [dict(value[0])] if isinstance(value, list) else value
        # The UIDs of a result make its RetrieveURL.
        for above in list(Level)[1 : self._level.depth + 1]:
            identifier.setdefault(UNIQUE_KEYS[above], "")
        is_fuzzy = self._flags.get("fuzzymatching", False)
        for path, values in self._matched.items():
            _put(
                identifier,
                path,
                [_fuzzy(one) for one in values] if is_fuzzy and _vr(path[-1]) == "PN" else values,
            )
        for keyword, uid in self._above.items():
            # A UID of the path and one of the query must both match: two different ones match nothing.
            other = self._matched.get((keyword,))
            identifier[keyword] = uid if not other or uid in other else f"{uid}!"
        identifier["QueryRetrieveLevel"] = self._level.value
        limit = min(self._numbers.get("limit", MOST_RESULTS), MOST_RESULTS)
        return Search(
            self._level, identifier, limit, self._numbers.get("offset", 0), is_fuzzy, list(self._warnings())
        )

    def _asked(self) -> Iterable[tuple[str, ...]]:
        if self._has_all:
            yield from ((keyword,) for keyword in keys_down_to(self._level))
        yield from self._included

    def _warnings(self) -> Iterable[str]:
        for flag, done in _FLAGS.items():
            if self._flags.get(flag) and flag not in _SUPPORTED_FLAGS:
                yield f"The {flag} parameter is not supported. {done}"
        if self._ignored:
            names = ", ".join(dict.fromkeys(ascii(name[:64])[1:-1] or '""' for name in self._ignored[:20]))
            yield f"These parameters are not supported and have been ignored: {names}"


def _path(text: str) -> tuple[str, ...] | None:
    """Return the keywords of an attribute, given by keywords or tags; None: it is not known."""
    parts = text.split(".")
    if len(parts) > MAX_DEPTH:
        return None
    keywords = [keyword_for_tag(int(part, 16)) if _TAG.fullmatch(part) else part for part in parts]
    for number, keyword in enumerate(keywords):
        vr = _vr(keyword)
        if not vr or (number < len(keywords) - 1 and vr != "SQ"):
            return None
    return tuple(keywords)


def _vr(keyword: str) -> str:
    try:
        return tag_and_vr(keyword)[1]
    except KeyError:
        return ""


def _put(identifier: Identifier, path: Sequence[str], value: Any) -> None:
    """Set the value of a key; of a sequence that of its one item."""
    for keyword in path[:-1]:
        items = identifier.get(keyword)
        if not items or not isinstance(items, list):
            items = identifier[keyword] = [{}]
        identifier = items[0]
    if _vr(path[-1]) == "SQ":
        # All of its items, where nothing is said of their attributes.
        identifier[path[-1]] = []
    else:
        identifier[path[-1]] = value


def _fuzzy(name: str) -> str:
    """Return a name that matches wherever its words stand in this order (PS3.4 Section C.2.2.2.1.1).

    Which names match is left to the origin server. What has wildcards is the user agent's own choice.
    """
    if not name.strip() or set("*?") & set(name):
        return name
    return "*".join(("", *re.split(r"[\s^]+", name.strip()), ""))
