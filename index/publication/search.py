"""The list of studies, found and ordered by the indexes of StudyListing, read page by page.

What was made at the last publication is read. Studies that have changed since are listed as they are now.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import peewee
from peewee import SQL, fn

from index.database.connection import Database
from index.database.patterns import fits_pattern
from index.database.tables import StudyListing, StudyTerm
from index.errors import NotKept
from index.publication.listing import COLUMNS, ROW, Listed, as_they_are, bring_up_to_date, from_row, outdated
from index.publication.study_rows import Summary
from index.query.study_filter import StudyFilter, TextTest

# Studies that the first query reads, and the later ones: most lists are left after the first.
FIRST_PAGE = 50
PAGE = 1000
# Studies of one value that are read and then ordered, instead of reading all in order and testing each.
FEW = 300
# Changed studies that are elected anew for each list; of more, the rows are made first.
CHANGED = 500

# By sort: the column that orders; the row id is last, so that no two studies are equal.
ORDERS: dict[str, peewee.Field] = {
    "arrival": StudyListing.id,
    "received": StudyListing.last_received,
    "started": StudyListing.started,
    "name": StudyListing.name,
    "patient": StudyListing.patient_id,
    "accession": StudyListing.accession,
}


def find(database: Database, wanted: StudyFilter) -> Iterator[Listed]:
    """Yield the studies that a filter asks for, in its order."""
    changed = _changed(database)
    if not changed:
        return _made(database, wanted)
    fits = [one for one in as_they_are(database, sorted(changed)) if _fits(one, wanted)]
    fits.sort(key=_sort_key(wanted), reverse=wanted.is_descending)
    made = (one for one in _made(database, wanted) if one.id not in changed)
    return heapq.merge(made, fits, key=_sort_key(wanted), reverse=wanted.is_descending)


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


def _sort_key(wanted: StudyFilter) -> Callable[[Listed], tuple[Any, int]]:
    column = ORDERS[wanted.order].column_name
    value = COLUMNS[column]
    return lambda one: (value(one), one.id)


def _fits(one: Listed, wanted: StudyFilter) -> bool:
    """Whether a study is asked for: the same as `_condition`, without SQL."""
    if one.state != wanted.of_state:
        return False
    if not all(test.fits(one.column(column)) for column, test in wanted.columns.items()):
        return False
    terms = one.terms if wanted.terms else ()
    return all(
        any(kind == its_kind and test.fits(value) for its_kind, value in terms)
        for kind, test in wanted.terms.items()
    )


def _made(database: Database, wanted: StudyFilter) -> Iterator[Listed]:
    """Yield the same of the rows that are made."""
    few = _few(database, wanted)
    if few is None:
        yield from _pages(database, wanted)
        return
    rows = database.rows(
        StudyListing.select(*ROW).where(StudyListing.id.in_(few), StudyListing.revision >= 0)
    )
    fits = [one for one in map(from_row, rows) if _fits(one, wanted)]
    yield from sorted(fits, key=_sort_key(wanted), reverse=wanted.is_descending)


def _few(database: Database, wanted: StudyFilter) -> list[int] | None:
    """Return the studies of a value asked for that few have, or None: all values are those of many."""
    for query in _by_value(database, wanted):
        rows = database.rows(query.limit(FEW + 1))
        if len(rows) <= FEW:
            return [study for (study,) in rows]
    return None


def _by_value(database: Database, wanted: StudyFilter) -> Iterator[Any]:
    """Yield a query of an index for the studies of each value asked for."""
    of_state = StudyListing.state == wanted.of_state
    for name, test in wanted.columns.items():
        yield StudyListing.select(StudyListing.id).where(of_state, _passes(database, _column(name), test))
    for kind, test in wanted.terms.items():
        query = StudyTerm.select(StudyTerm.study).where(StudyTerm.kind == kind)
        yield query.where(_passes(database, StudyTerm.value, test)).distinct()


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


def _pages(database: Database, wanted: StudyFilter) -> Iterator[Listed]:
    last: Listed | None = None
    size = FIRST_PAGE
    while True:
        rows = database.rows(page(database, wanted, last).limit(size))
        for row in rows:
            last = from_row(row)
            yield last
        if len(rows) < size:
            return
        size = PAGE


def page(database: Database, wanted: StudyFilter, last: Listed | None = None) -> Any:
    """Return the query for one page, behind the study that was the `last` of the page before."""
    column = ORDERS[wanted.order]
    by: Sequence[Any] = (column,) if column is StudyListing.id else (column, StudyListing.id)
    query = StudyListing.select(*ROW).where(*_conditions(database, wanted))
    if last is not None:
        values = _sort_key(wanted)(last)[-len(by) :]
        here, there = (peewee.Tuple(*by), peewee.Tuple(*values)) if len(by) > 1 else (by[0], values[0])
        query = query.where(here < there if wanted.is_descending else here > there)
    return query.order_by(*(one.desc() if wanted.is_descending else one for one in by))
