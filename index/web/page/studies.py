"""The list of studies: what is asked for in the address, and a page of what is found."""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from index.facade import Index
from index.overview.service import StudyPage
from index.overview.situations import Situation
from index.publication.search import Position
from index.query.study_filter import STATES, BadFilter, StudyFilter

# Studies of one page: they fit a screen, and are read in some ms.
PAGE_SIZE = 50
# Studies without a row of their own that are named on a page.
MAX_OTHERS = 50
DEFAULT_SORT = "-received"
FIELDS = ("text", "patient", "name", "accession", "modality", "since", "until")
# What else may be asked for as a state: what FHIR calls studies without instances.
OTHER_STATES = {"registered": "ordered or announced", "cancelled": "cancelled", "entered-in-error": "deleted"}
_COLUMNS = (
    ("name", "Patient"),
    ("patient", "Patient ID"),
    ("accession", "Accession"),
    ("", "Modalities"),
    ("started", "Date"),
    ("", "Series"),
    ("", "Instances"),
    ("received", "Last received"),
    ("", "State"),
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading, the address that sorts by it, and how it is sorted now (ARIA's word)."""

    title: str
    address: str
    sorted: str


class StudyList:
    """A page of the list, as an address asks for it. Raises BadFilter, NotKept."""

    def __init__(self, index: Index, query: Mapping[str, str]) -> None:
        self.asked = {name: query.get(name, "").strip() for name in FIELDS}
        self.state = query.get("state", "")
        self.sort = query.get("sort") or DEFAULT_SORT
        self.is_first = not (query.get("after") or query.get("before"))
        self._index = index
        situation = self._situation()
        wanted = StudyFilter(
            **self.asked, sort=self.sort, state=self.state if self.state in OTHER_STATES else ""
        )
        page = self._page(wanted, situation, query)
        self.inside = False
        if not page.studies and self.is_first and wanted.words and "*" not in wanted.text:
            # The half of a name that was remembered may be its second.
            inside = " ".join(f"*{word}" for word in wanted.text.split())
            page = self._page(replace(wanted, text=inside), situation, query)
            self.inside = bool(page.studies)
            if self.inside:
                self.asked["text"] = inside
        self.page = page
        self.others = self._others(wanted, situation) if self.is_first else []

    @staticmethod
    def newest() -> StudyFilter:
        """Return the filter for all studies, those that have received something last first."""
        return StudyFilter(sort=DEFAULT_SORT)

    def _situation(self) -> Situation | None:
        if not self.state or self.state in OTHER_STATES:
            return None
        try:
            return Situation(self.state)
        except ValueError:
            allowed = ", ".join((*Situation, *OTHER_STATES))
            raise BadFilter("state", f"{self.state}: allowed are {allowed}") from None

    def _page(self, wanted: StudyFilter, situation: Situation | None, query: Mapping[str, str]) -> StudyPage:
        overview = self._index.overview
        after, before = (_position(query.get(name, ""), wanted) for name in ("after", "before"))
        if before is None:
            self._has_before, page = after is not None, overview.studies(wanted, situation, after, PAGE_SIZE)
            self._has_after = page.more
            return page
        turned = replace(wanted, sort=wanted.order if wanted.is_descending else f"-{wanted.order}")
        found = overview.studies(turned, situation, before, PAGE_SIZE)
        self._has_before, self._has_after = found.more, True
        return replace(found, studies=found.studies[::-1], order=wanted)

    def _others(self, wanted: StudyFilter, situation: Situation | None) -> list[dict[str, Any]]:
        """Return the studies that have no instance of their own: announced, or with conflicts only."""
        if situation is Situation.CONFLICT or (situation is None and wanted.words and not self.state):
            found = self._index.studies_in_conflict(wanted)
        elif situation is Situation.INCOMPLETE:
            found = self._index.announced(wanted)
        else:
            return []
        return found[:MAX_OTHERS]

    @property
    def form(self) -> dict[str, str]:
        """The values of the form of search."""
        return {**self.asked, "state": self.state, "sort": self.sort}

    @property
    def columns(self) -> list[Column]:
        """The columns with the addresses that sort by them."""
        columns = []
        for key, title in _COLUMNS:
            now = "none"
            if key and self.sort.removeprefix("-") == key:
                now = "descending" if self.sort.startswith("-") else "ascending"
            other = f"-{key}" if now == "ascending" else key
            columns.append(Column(title, self._address(sort=other) if key else "", now))
        return columns

    @property
    def earlier(self) -> str:
        """The address of the page before; empty: there is none."""
        return self._address(before=_text(self.page.position(0))) if self._turns(self._has_before) else ""

    @property
    def later(self) -> str:
        """The address of the page behind; empty: there is none."""
        return self._address(after=_text(self.page.position(-1))) if self._turns(self._has_after) else ""

    @property
    def is_everything(self) -> bool:
        """Whether nothing was asked for, so that all studies are listed."""
        return not self.state and not any(self.asked.values())

    def _turns(self, there: bool) -> bool:  # noqa: FBT001
        return bool(there and self.page.studies)

    def _address(self, **changes: str) -> str:
        values = {**self.asked, "state": self.state, "sort": self.sort, **changes}
        return "/studies?" + urlencode({name: value for name, value in values.items() if value})


def states() -> list[tuple[str, str]]:
    """Return what may be asked for as a state, with its words."""
    return [*((one.value, one.value) for one in Situation), *OTHER_STATES.items()]


def _text(position: Position) -> str:
    """Return a position as part of an address."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode()


def _position(text: str, wanted: StudyFilter) -> Position | None:
    """Return a position of an address. Raises BadFilter."""
    if not text:
        return None
    kind = int if wanted.order in ("arrival", "received") else str
    try:
        value, row = json.loads(base64.urlsafe_b64decode(text.encode()))
    except (ValueError, TypeError):
        raise BadFilter("after", "is not the address of a page") from None
    bounds = all(not isinstance(one, int) or abs(one) < 1 << 62 for one in (value, row))
    if type(value) is not kind or type(row) is not int or not bounds:
        raise BadFilter("after", "is not the address of a page")
    return value, row


assert set(OTHER_STATES) < set(STATES)  # noqa: S101  they are FHIR's words
