"""The rules that match a study to its orders: tried one after the other, each confirmed by the patient.

Pure functions. A rule compares identifiers of the study with the candidate orders. The first rule that finds
exactly one order for an identifier decides.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from index.orders.records import OrderStatus, agree

RuleName = Literal["study-uid", "step-id", "accession"]


@dataclass(frozen=True, slots=True)
class PatientIdentity:
    """A patient: its row, its PatientID and the issuer of that, both empty where missing."""

    row: int
    number: str
    issuer: str


@dataclass(frozen=True, slots=True)
class RequestAttributes:
    """An item of RequestAttributesSequence (0040,0275)."""

    procedure_id: str = ""
    step_id: str = ""
    accession: str = ""


@dataclass(frozen=True, slots=True)
class StudyIdentity:
    """The identifiers of a study in its instances. An accession number has its issuer, which may be empty."""

    study_uid: str
    patient: PatientIdentity
    request_attributes: tuple[RequestAttributes, ...] = ()
    accessions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class OrderIdentity:
    """An order that a study may belong to."""

    id: int
    key: str
    patient: PatientIdentity
    status: OrderStatus
    study_uid: str
    procedure_id: str
    accession: tuple[str, str]
    step_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class MatchResult:
    """The orders of a study (row ids), the rule that found them, and doubts, without patient data."""

    orders: frozenset[int] = frozenset()
    rule: str = ""
    doubts: tuple[str, ...] = ()


Identifier = str | RequestAttributes | tuple[str, str]


def _fits_uid(identifier: Identifier, order: OrderIdentity) -> bool:
    return identifier == order.study_uid


def _fits_request(identifier: Identifier, order: OrderIdentity) -> bool:
    if not isinstance(identifier, RequestAttributes) or not (identifier.procedure_id or identifier.step_id):
        return False
    return (
        (not identifier.procedure_id or identifier.procedure_id == order.procedure_id)
        and (not identifier.step_id or identifier.step_id in order.step_ids)
        and agree(identifier.accession, order.accession[0])
    )


def _fits_accession(identifier: Identifier, order: OrderIdentity) -> bool:
    if not isinstance(identifier, tuple) or not identifier[0]:
        return False
    return identifier[0] == order.accession[0] and agree(identifier[1], order.accession[1])


Rule = tuple[
    str, Callable[[StudyIdentity], Sequence[Identifier]], Callable[[Identifier, OrderIdentity], bool]
]
RULES: Mapping[RuleName, Rule] = {
    "study-uid": ("Study Instance UID", lambda identity: [identity.study_uid], _fits_uid),
    "step-id": ("request attributes", lambda identity: identity.request_attributes, _fits_request),
    "accession": ("accession number", lambda identity: identity.accessions, _fits_accession),
}
"""By name: the words for it in a doubt, the study's identifiers, and whether an order fits one of them."""

DEFAULT_RULES: tuple[RuleName, ...] = tuple(RULES)


def same_patient(one: PatientIdentity, other: PatientIdentity) -> bool:
    """Whether two are one patient: by row (merges included), or by PatientID and issuer."""
    return one.row == other.row or bool(
        one.number and one.number == other.number and agree(one.issuer, other.issuer)
    )


def match_orders(
    study: StudyIdentity, candidates: Sequence[OrderIdentity], rules: Sequence[RuleName] = DEFAULT_RULES
) -> MatchResult:
    """Return which of the candidate orders a study belongs to."""
    doubts: list[str] = []
    for rule in rules:
        name, identifiers, fits = RULES[rule]
        found: set[int] = set()
        for identifier in identifiers(study):
            hits = [order for order in candidates if fits(identifier, order)]
            order, doubt = _only_order(hits, study.patient, name)
            found |= {order.id} if order else set()
            doubts += [doubt] if doubt and doubt not in doubts else []
        if found:
            return MatchResult(frozenset(found), rule, tuple(doubts))
    return MatchResult(doubts=tuple(doubts))


def _only_order(
    hits: Sequence[OrderIdentity], patient: PatientIdentity, name: str
) -> tuple[OrderIdentity | None, str]:
    """Return the only order of this patient, or None and the doubt."""
    if not hits:
        return None, ""
    confirmed = [order for order in hits if same_patient(order.patient, patient)]
    if not confirmed:
        return None, f"{name} found {_names(hits)}, but not of this patient"
    stopped = (OrderStatus.CANCELLED, OrderStatus.DISCONTINUED)
    remaining = [order for order in confirmed if order.status not in stopped] or confirmed
    numbers = {(order.procedure_id, order.accession[0]) for order in remaining}
    if len(remaining) > 1 and (len(numbers) > 1 or numbers == {("", "")}):
        return None, f"{name} found several: {_names(remaining)}"
    # One order from several sources: the first by key, in whatever order they arrived.
    return min(remaining, key=lambda order: order.key), ""


def _names(orders: Sequence[OrderIdentity]) -> str:
    return ", ".join(f"order {row}" for row in sorted(order.id for order in orders))
