"""Terms: the values of a resource's search parameters, as they are kept and compared."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from index.dicom.person_names import folded_without_accents
from index.publication.terms.dates import interval_of
from index.publication.terms.parameters import Kind, Parameter, parameters_of, values_at

LONGEST = 200
"""Characters of a value that are kept and compared: an index of PostgreSQL takes 2,700 bytes."""

_OID = "urn:oid:"
_NAME_PARTS = ("text", "family", "given", "prefix", "suffix")


class Term(NamedTuple):
    """One row: see the table."""

    parameter: int
    system: str
    value: str
    exact: str = ""
    low: int | None = None
    high: int | None = None


def cut(text: str) -> str:
    """Return a text as it is kept: no longer than LONGEST, and as every database takes it."""
    return text[:LONGEST].replace("\0", "\ufffd")


def comparable(text: str) -> str:
    """Return a text as it is compared: without case and accents (R4 3.1.1.4.8)."""
    return cut(folded_without_accents(cut(text)))


def code(text: str) -> str:
    """Return a token's value as it is compared: without case (R4 3.1.1.4.10); a UID without urn:oid."""
    return cut(cut(text).casefold()).removeprefix(_OID)


def terms_of(fhir: str, type: str, content: bytes) -> list[Term]:  # noqa: A002  FHIR's word
    """Return the terms of a resource, each once."""
    parameters = parameters_of(fhir, type)
    resource = orjson.loads(content) if parameters else {}
    found: dict[Term, None] = {}
    for parameter in parameters.values():
        for path in parameter.paths:
            seen: set[int | str] = set()
            for value in values_at(resource, path):
                # Of thousands of instances, those with the same SOP Class have the same term.
                key = repr(value)
                if key not in seen:
                    seen.add(key)
                    found.update(dict.fromkeys(_MAKERS[parameter.kind](parameter, value)))
    return list(found)


def _tokens(parameter: Parameter, value: Any) -> Iterator[Term]:
    """Yield a code, Coding, CodeableConcept or Identifier."""
    number = parameter.number
    if isinstance(value, str):
        yield Term(number, parameter.system, code(value))
    elif isinstance(value, dict):
        for coding in value.get("coding", ()):
            yield from _tokens(parameter, coding)
        word = value.get("code", value.get("value"))
        if isinstance(word, str):
            yield Term(number, cut(value.get("system", "")), code(word))
        elif "text" in value and "coding" not in value:
            # It is not missing, and there is no code that finds it.
            yield Term(number, "", "", cut(value["text"]))


def _strings(parameter: Parameter, value: Any) -> Iterator[Term]:
    """Yield a text, or the parts of a HumanName."""
    if isinstance(value, str):
        yield Term(parameter.number, "", comparable(value), cut(value))
    elif isinstance(value, dict):
        for part in _NAME_PARTS:
            for text in values_at(value, part):
                yield from _strings(parameter, text)


def _dates(parameter: Parameter, value: Any) -> Iterator[Term]:
    found = interval_of(value)
    if found is not None:
        yield Term(parameter.number, "", "", "", found.low, found.high)
        yield Term(parameter.of_instants, "", "", "", *found.instant)


def _references(parameter: Parameter, value: Any) -> Iterator[Term]:
    """Yield what a Reference leads to, and the identifier within it (R4 3.1.1.4.12)."""
    if not isinstance(value, dict):
        return
    reference = value.get("reference")
    if isinstance(reference, str) and reference.partition("/")[0] in parameter.targets:
        yield Term(parameter.number, "", cut(reference))
    identifier = value.get("identifier")
    if isinstance(identifier, dict) and isinstance(identifier.get("value"), str):
        yield Term(parameter.of_identifiers, cut(identifier.get("system", "")), code(identifier["value"]))


def _uris(parameter: Parameter, value: Any) -> Iterator[Term]:
    if isinstance(value, str):
        yield Term(parameter.number, "", cut(value).removeprefix(_OID))


_MAKERS = {
    Kind.TOKEN: _tokens,
    Kind.STRING: _strings,
    Kind.DATE: _dates,
    Kind.REFERENCE: _references,
    Kind.URI: _uris,
}
