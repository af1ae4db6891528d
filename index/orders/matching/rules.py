"""Which orders a study belongs to: a table of rules, tried in order, each confirmed by the patient.

Pure functions: what a study says of itself and the orders that could be meant give a verdict. A rule counts
when it finds exactly one order for a thing that the study says; then the rules behind it are not asked.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from index.orders.records import Status

Rule = Literal["study-uid", "step-id", "accession"]


@dataclass(frozen=True, slots=True)
class Person:
    """A patient as far as matching goes: its row, its PatientID and who issued that."""

    row: int
    number: str
    issuer: str


@dataclass(frozen=True, slots=True)
class Request:
    """An item of RequestAttributesSequence (0040,0275)."""

    procedure_id: str = ""
    step_id: str = ""
    accession: str = ""


@dataclass(frozen=True, slots=True)
class StudyIdentity:
    """What a study says of itself. An accession number goes with its issuer, which may be empty."""

    study_uid: str
    patient: Person
    requests: tuple[Request, ...] = ()
    accessions: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """An order that could be meant."""

    id: int
    key: str
    patient: Person
    status: Status
    study_uid: str
    procedure_id: str
    accession: tuple[str, str]
    step_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The orders of a study, the rule that found them, and the doubts: sentences without patient data."""

    orders: frozenset[int] = frozenset()
    rule: str = ""
    doubts: tuple[str, ...] = ()


Thing = str | Request | tuple[str, str]


def _fits_uid(thing: Thing, option: Option) -> bool:
    return thing == option.study_uid


def _fits_request(thing: Thing, option: Option) -> bool:
    if not isinstance(thing, Request) or not (thing.procedure_id or thing.step_id):
        return False
    return (
        (not thing.procedure_id or thing.procedure_id == option.procedure_id)
        and (not thing.step_id or thing.step_id in option.step_ids)
        and _agree(thing.accession, option.accession[0])
    )


def _fits_accession(thing: Thing, option: Option) -> bool:
    number, issuer = option.accession
    return isinstance(thing, tuple) and bool(thing[0]) and thing[0] == number and _agree(thing[1], issuer)


def _agree(one: str, other: str) -> bool:
    """Whether two values are equal, or one of them is silent."""
    return not one or not other or one == other


RULES: Mapping[
    str, tuple[str, Callable[[StudyIdentity], Sequence[Thing]], Callable[[Thing, Option], bool]]
] = {
    "study-uid": ("Study Instance UID", lambda identity: [identity.study_uid], _fits_uid),
    "step-id": ("request attributes", lambda identity: identity.requests, _fits_request),
    "accession": ("accession number", lambda identity: identity.accessions, _fits_accession),
}
"""By name: how it is called in a doubt, what of the study it looks for, and whether an order has it."""

DEFAULT_RULES: tuple[Rule, ...] = ("study-uid", "step-id", "accession")


def same_patient(one: Person, other: Person) -> bool:
    """Whether two are one patient: the same row (merges included), or one PatientID of issuers that agree."""
    return one.row == other.row or bool(
        one.number and one.number == other.number and _agree(one.issuer, other.issuer)
    )


def decide(
    identity: StudyIdentity, options: Sequence[Option], rules: Sequence[str] = DEFAULT_RULES
) -> Verdict:
    """Return which of the options a study belongs to."""
    doubts: list[str] = []
    for rule in rules:
        name, things, fits = RULES[rule]
        found: set[int] = set()
        for thing in things(identity):
            hits = [option for option in options if fits(thing, option)]
            order, doubt = _one(hits, identity.patient, name)
            found |= {order.id} if order else set()
            doubts += [doubt] if doubt and doubt not in doubts else []
        if found:
            return Verdict(frozenset(found), rule, tuple(doubts))
    return Verdict(doubts=tuple(doubts))


def _one(hits: Sequence[Option], patient: Person, name: str) -> tuple[Option | None, str]:
    """Return the one order that was found, or why there is none."""
    if not hits:
        return None, ""
    confirmed = [option for option in hits if same_patient(option.patient, patient)]
    if not confirmed:
        return None, f"{name} found {_orders(hits)}, but not of this patient"
    alive = [o for o in confirmed if o.status not in (Status.CANCELLED, Status.DISCONTINUED)] or confirmed
    told = {(o.procedure_id, o.accession[0]) for o in alive}
    if len(alive) > 1 and (len(told) > 1 or told == {("", "")}):
        return None, f"{name} found several: {_orders(alive)}"
    # One order that several sources tell of: the first by key, whichever came first.
    return min(alive, key=lambda option: option.key), ""


def _orders(options: Sequence[Option]) -> str:
    return ", ".join(f"order {one}" for one in sorted(option.id for option in options))
