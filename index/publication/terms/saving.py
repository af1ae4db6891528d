"""Terms written with the resource that they are of."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from peewee import SQL, Query

from index.database.connection import Database
from index.database.tables import ResourceTerm
from index.publication.terms.extraction import Term

# Rows of one statement.
_ROWS = 500
_FIELDS = (
    ResourceTerm.parameter,
    ResourceTerm.system,
    ResourceTerm.value,
    ResourceTerm.exact,
    ResourceTerm.low,
    ResourceTerm.high,
)


def save_terms(database: Database, resource: int, terms: Sequence[Term]) -> None:
    """Make these the terms of a resource: what has not changed is not written. In its transaction."""
    rows = database.prepared(_select).run(resource=resource).fetchall()
    there = {Term(*values): row for row, *values in rows}
    wanted = set(terms)
    gone = [row for term, row in there.items() if term not in wanted]
    for some in _parts(gone):
        database.execute(ResourceTerm.delete().where(ResourceTerm.id.in_(some)))
    new = [(resource, *term) for term in terms if term not in there]
    for some in _parts(new):
        database.execute(ResourceTerm.insert_many(some, (ResourceTerm.resource, *_FIELDS)))


def _parts(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(rows), _ROWS):
        yield rows[begin : begin + _ROWS]


def remove_terms(database: Database, resource: int) -> None:
    """Remove the terms of a resource that is deleted."""
    database.execute(ResourceTerm.delete().where(ResourceTerm.resource == resource))


def _select(p: Callable[[str], SQL]) -> Query:
    return ResourceTerm.select(ResourceTerm.id, *_FIELDS).where(ResourceTerm.resource == p("resource"))
