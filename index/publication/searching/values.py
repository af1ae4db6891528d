"""What a search asks of one parameter, as text: its modifier, chain and alternatives (R4 3.1.1.4)."""

import re
from dataclasses import dataclass

from index.errors import IndexFault
from index.publication.terms.dates import BadDate, Interval, interval
from index.publication.terms.parameters import Kind, Parameter, parameters_of

MOST_VALUES = 500
"""Alternatives of one parameter: each is a part of a statement."""

PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap")
_MODIFIERS = {
    Kind.TOKEN: ("missing", "not"),
    Kind.STRING: ("missing", "exact", "contains"),
    Kind.DATE: ("missing",),
    Kind.REFERENCE: ("missing", "identifier"),
    Kind.URI: ("missing",),
}


class BadSearch(IndexFault):
    """A search cannot be answered as it is: the message names the parameter and what is allowed."""


class UnknownParameter(BadSearch):
    """There is no such parameter: a lenient search leaves it out."""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One parameter of a search: any of `values` must match. `chained`: of what the reference leads to."""

    parameter: Parameter
    modifier: str
    values: tuple[str, ...]
    chained: "Criterion | None" = None


def modifiers_of(parameter: Parameter) -> tuple[str, ...]:
    """Return the modifiers that a parameter takes."""
    return _MODIFIERS[parameter.kind]


def criterion(fhir: str, kind: str, name: str, value: str) -> Criterion:
    """Return what a parameter asks for, by its full name. Raises UnknownParameter, BadSearch."""
    head, dot, rest = name.partition(".")
    word, _, modifier = head.partition(":")
    parameter = parameters_of(fhir, kind).get(word)
    if parameter is None:
        raise UnknownParameter(f"{name[:100]}: {kind} has no such search parameter, see metadata")
    if dot:
        return _chained(parameter, modifier, rest, value)
    values = tuple(each for each in separated(value, ",") if each)
    if parameter.kind is Kind.REFERENCE and modifier in parameter.targets:
        values = tuple(each if "/" in each else f"{modifier}/{each}" for each in values)
        modifier = ""
    if modifier and modifier not in modifiers_of(parameter):
        allowed = ", ".join(modifiers_of(parameter))
        raise BadSearch(f"{name[:100]}: there is no such modifier here; allowed are {allowed}")
    if not values:
        raise UnknownParameter(f"{name[:100]}: has no value")
    if len(values) > MOST_VALUES:
        raise BadSearch(f"{name[:100]}: has more than {MOST_VALUES} values")
    return Criterion(parameter, modifier, values)


def _chained(parameter: Parameter, modifier: str, rest: str, value: str) -> Criterion:
    targets = [each for each in parameter.targets if not modifier or each == modifier]
    known = [each for each in targets if parameters_of(parameter.fhir, each)]
    if parameter.kind is not Kind.REFERENCE or not known or "." in rest:
        raise UnknownParameter(f"{parameter.name}.{rest[:100]}: there is no such chained parameter")
    return Criterion(parameter, "", (), criterion(parameter.fhir, known[0], rest, value))


def separated(text: str, separator: str) -> list[str]:
    r"""Split a value; a separator behind a backslash is part of it (R4 3.1.1.4.16), which `plain` removes."""
    parts = [""]
    for found in re.finditer(r"\\.|.", text, re.DOTALL):
        if found.group() == separator:
            parts.append("")
        else:
            parts[-1] += found.group()
    return parts


def plain(text: str) -> str:
    """Return a value without the backslashes that protect its separators."""
    return re.sub(r"\\([\\,|$])", r"\1", text)


def token(text: str) -> tuple[str | None, str | None]:
    """Return system and code of a token; None: any. An empty system: none at all."""
    system, bar, word = _cut_at_bar(text)
    if not bar:
        return None, plain(text)
    return plain(system), plain(word) or None


def _cut_at_bar(text: str) -> tuple[str, str, str]:
    for found in re.finditer(r"\\.|\|", text, re.DOTALL):
        if found.group() == "|":
            return text[: found.start()], "|", text[found.end() :]
    return text, "", ""


def moment(name: str, text: str) -> tuple[str, Interval]:
    """Return prefix and interval of a date. Raises BadSearch."""
    prefix = text[:2] if text[:2] in PREFIXES else "eq"
    try:
        return prefix, interval(text.removeprefix(prefix))
    except BadDate as error:
        raise BadSearch(f"{name}: {error}; before it may stand {', '.join(PREFIXES)}") from error
