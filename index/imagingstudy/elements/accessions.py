"""The Accession Numbers (0008,0050) of a study, and the requests that they stand for."""

from dataclasses import dataclass
from typing import Any

from index.imagingstudy.context import BuildContext
from index.imagingstudy.elements.identifiers import issued, sequence_issuer
from index.imagingstudy.elements.orders import identifiers, orders
from index.imagingstudy.elements.study import sources
from index.imagingstudy.values import first
from index.records import Attributes

MAX_ACCESSIONS = 100
"""Accession Numbers of one study: some grouped procedures (IHE RAD TF-1 3.3.3), not one for each instance."""


@dataclass(frozen=True, slots=True)
class Accession:
    """An Accession Number and its issuer: an item of an HL7v2 Hierarchic Designator macro, or empty."""

    value: str
    issuer: Attributes

    def fits(self, other: "Accession") -> bool:
        """Return whether both may be the same: equal numbers, and equal issuers where both have one."""
        return self.value == other.value and (
            self.issuer == other.issuer or not (self.issuer and other.issuer)
        )


def accession_of(source: Attributes) -> Accession | None:
    """Return the Accession Number of a set of attributes, if there is one."""
    value = first(source, "AccessionNumber")
    return Accession(value, sequence_issuer(source, "IssuerOfAccessionNumberSequence")) if value else None


def accessions(context: BuildContext) -> list[Accession]:
    """Return each Accession Number once, with its issuer where any source has that.

    The elected one of the study comes first, then those of instances and their requests, then the orders'.
    """
    study = context.study
    found: list[Accession] = []
    for source in (study.attributes, *study.accessions, *sources(context)[1:]):
        accession = accession_of(source)
        if accession is None:
            continue
        number = next((number for number, known in enumerate(found) if known.fits(accession)), None)
        if number is not None:
            found[number] = found[number] if found[number].issuer else accession
        elif len(found) < MAX_ACCESSIONS:
            found.append(accession)
        else:
            reason = f"more than {MAX_ACCESSIONS} Accession Numbers, the others are left out"
            context.issues.add(context.subject, reason)
            break
    return found


def accession_identifier(context: BuildContext, accession: Accession) -> dict[str, Any]:
    """Return an Accession Number as an Identifier of type ACSN (HL7 Table 0203)."""
    kind = {"coding": [{"system": context.dialect.identifier_type, "code": "ACSN"}]}
    rules = context.rules
    return issued(accession.value, accession.issuer, rules.accession_system, rules, kind=kind)


def based_on(context: BuildContext) -> list[dict[str, Any]]:
    """Return ImagingStudy.basedOn of R4 and R5.

    Each matched order is a reference with its Accession Number as identifier, else another number of it. An
    Accession Number of no matched order is a logical reference: its request is in another system.
    """
    others = accessions(context)
    references = []
    for order, reference in zip(context.study.orders, orders(context), strict=True):
        own = accession_of(order.attributes)
        same = next((other for other in others if own and other.fits(own)), None)
        if same:
            others.remove(same)
        numbers = [accession_identifier(context, same)] if same else identifiers(context, order)
        references.append(reference | ({"identifier": numbers[0]} if numbers else {}))
    return references + [
        {"type": "ServiceRequest", "identifier": accession_identifier(context, other)} for other in others
    ]
