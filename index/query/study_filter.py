"""What `studies` can be asked for, as tests that SQL and Python understand alike."""

import datetime as dt
import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal, NamedTuple

from index.dicom.person_names import folded_without_accents, name_groups
from index.errors import IndexFault

# Longer values are cut in the index: PostgreSQL takes keys up to 2,700 bytes.
KEY_LENGTH = 200
# Behind every text that begins the same.
_END = "\U0010ffff"
_WILDCARD = re.compile(r"[*?]")
_OF_UID = re.compile(r"[\d.*?]+")
_DATE = re.compile(r"\d{4}-?\d{2}-?\d{2}")

STATES = ("registered", "available", "cancelled", "entered-in-error", "unknown")
"""ImagingStudy.status of R4 and R5, of the value set imagingstudy-status."""
SORTS = ("arrival", "received", "started", "name", "patient", "accession")

Kind = Literal["name", "modality"]


class BadFilter(IndexFault):
    """A filter's value is not allowed. `option` names the filter."""

    def __init__(self, option: str, why: str) -> None:
        super().__init__(f"{option}: {why}")
        self.option = option
        self.why = why


class TextTest(NamedTuple):
    """A test of a text: from `low` to `high`, both included, and where there is one, of a pattern."""

    low: str
    high: str
    pattern: str = ""

    def fits(self, value: str) -> bool:
        """Whether a value passes."""
        if not self.low <= value <= self.high:
            return False
        # An expression of fnmatch takes linear time for any number of wildcards.
        return not self.pattern or bool(fnmatch.fnmatchcase(value, self.pattern.replace("[", "[[]")))


def key(value: object) -> str:
    """Return a value as the index holds it to search and order: cut, and without what PostgreSQL refuses."""
    return str(value or "").replace("\0", "").strip()[:KEY_LENGTH]


def plain_name(name: object) -> str:
    """Return a name's component groups without case and accents (PS3.5 Section 6.2.1)."""
    return "=".join(name_groups(folded_without_accents(str(name or "").replace("\0", ""))))


def name_terms(name: object) -> Iterator[str]:
    """Yield what a name is found by: each component group, and each component behind its first.

    Each ends in ^, so that a component is found as a whole by what it begins with.
    """
    for group in plain_name(name).split("="):
        for text in (group, *group.split("^")[1:]):
            if text:
                yield key(text)[: KEY_LENGTH - 1] + "^"


@dataclass(frozen=True)
class StudyFilter:
    """A choice of studies, and their order. An empty value asks for nothing. Raises BadFilter.

    `patient` (PatientID), `accession` and `modality` match as a whole, `name` by any of its component groups
    or components, without regard to case and accents; all may have the wildcards * and ?. `since` and
    `until` are dates of the study (StudyDate), both included. `sort` is one of SORTS, with - before it the
    other way round. `text` is words, each of which begins the patient's name or a component of it, the
    PatientID, the Accession Number or the Study Instance UID.
    """

    patient: str = ""
    name: str = ""
    accession: str = ""
    modality: str = ""
    since: str = ""
    until: str = ""
    state: str = ""
    sort: str = "arrival"
    text: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            if len(getattr(self, field.name)) >= KEY_LENGTH:
                raise BadFilter(field.name, f"is longer than {KEY_LENGTH - 1} characters")
        if self.state and self.state not in STATES:
            raise BadFilter("state", f"{self.state}: allowed are {', '.join(STATES)}")
        if self.order not in SORTS:
            raise BadFilter("sort", f"{self.sort}: allowed are {', '.join(SORTS)}, and - before one of them")
        since, until = (_date(option, getattr(self, option)) for option in ("since", "until"))
        if since and until and since > until:
            raise BadFilter("until", f"{self.until} is before since = {self.since}")

    @property
    def order(self) -> str:
        """What the studies are ordered by."""
        return self.sort.removeprefix("-")

    @property
    def is_descending(self) -> bool:
        """Whether the last come first."""
        return self.sort.startswith("-")

    @property
    def of_state(self) -> str:
        """The one state asked for; without a state studies that have instances are."""
        return self.state or "available"

    @cached_property
    def columns(self) -> Mapping[str, TextTest]:
        """The tests of columns of StudyListing."""
        tests = {"patient_id": _text(self.patient.strip()), "accession": _text(self.accession.strip())}
        if self.since or self.until:
            tests["started"] = TextTest(_date("since", self.since) or "0", _date("until", self.until) or _END)
        return {column: test for column, test in tests.items() if test}

    @cached_property
    def terms(self) -> Mapping[Kind, TextTest]:
        """The tests of which one StudyTerm of that kind has to pass each."""
        tests: dict[Kind, TextTest | None] = {
            "modality": _text(self.modality.strip().upper()),
            "name": _name(plain_name(self.name).strip()),
        }
        return {kind: test for kind, test in tests.items() if test}

    @cached_property
    def words(self) -> tuple["WordTest", ...]:
        """The tests of the words of `text`."""
        return tuple(map(_word, dict.fromkeys(self.text.split())))


class WordTest(NamedTuple):
    """A word asked for: a study passes where one of its names, identifiers or its UID does."""

    names: tuple[TextTest, ...]
    identifiers: tuple[TextTest, ...]
    uid: tuple[TextTest, ...]

    def fits(self, names: Iterable[str], identifiers: Iterable[str], uid: str) -> bool:
        """Whether a study passes; `names` are terms of its name."""
        by_test = ((self.names, tuple(names)), (self.identifiers, tuple(identifiers)), (self.uid, (uid,)))
        return any(test.fits(value) for tests, values in by_test for test in tests for value in values)


def _word(word: str) -> WordTest:
    names = _beginning(plain_name(word).strip("^= "))
    # Identifiers are compared as they are: many sites write theirs in capitals, and ask in small letters.
    identifiers = dict.fromkeys(test for text in (word, word.upper()) for test in _beginning(text))
    return WordTest(names, tuple(identifiers), _beginning(word) if _OF_UID.fullmatch(word) else ())


def _beginning(wanted: str) -> tuple[TextTest, ...]:
    """Return the test for what a value begins with; none for what is empty."""
    if not wanted.strip("*"):
        return ()
    test = _text(wanted if wanted.endswith("*") else wanted + "*")
    return (test,) if test else ()


def _text(wanted: str, end: str = "") -> TextTest | None:
    """Return the test for a value, which may have wildcards. None: every value passes."""
    if not wanted.strip("*"):
        return None
    wanted += end
    if not (wildcard := _WILDCARD.search(wanted)):
        return TextTest(wanted, wanted)
    return TextTest(wanted[: wildcard.start()], wanted[: wildcard.start()] + _END, wanted)


def _name(wanted: str) -> TextTest | None:
    test = _text(wanted, "^")
    return test if not test or test.pattern else TextTest(test.low, test.low + _END)


def _date(option: str, text: str) -> str:
    """Return a date as `studies` prints it. Raises BadFilter."""
    if not text:
        return ""
    with suppress(ValueError):
        if _DATE.fullmatch(text):
            return dt.date.fromisoformat(text).isoformat()
    raise BadFilter(option, f"{text}: allowed is a date, as 2026-01-31")
