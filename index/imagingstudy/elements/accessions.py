"""Accession Numbers (0008,0050), all of a study, and the requests that they stand for."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from index.imagingstudy.context import Build
from index.imagingstudy.elements.identifiers import issued, sequence_issuer
from index.imagingstudy.elements.orders import identifiers, orders
from index.imagingstudy.elements.study import sources
from index.imagingstudy.values import first
from index.records import Attributes

MOST = 100
"""Accession Numbers of one study: some grouped procedures (IHE RAD TF-1 3.3.3), not one for each instance."""


@dataclass(frozen=True, slots=True)
class Accession:
    """An Accession Number and who issued it: an item of an HL7v2 Hierarchic Designator macro, or nothing."""

    value: str
    issuer: Attributes

    def fits(self, other: "Accession") -> bool:
        """Whether both may be one: the same number, of the same issuer where both name theirs."""
        return self.value == other.value and (
            self.issuer == other.issuer or not (self.issuer and other.issuer)
        )


def accession_of(source: Attributes) -> Accession | None:
    """Return the Accession Number of a set of attributes, if there is one."""
    value = first(source, "AccessionNumber")
    return Accession(value, sequence_issuer(source, "IssuerOfAccessionNumberSequence")) if value else None


def accessions(build: Build) -> list[Accession]:
    """Return each Accession Number once, with its issuer where any source names that.

    The elected one of the study comes first, then what instances and their requests say, then the orders'.
    """
    found: list[Accession] = []
    for one in _said(build):
        place = next((place for place, known in enumerate(found) if known.fits(one)), None)
        if place is not None:
            found[place] = found[place] if found[place].issuer else one
        elif len(found) < MOST:
            found.append(one)
        else:
            build.doubts.add(build.subject, f"more than {MOST} Accession Numbers, the others are left out")
            break
    return found


def _said(build: Build) -> Iterator[Accession]:
    study = build.study
    for source in (study.attributes, *study.accessions, *sources(build)[1:]):
        if one := accession_of(source):
            yield one


def accession_identifier(build: Build, one: Accession) -> dict[str, Any]:
    """Return an Accession Number as an Identifier of type ACSN (HL7 Table 0203)."""
    kind = {"coding": [{"system": build.dialect.identifier_type, "code": "ACSN"}]}
    return issued(one.value, one.issuer, build.rules.accession_system, build.rules, kind=kind)


def based_on(build: Build) -> list[dict[str, Any]]:
    """Return ImagingStudy.basedOn of R4 and R5.

    Each matched order is a reference with its Accession Number beside it, else another number of it. An
    Accession Number of no matched order is a logical reference: the request that it names is elsewhere.
    """
    others = accessions(build)
    made = []
    for order, reference in zip(build.study.orders, orders(build), strict=True):
        own = accession_of(order.attributes)
        same = next((one for one in others if own and one.fits(own)), None)
        if same:
            others.remove(same)
        beside = [accession_identifier(build, same)] if same else identifiers(build, order)
        made.append(reference | ({"identifier": beside[0]} if beside else {}))
    return made + [
        {"type": "ServiceRequest", "identifier": accession_identifier(build, one)} for one in others
    ]
