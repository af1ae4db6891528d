"""Searches of resources: pages in an order that stays right while studies arrive, and what goes with them.

A page begins behind a position, which is the value that the last resource was ordered by, and its row: no
resource is missed or listed twice because others come or go.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from peewee import JOIN, SQL, fn

from index.database.connection import Database
from index.database.tables import Resource, ResourceContent, ResourceTerm
from index.publication.resources import Resources, StoredResource
from index.publication.searching.conditions import all_of
from index.publication.terms.filling import without_terms
from index.publication.terms.parameters import Kind, Parameter

PAGE_BYTES = 16 * 1024 * 1024
"""A page ends behind so many bytes of resources: a study of 100,000 instances has as many."""
MOST_INCLUDED = 1000
"""Resources that go with a page, such as all studies of its patients."""

# Up to so many are ordered after they were found; of more, the first are found by their order.
_FEW = 2000

Position = tuple[Any, int]


@dataclass(frozen=True, slots=True)
class Order:
    """What a search is ordered by: a parameter, _lastUpdated, _id, or by nothing: in the order of arrival."""

    by: Parameter | str = ""
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """A search of one type of resource. `after`: the position that the page begins behind."""

    fhir: str
    type: str
    conditions: Sequence[Any] = ()
    order: Order = field(default_factory=Order)
    after: Position | None = None
    count: int = 50


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a search. `next`: the position that another begins behind; None: there is no other."""

    fhir: str
    total: int
    rows: list[int] = field(default_factory=list)
    found: list[StoredResource] = field(default_factory=list)
    next: Position | None = None


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    key: Any
    size: int


class ResourceSearch:
    """Finds resources by their terms."""

    def __init__(self, database: Database, resources: Resources) -> None:
        self.database = database
        self._resources = resources

    def find(self, search: Search) -> Page:
        """Return a page. Raises NotKept."""
        with self.database.reading():
            total = self._count(search)
            if not search.count:
                return Page(search.fhir, total)
            rows = self._rows(search, few=total <= _FEW)
            page: list[_Row] = []
            size = 0
            for row in rows[: search.count]:
                if page and size + row.size > PAGE_BYTES:
                    break
                page.append(row)
                size += row.size
            last = (page[-1].key, page[-1].id) if len(rows) > len(page) else None
            ids = [row.id for row in page]
            return Page(search.fhir, total, ids, self._contents(ids), last)

    def is_complete(self) -> bool:
        """Tell whether the terms of all resources are made."""
        return not self.database.rows(Resource.select(Resource.id).where(without_terms()).limit(1))

    def included(self, page: Page, parameters: Iterable[Parameter]) -> list[StoredResource]:
        """Return what the resources of a page refer to by these parameters (_include), each once."""
        numbers = [each.number for each in parameters]
        there = {f"{one.type}/{one.name}" for one in page.found}
        row = ResourceTerm
        query = (
            row.select(row.value).where(row.resource.in_(page.rows), row.parameter.in_(numbers)).distinct()
        )
        names = sorted({name for (name,) in self.database.rows(query)} - there)
        by_type: dict[str, list[str]] = {}
        for name in names[:MOST_INCLUDED]:
            by_type.setdefault(name.partition("/")[0], []).append(name.partition("/")[2])
        found: list[StoredResource] = []
        for kind, some in by_type.items():
            rows = Resource.select(Resource.id).where(_of(page.fhir, kind), Resource.name.in_(some))
            found += self._contents([row for (row,) in self.database.rows(rows.order_by(Resource.id))])
        return found

    def referring(self, page: Page, parameter: Parameter) -> list[StoredResource]:
        """Return the resources that refer to those of a page by a parameter (_revinclude)."""
        names = [f"{one.type}/{one.name}" for one in page.found]
        row = ResourceTerm
        query = row.select(row.resource).where(row.parameter == parameter.number, row.value.in_(names))
        rows = self.database.rows(query.order_by(row.resource).distinct().limit(MOST_INCLUDED))
        return self._contents([found for (found,) in rows])

    def _contents(self, rows: Sequence[int]) -> list[StoredResource]:
        """Return resources with their contents, in this order."""
        row = Resource
        columns = row.id, row.fhir, row.type, row.name, row.version, row.changed, ResourceContent.content
        query = row.select(*columns).join(ResourceContent, JOIN.LEFT_OUTER, on=(ResourceContent.id == row.id))
        found: dict[int, StoredResource] = {}
        for number, fhir, kind, name, version, changed, content in self.database.rows(
            query.where(row.id.in_(list(rows)))
        ):
            gzipped = bytes(content or b"")
            one = StoredResource(fhir, kind, name, version, changed, deleted=False, gzipped=gzipped)
            # Of an earlier version there is a file.
            found[number] = one if gzipped else self._resources.read(fhir, kind, name) or one
        whole = (found[number] for number in rows if number in found)
        return [one for one in whole if one.gzipped]

    def _count(self, search: Search) -> int:
        query = Resource.select(fn.COUNT(SQL("1"))).where(_of(search.fhir, search.type), *search.conditions)
        ((count,),) = self.database.rows(query)
        return int(count)

    def _rows(self, search: Search, *, few: bool) -> list[_Row]:
        """Return one row more than the page has, if there is one."""
        by, wanted = search.order.by, search.count + 1
        if not isinstance(by, Parameter):
            column = {"_lastUpdated": Resource.changed, "_id": Resource.name}.get(by)
            ordered_by = (column, Resource.id) if column else (Resource.id,)
            return self._page(Resource.select(), search, ordered_by, search.after, wanted)
        rows: list[_Row] = []
        if search.after is None or search.after[0] is not None:
            rows = self._with_value(search, by, wanted, few=few)
        if len(rows) < wanted:
            # Those without the value come last.
            held = ResourceTerm.select(ResourceTerm.resource).where(ResourceTerm.parameter == by.number)
            without = Resource.select().where(Resource.id.not_in(held))
            after = search.after if search.after and search.after[0] is None else None
            rest = self._page(without, search, (Resource.id,), after, wanted - len(rows))
            rows += [_Row(row.id, None, row.size) for row in rest]
        return rows

    def _with_value(self, search: Search, by: Parameter, wanted: int, *, few: bool) -> list[_Row]:
        """Return those that have a value of the parameter, by the first in their order."""
        row = ResourceTerm
        column = row.low if by.kind is Kind.DATE else row.value
        other = row.alias()
        theirs = other.low if by.kind is Kind.DATE else other.value
        earlier = (theirs > column) if search.order.descending else (theirs < column)
        same = other.select(SQL("1")).where(
            other.resource == row.resource, other.parameter == by.number, earlier
        )
        query = Resource.select().join(row, on=(row.resource == Resource.id))
        # A number that no index is on: few resources are found first, and ordered then.
        number = (row.parameter + 0) if few else row.parameter
        query = query.where(number == by.number, column.is_null(False), ~fn.EXISTS(same))
        ordered_by = column, Resource.id if few else row.resource
        return self._page(query, search, ordered_by, search.after, wanted)

    def _page(
        self, query: Any, search: Search, by: Sequence[Any], after: Position | None, wanted: int
    ) -> list[_Row]:
        """Return rows behind a position. `by`: what they are ordered by; its last is the row."""
        column, row = by[0], by[-1]
        descending = search.order.descending and bool(search.order.by)
        conditions = [_of(search.fhir, search.type), *search.conditions]
        if after is not None:
            key, last = after
            beyond = row < last if descending else row > last
            if len(by) > 1 and descending:
                beyond = (column <= key) & ((column < key) | beyond)
            elif len(by) > 1:
                beyond = (column >= key) & ((column > key) | beyond)
            conditions.append(beyond)
        ordered = [each.desc() for each in by] if descending else by
        query = query.select(row, column, Resource.size).distinct().where(all_of(conditions))
        return [_Row(*found) for found in self.database.rows(query.order_by(*ordered).limit(wanted))]


def _of(fhir: str, kind: str) -> Any:
    return (Resource.fhir == fhir) & (Resource.type == kind) & (Resource.deleted == SQL("0"))
