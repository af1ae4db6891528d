"""Which patient a study has, and the attributes of a patient: from instances, orders and ADT messages."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from peewee import fn

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
    return study_patients(database, {study: uid}).get(study)


def study_patients(database: Database, studies: Mapping[int, str]) -> dict[int, StudyPatient]:
    """Return the same of several studies, given by row id and UID; those without a patient are left out."""
    votes = _votes(database, studies)
    elected = {study: min(counts, key=lambda vote: (-counts[vote], vote)) for study, counts in votes.items()}
    patients = elect_patients(database, {row: key for key, row in elected.values()})
    found = {}
    for study, (key, row) in elected.items():
        attributes, of_patient = patients[row]
        patient, published, disagreements = Patient(key, attributes), None, list(of_patient)
        if len(votes[study]) > 1:
            several = ((k, n) for (k, _), n in votes[study].items())
            values = tuple(sorted(several, key=lambda v: (-v[1], v[0])))
            disagreements.append(Disagreed("study", "", "patient", values))
            published = _shared_patient(database, study, studies[study])
        found[study] = StudyPatient(row, patient, disagreements, published or patient)
    return found


def _votes(database: Database, studies: Mapping[int, str]) -> dict[int, dict[tuple[str, int], int]]:
    """Return how many instances, or else orders, of each study have each patient: by key and row id."""
    counted = StudyVariant.select(
        StudyVariant.study, StudyVariant.patient, PatientRow.key, StudyVariant.instance_count
    )
    rows = database.rows(counted.join(PatientRow).where(StudyVariant.study.in_(list(studies))))
    if missing := {studies[study]: study for study in studies.keys() - {row[0] for row in rows}}:
        ordered = ImagingOrder.select(ImagingOrder.study_uid, ImagingOrder.patient, PatientRow.key)
        ordered = ordered.join(PatientRow).where(ImagingOrder.study_uid.in_(list(missing)))
        rows += [(missing[uid], *row, 1) for uid, *row in database.rows(ordered)]
    of_study: dict[int, list[Any]] = {}
    for study, *row in rows:
        of_study.setdefault(study, []).append(row)
    votes: dict[int, dict[tuple[str, int], int]] = {}
    for study, some in of_study.items():
        counts = votes.setdefault(study, {})
        for row, key, count in _stored(some):
            counts[key, row] = counts.get((key, row), 0) + count
    return votes


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
    return elect_patients(database, {row: key})[row]


def elect_patients(
    database: Database, patients: Mapping[int, str]
) -> dict[int, tuple[dict[str, Any], list[Disagreed]]]:
    """Return the same of several patients, given by row id and key."""
    rows, variants, ordered = list(patients), defaultdict(list), defaultdict(list)
    of_patient = StudyVariant.patient, StudyVariant.patient_attributes
    counted = StudyVariant.select(*of_patient, fn.SUM(StudyVariant.instance_count))
    counted = counted.where(StudyVariant.patient.in_(rows)).group_by(*of_patient)
    for row, attributes, count in database.rows(counted):
        variants[row].append(Variant(attributes, int(count)))
    orders = ImagingOrder.select(ImagingOrder.patient, ImagingOrder.patient_attributes)
    for row, attributes in database.rows(orders.where(ImagingOrder.patient.in_(rows))):
        ordered[row].append(Variant(attributes, 1))
    stored_rows = PatientRow.select(PatientRow.id, PatientRow.attributes).where(PatientRow.id.in_(rows))
    elected = {}
    for row, from_adt in database.rows(stored_rows):
        key = patients[row]
        from_instances, disagreements = elect(variants[row], "patient", key)
        from_orders, _ = elect(ordered[row], "patient", key)
        # Where instances disagree, an order does not decide.
        for one in disagreements:
            from_orders.pop(one.keyword, None)
        # An attribute that ADT has deleted is None.
        merged = {**from_orders, **from_instances, **from_adt}
        elected[row] = {k: value for k, value in merged.items() if value is not None}, disagreements
    return elected
