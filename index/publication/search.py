"""The list of studies, found and ordered by the indexes of StudyListing, read page by page.

What was made at the last publication is read. Studies that have changed since are listed as they are now.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from operator import or_
from typing import Any

import peewee
from peewee import SQL, fn

from index.database.connection import Database
from index.database.patterns import fits_pattern
from index.database.tables import Study, StudyListing, StudyTerm
from index.errors import NotKept
from index.publication.listing import COLUMNS, ROW, Listed, as_they_are, bring_up_to_date, from_row, outdated
from index.publication.study_rows import Summary
from index.query.study_filter import StudyFilter, TextTest, WordTest

# Studies that the first query reads, and the later ones: most lists are left after the first.
FIRST_PAGE = 50
PAGE = 1000
# Studies of one value that are read and then ordered, instead of reading all in order and testing each.
FEW = 300
# Changed studies that are elected anew for each list; of more, the rows are made first.
CHANGED = 500

# The columns of what identifies a study besides its UID.
IDENTIFIERS = ("patient_id", "accession")

Position = tuple[Any, int]
"""Where a study stands in a list: the value that it is ordered by, and its row id."""

# By sort: the column that orders; the row id is last, so that no two studies are equal.
ORDERS: dict[str, peewee.Field] = {
    "arrival": StudyListing.id,
    "received": StudyListing.last_received,
    "started": StudyListing.started,
    "name": StudyListing.name,
    "patient": StudyListing.patient_id,
    "accession": StudyListing.accession,
}


def find(
    database: Database, wanted: StudyFilter, after: Position | None = None, among: Any = None
) -> Iterator[Listed]:
    """Yield the studies that a filter asks for, in its order.

    `after`: only those behind the study of this `position`. `among`: a query for the row ids of studies,
    only of which they are.
    """
    changed = _changed(database)
    if not changed:
        return _made(database, wanted, after, among)
    key = position(wanted)
    fits = [one for one in as_they_are(database, _among(database, changed, among)) if _fits(one, wanted)]
    fits = sorted(_behind(fits, wanted, after), key=key, reverse=wanted.is_descending)
    made = (one for one in _made(database, wanted, after, among) if one.id not in changed)
    return heapq.merge(made, fits, key=key, reverse=wanted.is_descending)


def _among(database: Database, changed: set[int], among: Any) -> list[int]:
    if among is None:
        return sorted(changed)
    query = Study.select(Study.id).where(Study.id.in_(sorted(changed)), Study.id.in_(among))
    return sorted(study for (study,) in database.rows(query))


def _behind(found: Iterable[Listed], wanted: StudyFilter, after: Position | None) -> Iterable[Listed]:
    """Return the studies that stand behind a position."""
    key = position(wanted)
    if after is None:
        return found
    if wanted.is_descending:
        return (one for one in found if key(one) < after)
    return (one for one in found if key(one) > after)


def fits(summary: Summary, name: str, wanted: StudyFilter) -> bool:
    """Whether a study without a row is asked for; it has whatever state is."""
    return _fits(Listed(0, 0, wanted.of_state, summary, name, 0, 0, ()), wanted)


def total_bytes(database: Database) -> int:
    """Return the bytes of all objects of studies, by the index alone."""
    changed = _changed(database)
    ((total,),) = database.rows(sum_of_bytes())
    ((before,),) = database.rows(sum_of_bytes().where(StudyListing.id.in_(list(changed))))
    return int(total) - int(before) + sum(one.bytes for one in as_they_are(database, list(changed)))


def sum_of_bytes() -> Any:
    """Return the query for the bytes of all rows; its index has them all."""
    size = fn.COALESCE(fn.SUM(StudyListing.bytes), 0)
    return StudyListing.select(size).where(StudyListing.state == "available")


def _changed(database: Database) -> set[int]:
    """Return the studies whose rows are not up to date; where these are many, make them first."""
    changed = outdated(database)
    if len(changed) > CHANGED and not database.is_read_only:
        try:
            bring_up_to_date(database, changed)
        except NotKept:  # a full disk does not keep the list from being read
            return set(changed)
        changed = outdated(database)
    return set(changed)


def position(wanted: StudyFilter) -> Callable[[Listed], Position]:
    """Return the function that tells where a study stands in the order asked for."""
    column = ORDERS[wanted.order].column_name
    value = COLUMNS[column]
    return lambda one: (value(one), one.id)


def _fits(one: Listed, wanted: StudyFilter) -> bool:
    """Whether a study is asked for: the same as `_condition`, without SQL."""
    if one.state != wanted.of_state:
        return False
    if not all(test.fits(one.column(column)) for column, test in wanted.columns.items()):
        return False
    terms = one.terms if wanted.terms or wanted.words else set()
    if not all(
        any(kind == its_kind and test.fits(value) for its_kind, value in terms)
        for kind, test in wanted.terms.items()
    ):
        return False
    names = [value for kind, value in terms if kind == "name"]
    identifiers = [one.column(column) for column in IDENTIFIERS]
    return all(word.fits(names, identifiers, one.summary.uid) for word in wanted.words)


def _made(database: Database, wanted: StudyFilter, after: Position | None, among: Any) -> Iterator[Listed]:
    """Yield the same of the rows that are made."""
    few = _few(database, wanted)
    if few is None:
        yield from _pages(database, wanted, after, among)
        return
    query = StudyListing.select(*ROW).where(StudyListing.id.in_(few), StudyListing.revision >= 0)
    rows = database.rows(query if among is None else query.where(StudyListing.id.in_(among)))
    fits = _behind([one for one in map(from_row, rows) if _fits(one, wanted)], wanted, after)
    yield from sorted(fits, key=position(wanted), reverse=wanted.is_descending)


def _few(database: Database, wanted: StudyFilter) -> list[int] | None:
    """Return the studies of a value asked for that few have, or None: all values are those of many."""
    for queries in _by_value(database, wanted):
        found: set[int] = set()
        for query in queries:
            found.update(study for (study,) in database.rows(query.limit(FEW + 1)))
        if len(found) <= FEW:
            return sorted(found)
    return None


def _by_value(database: Database, wanted: StudyFilter) -> Iterator[list[Any]]:
    """Yield the queries of indexes for the studies of each value asked for."""
    for name, test in wanted.columns.items():
        yield [_by_column(database, wanted, name, test)]
    for kind, test in wanted.terms.items():
        yield [_by_term(database, kind, test)]
    for word in wanted.words:
        yield list(_by_word(database, wanted, word))


def _by_column(database: Database, wanted: StudyFilter, name: str, test: TextTest) -> Any:
    of_state = StudyListing.state == wanted.of_state
    return StudyListing.select(StudyListing.id).where(of_state, _passes(database, _column(name), test))


def _by_term(database: Database, kind: str, test: TextTest) -> Any:
    query = StudyTerm.select(StudyTerm.study).where(StudyTerm.kind == kind)
    return query.where(_passes(database, StudyTerm.value, test)).distinct()


def _by_word(database: Database, wanted: StudyFilter, word: WordTest) -> Iterator[Any]:
    """Yield the queries for the studies that pass a word's test."""
    for test in word.names:
        yield _by_term(database, "name", test)
    for test in word.identifiers:
        for column in IDENTIFIERS:
            yield _by_column(database, wanted, column, test)
    for test in word.uid:
        yield Study.select(Study.id).where(_passes(database, Study.uid, test))


def _column(name: str) -> Any:
    return getattr(StudyListing, name)


def _passes(database: Database, column: Any, test: TextTest) -> Any:
    condition = column.between(test.low, test.high) if test.low != test.high else column == test.low
    return condition & fits_pattern(database, column, test.pattern) if test.pattern else condition


def _conditions(database: Database, wanted: StudyFilter) -> Iterable[Any]:
    """Yield conditions for rows that are read in order: they must not lead the engine to another index."""
    yield StudyListing.state == wanted.of_state
    for name, test in wanted.columns.items():
        yield _passes(database, fn.COALESCE(_column(name), SQL("''")), test)
    for kind, test in wanted.terms.items():
        has = StudyTerm.select(SQL("1")).where(
            StudyTerm.study == StudyListing.id,
            StudyTerm.kind == kind,
            _passes(database, StudyTerm.value, test),
        )
        yield fn.EXISTS(has)
    for word in wanted.words:
        yield StudyListing.id.in_(reduce(or_, _by_word(database, wanted, word)))


def _pages(database: Database, wanted: StudyFilter, last: Position | None, among: Any) -> Iterator[Listed]:
    size, key = FIRST_PAGE, position(wanted)
    while True:
        query = page(database, wanted, last)
        query = query if among is None else query.where(StudyListing.id.in_(among))
        rows = database.rows(query.limit(size))
        for row in rows:
            found = from_row(row)
            last = key(found)
            yield found
        if len(rows) < size:
            return
        size = PAGE


def page(database: Database, wanted: StudyFilter, last: Position | None = None) -> Any:
    """Return the query for one page, behind the position of the `last` study of the page before."""
    column = ORDERS[wanted.order]
    by: Sequence[Any] = (column,) if column is StudyListing.id else (column, StudyListing.id)
    query = StudyListing.select(*ROW).where(*_conditions(database, wanted))
    if last is not None:
        values = last[-len(by) :]
        here, there = (peewee.Tuple(*by), peewee.Tuple(*values)) if len(by) > 1 else (by[0], values[0])
        query = query.where(here < there if wanted.is_descending else here > there)
    return query.order_by(*(one.desc() if wanted.is_descending else one for one in by))
