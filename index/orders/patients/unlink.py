"""A merge undone: patients that are two again, each with the studies and orders that name it."""

from index.database.connection import Database
from index.database.instance_rows import identity_key
from index.database.mark_changed import mark_patients_changed
from index.database.tables import ImagingOrder, Patient, Study, StudyVariant
from index.orders.patients.identities import known_as, patient_columns


def part(database: Database, rows: list[int], root: int) -> None:
    """Take these patients (row ids), and whoever went into them, out of `root`, in a write transaction."""
    execute = database.execute
    execute(Patient.update(merged=None).where(Patient.id.in_(rows) & (Patient.survivor == root)))
    query = Patient.select(Patient.id, Patient.key, Patient.merged).where(Patient.survivor == root)
    found = database.rows(query)
    into = {row: merged for row, _, merged in found}
    moved = {key: _last(row, into) for row, key, _ in found if _last(row, into) != root}
    for row, key, _ in found:
        if key in moved:
            survivor = moved[key] if moved[key] != row else None
            execute(Patient.update(survivor=survivor).where(Patient.id == row))
    _move_studies(database, root, moved)
    _move_orders(database, root, moved)
    mark_patients_changed(database, sorted({root, *moved.values()}))


def _last(row: int, into: dict[int, int | None]) -> int:
    """Follow a patient to whom it is merged into now."""
    seen = {row}
    while (following := into.get(row)) is not None and following not in seen:
        seen.add(following)
        row = following
    return row


def _move_studies(database: Database, root: int, moved: dict[str, int]) -> None:
    columns = (StudyVariant.id, StudyVariant.patient_attributes, Study.uid)
    query = StudyVariant.select(*columns).join(Study).where(StudyVariant.patient == root)
    for row, attributes, uid in database.rows(query):
        patient = moved.get(identity_key(attributes, uid))
        if patient:
            database.execute(StudyVariant.update(patient=patient).where(StudyVariant.id == row))


def _move_orders(database: Database, root: int, moved: dict[str, int]) -> None:
    query = ImagingOrder.select(ImagingOrder.id, ImagingOrder.told_patient, ImagingOrder.study_uid)
    for row, told, uid in database.rows(query.where(ImagingOrder.patient == root)):
        patient = moved.get(identity_key(told, uid))
        if patient:
            columns = patient_columns(known_as(database, patient, told))
            database.execute(ImagingOrder.update(patient=patient, **columns).where(ImagingOrder.id == row))
