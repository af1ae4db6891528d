"""Whose study it is, and what is said of that patient: by instances, by orders, and by the hospital (ADT)."""

from dataclasses import dataclass
from typing import Any

from index.database import Database
from index.election import Opinion, elect
from index.models import Patient as PatientRow
from index.models import StudyVariant
from index.orders.models import ImagingOrder
from index.records import Disagreed, Patient


@dataclass(frozen=True, slots=True)
class StudyPatient:
    """The patient of a study, its row, and where instances disagree on the patient."""

    row: int
    patient: Patient
    disagreements: list[Disagreed]


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
    attributes, disagreements = _said(database, row, key)
    if len(votes) > 1:
        values = tuple(sorted(((k, n) for (k, _), n in votes.items()), key=lambda v: (-v[1], v[0])))
        disagreements.append(Disagreed("study", "", "patient", values))
    return StudyPatient(row, Patient(key, attributes), disagreements)


def _said(database: Database, row: int, key: str) -> tuple[dict[str, Any], list[Disagreed]]:
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
    ((by_hospital,),) = database.rows(PatientRow.select(PatientRow.attributes).where(PatientRow.id == row))
    said = {**from_orders, **elected, **by_hospital}
    # What the hospital has deleted is None.
    return {keyword: value for keyword, value in said.items() if value is not None}, disagreements
