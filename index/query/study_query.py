"""One query of the Query/Retrieve Service Class (PS3.4 Annex C): selected by SQL, then matched exactly."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from peewee import chunked
from pydicom.dataset import Dataset

from index.database.connection import Database
from index.dicom.value_rules import stored_values, texts
from index.query.entities import Entities, Entity
from index.query.identifier_matching import IdentifierMatcher
from index.query.identifiers import Identifier, answer, read_identifier, unsupported
from index.query.information_models import UNIQUE_KEYS, Level, keys_down_to, level_of
from index.query.selection import EntitySelection
from index.query.value_matching import BadIdentifier

# Row ids that are selected at one time, and entities that are in memory at one time.
BLOCK = 2000
PAGE = 100

# The character set of the answer is chosen for the answer.
_NO_KEYS = frozenset(("SpecificCharacterSet",))
_START = ("StudyDate", "StudyTime")
# Every object that has a row is on the disk of the daemon.
_AVAILABILITY = "ONLINE"


@dataclass(frozen=True, slots=True)
class QueryOptions:
    """How a query is to be answered. `levels` are those of its information model.

    `relational` and `combined_times` are negotiated (PS3.4 Section C.5.1.1): unique keys of the levels above
    are not needed, and any level's keys are matched; StudyDate and StudyTime are one period. `offset`: how
    many matches are passed over first.
    """

    levels: Sequence[Level]
    retrieve_aet: str
    limit: int
    charset: str | None = None
    ignore_accents: bool = False
    relational: bool = False
    combined_times: bool = False
    offset: int = 0


class StudyQuery:
    """A caller's query. Iterating gives the answers, and None after each page: the caller may stop there.

    `unsupported` names the keys that are not matched. After the last answer, `is_cut_short` tells whether
    there are more matches than the limit. Raises BadIdentifier.
    """

    def __init__(self, database: Database, identifier: Dataset | Identifier, options: QueryOptions) -> None:
        self._options = options
        self._charset = options.charset or "\\".join(texts(_charset(identifier)))
        if isinstance(identifier, Dataset):
            identifier = read_identifier(identifier, no_keys=_NO_KEYS)
        self._identifier = identifier
        self.level = _level(self._identifier, options.levels)
        if not options.relational:
            _check_unique_keys(self._identifier, self.level, options.levels)
        self._lowest = _lowest_level(self._identifier, self.level) if options.relational else self.level
        matched = keys_down_to(self._lowest)
        accents = options.ignore_accents
        self._matcher = IdentifierMatcher(
            self._identifier,
            matched,
            _START if options.combined_times else None,
            ignore_accents=accents,
            values=stored_values,
        )
        self._selection = EntitySelection(database, self._identifier, self._lowest, ignore_accents=accents)
        self._entities = Entities(database, self._identifier.keys())
        self._keys = keys_down_to(self.level)
        self.unsupported = tuple(unsupported(self._identifier, matched))
        self.is_cut_short = False

    def __iter__(self) -> Iterator[Dataset | None]:
        """Yield the answers."""
        answered: set[Any] = set()
        # Every row is an answer of its own: those before the offset need not be read.
        passed_over = self._options.offset if self._is_of_all_rows else 0
        offset = self._options.offset - passed_over
        for entities in self._pages(passed_over):
            for entity in entities:
                identity = entity.identities[self.level]
                if identity in answered or not self._matcher.fits(entity.attributes):
                    continue
                if len(answered) == offset + self._options.limit:
                    self.is_cut_short = True
                    return
                answered.add(identity)
                if len(answered) > offset:
                    yield self._answer(entity)
            yield None

    def total(self) -> int | None:
        """Return how many matches there are, whatever the limit; None: only matching them would tell."""
        return self._selection.count() if self._is_of_all_rows and self.level is Level.STUDY else None

    @property
    def _is_of_all_rows(self) -> bool:
        return self._matcher.fits_all and self.level is self._lowest is not Level.PATIENT

    def _pages(self, passed_over: int) -> Iterator[list[Entity]]:
        block, size = BLOCK, PAGE
        if self._is_of_all_rows:
            # One more than the limit tells whether there are more.
            block = min(BLOCK, self._options.limit + 1)
            size = min(PAGE, block)
        last, rows = None, [0] * block
        while len(rows) == block:
            rows = self._selection.rows_after(last, block, 0 if last else passed_over)
            for page in chunked(rows, size):
                yield self._entities.read(self._lowest, page)
                last = page[-1]

    def _answer(self, entity: Entity) -> Dataset:
        """Return an answer, which always tells where to retrieve from (PS3.4 Section C.4.1.1.3.2)."""
        item = {
            **entity.attributes,
            "QueryRetrieveLevel": self.level.value,
            "RetrieveAETitle": self._options.retrieve_aet,
            "InstanceAvailability": _AVAILABILITY,
        }
        asked = {**self._identifier, "RetrieveAETitle": ""}
        return answer(asked, item, self._charset, self._keys, values=stored_values, with_unsupported=True)


def _charset(identifier: Dataset | Identifier) -> object:
    """Return the character set of a query: its caller can read it."""
    try:
        return identifier.get("SpecificCharacterSet") or ""
    except Exception as error:  # pydicom raises many kinds of error for damaged bytes
        raise BadIdentifier("SpecificCharacterSet", "cannot be read") from error


def _level(identifier: Identifier, levels: Sequence[Level]) -> Level:
    name = "QueryRetrieveLevel"
    given = texts(identifier.get(name))
    if len(given) != 1 or given[0].upper() not in levels:
        raise BadIdentifier(name, f"must be one of {', '.join(levels)}")
    return Level(given[0].upper())


def _check_unique_keys(identifier: Identifier, level: Level, levels: Sequence[Level]) -> None:
    """Check that each level above has one value of its unique key (PS3.4 Section C.4.1.2.1)."""
    for above in levels[: levels.index(level)]:
        given = texts(identifier.get(UNIQUE_KEYS[above]))
        if len(given) != 1 or set("*?") & set(given[0]):
            raise BadIdentifier(UNIQUE_KEYS[above], f"level {level} needs one value of it")


def _lowest_level(identifier: Identifier, level: Level) -> Level:
    """Return the lowest level of which a key has a value."""
    asked = (level_of(keyword) for keyword, value in identifier.items() if texts(value))
    return max((level, *filter(None, asked)), key=lambda one: one.depth)
