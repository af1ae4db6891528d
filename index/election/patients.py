"""Which patient a study has, and the attributes of a patient: from instances, orders and ADT messages."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

from index.database.connection import Database
from index.database.instance_rows import identity_key, issuer_of
from index.database.tables import ImagingOrder, StudyVariant
from index.database.tables import Patient as PatientRow
from index.election.values import Variant, elect
from index.records import Disagreed, Patient

_IDENTIFIERS = frozenset(
    (
        "PatientID",
        "IssuerOfPatientID",
        "IssuerOfPatientIDQualifiersSequence",
        "TypeOfPatientID",
        "OtherPatientIDsSequence",
    )
)


@dataclass(frozen=True, slots=True)
class StudyPatient:
    """The patient of most of a study's instances, its row id, and the attributes that differ.

    `published` is the patient that the study's resource names: the same one. But where the instances are of
    two patients, it is a patient of this study only, with the attributes on which all instances agree.
    """

    row: int
    patient: Patient
    disagreements: list[Disagreed]
    published: Patient


def study_patient(database: Database, study: int, uid: str) -> StudyPatient | None:
    """Elect a study's patient by its instances, or else by its orders. None: it has neither."""
    counted = StudyVariant.select(StudyVariant.patient, PatientRow.key, StudyVariant.instance_count)
    rows = database.rows(counted.join(PatientRow).where(StudyVariant.study == study))
    if not rows:
        ordered = ImagingOrder.select(ImagingOrder.patient, PatientRow.key).join(PatientRow)
        rows = [(*row, 1) for row in database.rows(ordered.where(ImagingOrder.study_uid == uid))]
    rows = _stored(rows)
    votes: dict[tuple[str, int], int] = {}
    for row, key, count in rows:
        votes[key, row] = votes.get((key, row), 0) + count
    if not votes:
        return None
    key, row = min(votes, key=lambda vote: (-votes[vote], vote))
    attributes, disagreements = elect_patient(database, row, key)
    if len(votes) > 1:
        values = tuple(sorted(((k, n) for (k, _), n in votes.items()), key=lambda v: (-v[1], v[0])))
        disagreements.append(Disagreed("study", "", "patient", values))
    patient = Patient(key, attributes)
    shared = _shared_patient(database, study, uid) if len(votes) > 1 else None
    return StudyPatient(row, patient, disagreements, shared or patient)


def _stored(rows: list[Any]) -> list[Any]:
    """Leave out rows that end in a count of 0, unless there are no others: see values.stored."""
    return [row for row in rows if row[-1]] or rows


def _shared_patient(database: Database, study: int, uid: str) -> Patient | None:
    """Return a patient of this study only if its instances are of two patients. None: they may be of one.

    A PatientID without an issuer may be of any issuer. A missing PatientID fits every patient.
    """
    table = StudyVariant
    query = table.select(table.patient, table.patient_attributes, table.instance_count)
    variants = _stored(database.rows(query.where(table.study == study)))
    named = {(row, a["PatientID"], issuer_of(a)) for row, a, _ in variants if a.get("PatientID")}
    if all(_may_be_same(one, other) for one, other in combinations(named, 2)):
        return None
    shared: dict[str, Any] = {}
    differ = set(_IDENTIFIERS)
    for _, attributes, _ in variants:
        differ |= {k for k, value in attributes.items() if shared.setdefault(k, value) != value}
    return Patient(identity_key({}, uid), {k: v for k, v in shared.items() if k not in differ})


def _may_be_same(one: tuple[int, str, str], other: tuple[int, str, str]) -> bool:
    """Whether two may be the same patient: same row (after merges), or same PatientID without two issuers."""
    (row, number, issuer), (other_row, other_number, other_issuer) = one, other
    return row == other_row or (
        number == other_number and (issuer == other_issuer or not issuer or not other_issuer)
    )


def elect_patient(database: Database, row: int, key: str) -> tuple[dict[str, Any], list[Disagreed]]:
    """Return a patient's attributes, and those that differ: instances before orders, ADT before both."""
    variants = database.rows(
        StudyVariant.select(StudyVariant.patient_attributes, StudyVariant.instance_count).where(
            StudyVariant.patient == row
        )
    )
    elected, disagreements = elect([Variant(*variant) for variant in variants], "patient", key)
    ordered = database.rows(
        ImagingOrder.select(ImagingOrder.patient_attributes).where(ImagingOrder.patient == row)
    )
    from_orders, _ = elect([Variant(attributes, 1) for (attributes,) in ordered], "patient", key)
    # Where instances disagree, an order does not decide.
    for one in disagreements:
        from_orders.pop(one.keyword, None)
    ((from_adt,),) = database.rows(PatientRow.select(PatientRow.attributes).where(PatientRow.id == row))
    # An attribute that ADT has deleted is None.
    attributes = {**from_orders, **elected, **from_adt}
    return {keyword: value for keyword, value in attributes.items() if value is not None}, disagreements
