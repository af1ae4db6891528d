"""Whose study it is, and what is said of that patient: by instances, by orders, and by the hospital (ADT)."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

from index.database.connection import Database
from index.database.instance_rows import identity_key, issuer_of
from index.database.tables import ImagingOrder, StudyVariant
from index.database.tables import Patient as PatientRow
from index.election.values import Opinion, elect
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
    """The patient of most of a study's instances, its row, and where instances disagree on the patient.

    `stated` is the patient that the study's resource names: that one, or where instances are of two patients,
    one of the study alone, of whom only what all instances say is said.
    """

    row: int
    patient: Patient
    disagreements: list[Disagreed]
    stated: Patient


def study_patient(database: Database, study: int, uid: str) -> StudyPatient | None:
    """Elect a study's patient by its instances, or by its orders where it has none. None: neither says."""
    counted = StudyVariant.select(StudyVariant.patient, PatientRow.key, StudyVariant.instance_count)
    rows = database.rows(counted.join(PatientRow).where(StudyVariant.study == study))
    if not rows:
        ordered = ImagingOrder.select(ImagingOrder.patient, PatientRow.key).join(PatientRow)
        rows = [(*row, 1) for row in database.rows(ordered.where(ImagingOrder.study_uid == uid))]
    # What no instance carries is of a tombstone: it counts only where nothing else is there.
    rows = [row for row in rows if row[2]] or rows
    votes: dict[tuple[str, int], int] = {}
    for row, key, count in rows:
        votes[key, row] = votes.get((key, row), 0) + count
    if not votes:
        return None
    key, row = min(votes, key=lambda vote: (-votes[vote], vote))
    attributes, disagreements = said_of(database, row, key)
    if len(votes) > 1:
        values = tuple(sorted(((k, n) for (k, _), n in votes.items()), key=lambda v: (-v[1], v[0])))
        disagreements.append(Disagreed("study", "", "patient", values))
    patient = Patient(key, attributes)
    stated = _stated(database, study, uid) if len(votes) > 1 else None
    return StudyPatient(row, patient, disagreements, stated or patient)


def _stated(database: Database, study: int, uid: str) -> Patient | None:
    """Return a patient of this study alone where its instances are of two patients. None: they may be of one.

    A PatientID without an issuer is that of any issuer, and no PatientID contradicts none.
    """
    table = StudyVariant
    query = table.select(table.patient, table.patient_attributes, table.instance_count)
    variants = database.rows(query.where(table.study == study))
    variants = [variant for variant in variants if variant[2]] or variants
    named = {(row, said["PatientID"], issuer_of(said)) for row, said, _ in variants if said.get("PatientID")}
    if all(_may_be_one(one, other) for one, other in combinations(named, 2)):
        return None
    shared: dict[str, Any] = {}
    differ = set(_IDENTIFIERS)
    for _, attributes, _ in variants:
        differ |= {word for word, value in attributes.items() if shared.setdefault(word, value) != value}
    return Patient(identity_key({}, uid), {k: v for k, v in shared.items() if k not in differ})


def _may_be_one(one: tuple[int, str, str], other: tuple[int, str, str]) -> bool:
    """Whether two may be one patient: one row (merges included), or one PatientID of issuers that agree."""
    (row, number, issuer), (other_row, other_number, other_issuer) = one, other
    return row == other_row or (
        number == other_number and (issuer == other_issuer or not issuer or not other_issuer)
    )


def said_of(database: Database, row: int, key: str) -> tuple[dict[str, Any], list[Disagreed]]:
    """Return the attributes of a patient: elected from all its instances; orders fill in, ADT overrules."""
    opinions = database.rows(
        StudyVariant.select(StudyVariant.patient_attributes, StudyVariant.instance_count).where(
            StudyVariant.patient == row
        )
    )
    elected, disagreements = elect([Opinion(*opinion) for opinion in opinions], "patient", key)
    ordered = database.rows(
        ImagingOrder.select(ImagingOrder.patient_attributes).where(ImagingOrder.patient == row)
    )
    from_orders, _ = elect([Opinion(attributes, 1) for (attributes,) in ordered], "patient", key)
    # What instances disagree on is not settled by what was ordered.
    for one in disagreements:
        from_orders.pop(one.keyword, None)
    ((by_hospital,),) = database.rows(PatientRow.select(PatientRow.attributes).where(PatientRow.id == row))
    said = {**from_orders, **elected, **by_hospital}
    # What the hospital has deleted is None.
    return {keyword: value for keyword, value in said.items() if value is not None}, disagreements
