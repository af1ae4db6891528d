"""The search parameters of each FHIR version, and where their values stand in a resource.

Names, types and paths are those of the versions' search parameter registries (DSTU2 1.0.2, R4 4.0.1, R5
5.0.0). From these tables the terms are made, the searches answered and the CapabilityStatement written.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any


class Kind(StrEnum):
    """Types of search parameters (http://hl7.org/fhir/search-param-type)."""

    TOKEN = "token"  # noqa: S105  FHIR's word
    STRING = "string"
    DATE = "date"
    REFERENCE = "reference"
    URI = "uri"


class Rows(StrEnum):
    """What is answered from the rows of series and instances: a study may have 100,000 instances."""

    SERIES = "series"
    INSTANCE = "instance"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter of a type of resource.

    `paths`: where its values stand, by names of elements. `targets`: types that a reference may lead to.
    `system`: of an element of type code. `rows`: see Rows; then it has no terms.
    """

    fhir: str
    type: str
    name: str
    kind: Kind
    paths: tuple[str, ...]
    targets: tuple[str, ...] = ()
    system: str = ""
    rows: Rows | None = None

    @property
    def number(self) -> int:
        """What it is called in the table of terms."""
        return _number(f"{self.fhir}/{self.type}/{self.name}")

    @property
    def of_identifiers(self) -> int:
        """What the identifiers within its references are called there (modifier :identifier)."""
        return _number(f"{self.fhir}/{self.type}/{self.name}:identifier")

    @property
    def of_instants(self) -> int:
        """What its values with a zone, as moments in UTC, are called there."""
        return _number(f"{self.fhir}/{self.type}/{self.name}:instant")


@cache
def _number(name: str) -> int:
    """Return a number of 31 bits: a name in each row and its index would take four times the room."""
    return zlib.crc32(name.encode()) >> 1


_HL7 = "http://hl7.org/fhir/"
_PERSON = """
    identifier  token      identifier
    name        string     name
    family      string     name.family
    given       string     name.given
"""
_PATIENT = f"""
    {_PERSON}
    birthdate   date       birthDate
    gender      token      gender                      {_HL7}administrative-gender
"""
_NAMED = """
    identifier  token      identifier
    name        string     name
"""
# Of each type: name, type, paths separated by |, then the targets of a reference or the system of a code.
_DSTU2 = {
    "ImagingStudy": """
        accession    token      accession
        bodysite     token      series.bodySite
        dicom-class  uri        series.instance.sopClass
        modality     token      series.modality
        order        reference  order                     DiagnosticOrder
        patient      reference  patient                   Patient
        series       uri        @series
        started      date       started
        study        uri        uid
        uid          uri        @instance
    """,
    "Patient": _PATIENT,
    "Practitioner": _PERSON,
    "DiagnosticOrder": f"""
        identifier   token      identifier
        patient      reference  subject                   Patient
        subject      reference  subject                   Patient
        orderer      reference  orderer                   Practitioner
        code         token      item.code
        status       token      status                    {_HL7}diagnostic-order-status
    """,
    "Procedure": """
        identifier   token      identifier
        patient      reference  subject                   Patient
        subject      reference  subject                   Patient
        code         token      code
        date         date       performedDateTime|performedPeriod
        performer    reference  performer.actor           Practitioner
    """,
}
_STUDY = f"""
    identifier   token      identifier
    patient      reference  subject                       Patient
    subject      reference  subject                       Patient
    dicom-class  token      series.instance.sopClass
    encounter    reference  encounter                     Encounter
    endpoint     reference  endpoint|series.endpoint      Endpoint
    instance     token      @instance
    performer    reference  series.performer.actor        Practitioner
    referrer     reference  referrer                      Practitioner
    series       token      @series
    started      date       started
    status       token      status                        {_HL7}imagingstudy-status
"""
_PROCEDURE = f"""
    identifier   token      identifier
    patient      reference  subject                       Patient
    subject      reference  subject                       Patient
    based-on     reference  basedOn                       ServiceRequest
    code         token      code
    performer    reference  performer.actor               Practitioner
    status       token      status                        {_HL7}event-status
"""
_REQUEST = f"""
    identifier   token      identifier
    patient      reference  subject                       Patient
    subject      reference  subject                       Patient
    requester    reference  requester                     Practitioner
    authored     date       authoredOn
    occurrence   date       occurrenceDateTime|occurrencePeriod
    intent       token      intent                        {_HL7}request-intent
    priority     token      priority                      {_HL7}request-priority
    status       token      status                        {_HL7}request-status
"""
_SPECIMEN = """
    identifier   token      identifier
    patient      reference  subject                       Patient
    subject      reference  subject                       Patient
    type         token      type
"""
_ENDPOINT = f"""
    identifier       token      identifier
    name             string     name
    connection-type  token      connectionType
    organization     reference  managingOrganization      Organization
    status           token      status                    {_HL7}endpoint-status
"""
_R4 = {
    "ImagingStudy": f"""
        {_STUDY}
        basedon      reference  basedOn                   ServiceRequest
        bodysite     token      series.bodySite
        interpreter  reference  interpreter               Practitioner
        modality     token      series.modality
        reason       token      reasonCode
    """,
    "Patient": _PATIENT,
    "Practitioner": _PERSON,
    "Endpoint": f"""
        {_ENDPOINT}
        payload-type token      payloadType
    """,
    "Organization": _NAMED,
    "Location": _NAMED,
    "Specimen": _SPECIMEN,
    "ServiceRequest": f"""
        {_REQUEST}
        code         token      code
    """,
    "Procedure": f"""
        {_PROCEDURE}
        date         date       performedDateTime|performedPeriod
    """,
}
_R5 = {
    "ImagingStudy": f"""
        {_STUDY}
        based-on        reference  basedOn                ServiceRequest
        body-site       token      series.bodySite.concept
        body-structure  reference  series.bodySite.reference  BodyStructure
        modality        token      series.modality
        reason          token      reason.concept
    """,
    "Patient": _PATIENT,
    "Practitioner": _PERSON,
    "Endpoint": f"""
        {_ENDPOINT}
        payload-type token      payload.type
    """,
    "Organization": _NAMED,
    "Location": _NAMED,
    "Specimen": _SPECIMEN,
    "ServiceRequest": f"""
        {_REQUEST}
        code-concept token      code.concept
    """,
    "Procedure": f"""
        {_PROCEDURE}
        date         date       occurrenceDateTime|occurrencePeriod
    """,
}


def _parsed(fhir: str, types: dict[str, str]) -> Iterator[Parameter]:
    for kind, table in types.items():
        for line in table.split("\n"):
            if not line.strip():
                continue
            name, type_, paths, *rest = line.split()
            rows = Rows(paths[1:]) if paths.startswith("@") else None
            reference = type_ == Kind.REFERENCE
            yield Parameter(
                fhir,
                kind,
                name,
                Kind(type_),
                () if rows else tuple(paths.split("|")),
                tuple(rest) if reference else (),
                "" if reference else "".join(rest),
                rows,
            )


PARAMETERS: dict[tuple[str, str], dict[str, Parameter]] = {}
"""By FHIR version and type of resource: its search parameters by name."""

for _fhir, _types in (("dstu2", _DSTU2), ("r4", _R4), ("r5", _R5)):
    for _one in _parsed(_fhir, _types):
        PARAMETERS.setdefault((_fhir, _one.type), {})[_one.name] = _one

TERMS = zlib.crc32(repr(sorted(PARAMETERS.items())).encode()) >> 1 or 1
"""Changes with these tables. Terms that were made by others are made again: the module filling."""


def types_of(fhir: str) -> list[str]:
    """Return the types of resources that a version may have."""
    return [type_ for version, type_ in PARAMETERS if version == fhir]


def parameters_of(fhir: str, type: str) -> dict[str, Parameter]:  # noqa: A002  FHIR's word
    """Return the search parameters of a type of resource by name."""
    return PARAMETERS.get((fhir, type), {})


def values_at(node: Any, path: str) -> Iterator[Any]:
    """Yield what stands at a path of a resource, one by one."""
    return _walk(node, path.split("."))


def _walk(node: Any, names: list[str]) -> Iterator[Any]:
    if isinstance(node, list):
        for each in node:
            yield from _walk(each, names)
    elif not names:
        yield node
    elif isinstance(node, dict) and names[0] in node:
        yield from _walk(node[names[0]], names[1:])
