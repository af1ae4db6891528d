"""A merge undone: each patient gets back the studies and orders with its own identifier."""

from index.database.connection import Database
from index.database.instance_rows import identity_key
from index.database.mark_changed import mark_patients_changed
from index.database.tables import ImagingOrder, Patient, Study, StudyVariant
from index.orders.patients.identities import current_attributes, patient_columns


def unlink_rows(database: Database, rows: list[int], survivor: int) -> None:
    """Separate patients (row ids), and those merged into them, from `survivor`, in a write transaction."""
    execute = database.execute
    execute(Patient.update(merged=None).where(Patient.id.in_(rows) & (Patient.survivor == survivor)))
    query = Patient.select(Patient.id, Patient.key, Patient.merged).where(Patient.survivor == survivor)
    found = database.rows(query)
    into = {row: merged for row, _, merged in found}
    survivors = {key: _last(row, into) for row, key, _ in found}
    moved = {key: last for key, last in survivors.items() if last != survivor}
    for row, key, _ in found:
        if key in moved:
            own = moved[key] if moved[key] != row else None
            execute(Patient.update(survivor=own).where(Patient.id == row))
    _move_studies(database, survivor, moved)
    _move_orders(database, survivor, moved)
    mark_patients_changed(database, sorted({survivor, *moved.values()}))


def _last(row: int, into: dict[int, int | None]) -> int:
    """Return the patient that a patient is merged into, directly or by others."""
    seen = {row}
    while (following := into.get(row)) is not None and following not in seen:
        seen.add(following)
        row = following
    return row


def _move_studies(database: Database, survivor: int, moved: dict[str, int]) -> None:
    columns = (StudyVariant.id, StudyVariant.patient_attributes, Study.uid)
    query = StudyVariant.select(*columns).join(Study).where(StudyVariant.patient == survivor)
    for row, attributes, uid in database.rows(query):
        patient = moved.get(identity_key(attributes, uid))
        if patient:
            database.execute(StudyVariant.update(patient=patient).where(StudyVariant.id == row))


def _move_orders(database: Database, survivor: int, moved: dict[str, int]) -> None:
    query = ImagingOrder.select(ImagingOrder.id, ImagingOrder.told_patient, ImagingOrder.study_uid)
    for row, given, uid in database.rows(query.where(ImagingOrder.patient == survivor)):
        patient = moved.get(identity_key(given, uid))
        if patient:
            columns = patient_columns(current_attributes(database, patient, given))
            database.execute(ImagingOrder.update(patient=patient, **columns).where(ImagingOrder.id == row))
