"""Person names: the PN value representation (PS3.5 Section 6.2.1) to FHIR HumanName."""

from typing import Any

from index.imagingstudy.terminology.systems import Dialect
from index.imagingstudy.values import clean

REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
"""The extension for alphabetic, ideographic and syllabic names; the same in every version."""

_GROUPS = ("ABC", "IDE", "SYL")
_COMPONENTS = 5


def human_names(value: str, dialect: Dialect) -> list[dict[str, Any]]:
    """Return a HumanName for each component group that is not empty: alphabetic, ideographic, phonetic.

    A name that is only alphabetic has no representation.
    """
    groups = [(kind, _components(group)) for kind, group in zip(_GROUPS, value.split("="), strict=False)]
    groups = [(kind, components) for kind, components in groups if any(components)]
    plain = [kind for kind, _ in groups] == ["ABC"]
    return [_human_name("" if plain else kind, components, dialect) for kind, components in groups]


def plain_text(value: str) -> str:
    """Return the first component group that is not empty as a line of text. Empty: no name."""
    for kind, group in zip(_GROUPS, value.split("="), strict=False):
        components = _components(group)
        if any(components):
            return _line(kind, components)
    return ""


def _components(group: str) -> list[str]:
    """Return family, given, middle, prefix, suffix; further components belong to the suffix."""
    parts = [clean(part) for part in group.split("^", _COMPONENTS - 1)]
    parts += [""] * (_COMPONENTS - len(parts))
    parts[-1] = clean(parts[-1].replace("^", " "))
    return parts


def _human_name(kind: str, components: list[str], dialect: Dialect) -> dict[str, Any]:
    family, given, middle, prefix, suffix = components
    name: dict[str, Any] = {}
    if kind:
        name["extension"] = [{"url": REPRESENTATION, "valueCode": kind}]
    text = clean(_line(kind, components))
    if text:
        name["text"] = text
    if family:
        name["family"] = [family] if dialect.family_list else family
    if given or middle:
        name["given"] = [part for part in (given, middle) if part]
    if prefix:
        name["prefix"] = [prefix]
    if suffix:
        name["suffix"] = [suffix]
    return name


def _line(kind: str, components: list[str]) -> str:
    """Return the name as it is written: ideographic and phonetic names begin with the family name."""
    family, given, middle, prefix, suffix = components
    if kind in ("IDE", "SYL"):
        order = (prefix, family, given, middle, suffix)
    else:
        order = (prefix, given, middle, family, suffix)
    return " ".join(part for part in order if part)
