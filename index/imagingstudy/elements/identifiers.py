"""Identifiers and their issuers (PS3.3 C.7.1.1 and Table 10-17, HL7v2 Hierarchic Designator)."""

import re
from typing import Any

from index.imagingstudy.context import non_empty
from index.imagingstudy.rules import Rules
from index.imagingstudy.values import first, is_oid, is_uri, items
from index.records import Attributes

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def identifier(value: str, system: str | None, *, kind: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return an Identifier; `kind` is its type as a CodeableConcept."""
    return non_empty({"type": kind, "system": system}) | {"value": value}


def issued(
    value: str,
    issuer: Attributes,
    configured: str | None,
    rules: Rules,
    *,
    kind: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return an Identifier with the system of its issuer, or without an issuer the configured system.

    `issuer` is an item of an HL7v2 Hierarchic Designator macro. A local issuer without a configured system
    is the assigner's name: its numbers are not those of the configured system.
    """
    local = first(issuer, "LocalNamespaceEntityID")
    system = universal(issuer) or rules.issuer_systems.get(local, "")
    if system or not local:
        return identifier(value, system or configured, kind=kind)
    return identifier(value, None, kind=kind) | {"assigner": {"display": local}}


def universal(issuer: Attributes) -> str:
    """Return UniversalEntityID (0040,0032) as a URI by its type (0040,0033). Empty: it is not a URI."""
    entity, kind = first(issuer, "UniversalEntityID"), first(issuer, "UniversalEntityIDType")
    if kind == "ISO" and is_oid(entity):
        return f"urn:oid:{entity}"
    if kind == "UUID" and _UUID.fullmatch(entity):
        return f"urn:uuid:{entity.lower()}"
    if kind == "URI" and is_uri(entity):
        return entity
    return ""


def patient_issuer(attributes: Attributes) -> Attributes:
    """Return the issuer of PatientID: IssuerOfPatientIDQualifiersSequence, local name IssuerOfPatientID."""
    qualifiers = next(iter(items(attributes, "IssuerOfPatientIDQualifiersSequence")), {})
    local = first(attributes, "IssuerOfPatientID")
    issuer = {
        word: first(qualifiers, word)
        for word in ("UniversalEntityID", "UniversalEntityIDType")
        if first(qualifiers, word)
    }
    if local:
        issuer["LocalNamespaceEntityID"] = local
    return issuer


def sequence_issuer(attributes: Attributes, keyword: str) -> Attributes:
    """Return the first item of an issuer sequence, or an empty one."""
    return next(iter(items(attributes, keyword)), {})
