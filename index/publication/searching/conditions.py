"""What a search asks for, as conditions of statements."""

import operator
import time
from collections.abc import Callable, Sequence
from typing import Any

from peewee import Query, Value, fn

from index.database.connection import Database
from index.database.tables import Instance, Resource, ResourceTerm, Series, Study
from index.publication.searching.values import BadSearch, Criterion, moment, plain, token
from index.publication.terms.dates import Interval
from index.publication.terms.extraction import code, comparable, cut
from index.publication.terms.parameters import Kind, Parameter, Rows

# Behind every character, in the order of code points.
_LAST = "\U0010ffff"
_YES_NO = {"true": True, "false": False}
# Of the time from now to a date, "approximately" is a tenth to both sides (R4 3.1.1.4.5).
_APPROXIMATELY = 10


def condition(database: Database, asked: Criterion) -> Any:
    """Return a condition of Resource. Raises BadSearch."""
    parameter = asked.parameter
    if asked.chained:
        return Resource.id.in_(_chained(database, parameter, asked.chained))
    if asked.modifier == "missing":
        return _missing(parameter, asked.values)
    if parameter.rows:
        found = _by_rows(parameter, [code(token(plain(value))[1] or "") for value in asked.values])
        return Resource.name.not_in(found) if asked.modifier == "not" else Resource.name.in_(found)
    row = ResourceTerm
    if asked.modifier == "identifier":
        matches = any_of([_token(value) for value in asked.values])
        return Resource.id.in_(
            row.select(row.resource).where(row.parameter == parameter.of_identifiers, matches)
        )
    if parameter.kind is Kind.DATE:
        return any_of([_date(parameter, value) for value in asked.values])
    matches = any_of([_matches(database, parameter, asked.modifier, value) for value in asked.values])
    found = row.select(row.resource).where(row.parameter == parameter.number, matches)
    return Resource.id.not_in(found) if asked.modifier == "not" else Resource.id.in_(found)


def any_of(conditions: Sequence[Any]) -> Any:
    """Return the condition that one holds; nested as flat as can be."""
    return _joined(operator.or_, conditions)


def all_of(conditions: Sequence[Any]) -> Any:
    """Return the condition that all hold; nested as flat as can be."""
    return _joined(operator.and_, conditions)


def _joined(join: Callable[[Any, Any], Any], conditions: Sequence[Any]) -> Any:
    if len(conditions) == 1:
        return conditions[0]
    half = len(conditions) // 2
    return join(_joined(join, conditions[:half]), _joined(join, conditions[half:]))


def _matches(database: Database, parameter: Parameter, modifier: str, value: str) -> Any:
    row = ResourceTerm
    if parameter.kind is Kind.TOKEN:
        return _token(value)
    if parameter.kind is Kind.URI:
        return row.value == cut(plain(value)).removeprefix("urn:oid:")
    if parameter.kind is Kind.REFERENCE:
        return row.value.in_(_references(parameter, plain(value)))
    text = comparable(plain(value))
    if modifier == "exact":
        return (row.value == text) & (row.exact == cut(plain(value)))
    if modifier == "contains":
        at = fn.instr(row.value, text) if database.is_sqlite else fn.strpos(row.value, text)
        return at > 0
    return (row.value >= text) & (row.value < text + _LAST)


def _token(value: str) -> Any:
    """Return the condition of code, system|code, |code or system|."""
    row = ResourceTerm
    system, word = token(value)
    of_code = None if word is None else row.value == code(word)
    if system is None:
        return of_code
    of_system = row.system == cut(system)
    return of_system if of_code is None else of_code & of_system


def _references(parameter: Parameter, value: str) -> list[str]:
    """Return what a reference may be stored as, by Type/id or an id alone."""
    if "/" in value:
        return [cut(value.partition("/_history/")[0])]
    return [cut(f"{target}/{value}") for target in parameter.targets]


def _missing(parameter: Parameter, values: Sequence[str]) -> Any:
    if len(values) != 1 or values[0] not in _YES_NO:
        raise BadSearch(f"{parameter.name}:missing={','.join(values)[:100]}: allowed are true and false")
    if parameter.rows:
        there = Study.select(Study.uid).where(Study.instance_count > 0)
        return Resource.name.not_in(there) if _YES_NO[values[0]] else Resource.name.in_(there)
    numbers = [parameter.number, parameter.of_identifiers]
    held = ResourceTerm.select(ResourceTerm.resource).where(ResourceTerm.parameter.in_(numbers))
    return Resource.id.not_in(held) if _YES_NO[values[0]] else Resource.id.in_(held)


def _by_rows(parameter: Parameter, uids: list[str]) -> Query:
    """Return the names of the studies that have one of these series or instances."""
    studies = Study.select(Study.uid).join(Series)
    if parameter.rows is Rows.SERIES:
        return studies.where(Series.uid.in_(uids), Series.instance_count > 0)
    return studies.join(Instance).where(Instance.uid.in_(uids))


def _chained(database: Database, parameter: Parameter, asked: Criterion) -> Query:
    """Return the resources whose reference leads to one that has what is asked for."""
    other = asked.parameter
    names = Resource.select(Value(f"{other.type}/").concat(Resource.name)).where(
        Resource.fhir == other.fhir,
        Resource.type == other.type,
        Resource.deleted == 0,
        condition(database, asked),
    )
    row = ResourceTerm
    return row.select(row.resource).where(row.parameter == parameter.number, row.value.in_(names))


def _date(parameter: Parameter, value: str) -> Any:
    """Return the condition of a date: by the clock, or where the search has a zone, as moments."""
    prefix, asked = moment(parameter.name, plain(value))
    zoned = asked.offset is not None
    low, high = asked.instant if zoned else (asked.low, asked.high)
    row = ResourceTerm
    number = parameter.of_instants if zoned else parameter.number
    compared = compare(prefix, row.low, row.high, low, high)
    return Resource.id.in_(row.select(row.resource).where(row.parameter == number, compared))


def changed(name: str, value: str) -> Any:
    """Return the condition of _lastUpdated. Raises BadSearch."""
    prefix, asked = moment(name, plain(value))
    low, high = Interval(asked.low, asked.high, asked.offset).instant
    return (Resource.changed > 0) & compare(prefix, Resource.changed, Resource.changed + 1, low, high)


def compare(prefix: str, low: Any, high: Any, from_: int, to: int) -> Any:
    """Return how [low, high) compares with what is asked for, [from_, to) (R4 3.1.1.4.5)."""
    if prefix == "ap":
        now = time.time_ns() // 1_000_000
        width = max(abs(now - from_), abs(now - to)) // _APPROXIMATELY
        return (low < to + width) & (high > from_ - width)
    equal = (low >= from_) & (high <= to)
    return {
        "eq": equal,
        "ne": (low < from_) | (high > to),
        "gt": high > to,
        "sa": low >= to,
        "lt": low < from_,
        "eb": high <= from_,
        "ge": (high > to) | equal,
        "le": (low < from_) | equal,
    }[prefix]
