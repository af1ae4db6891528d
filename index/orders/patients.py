"""Patients as the hospital tells of them: who an order is for, what was updated (A08), who was merged (A40).

A merged patient's row points to its survivor: instances that still come with the old PatientID are counted
for the survivor (rows.py). What ADT says of a patient stands in the row and overrules what instances say.
"""

from collections.abc import Iterable
from typing import Any

from index.database import Database
from index.models import Patient, StudyVariant
from index.orders.models import ImagingOrder
from index.orders.touching import touch_patients
from index.records import Attributes
from index.rows import identity_key, issuer_of

IDENTITY = ("PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence")
"""The attributes that tell one patient from another."""

UPDATED = ("PatientName", "PatientBirthDate", "PatientSex")
"""What ADT overrules in a Patient resource; other attributes stay as instances and orders have them."""


def patient_row(database: Database, patient: Attributes, study_uid: str = "") -> int:
    """Return the row of a patient, or of the one that it was merged into; inside a write transaction."""
    key = identity_key(patient, study_uid)
    database.execute(Patient.insert(key=key).on_conflict_ignore())
    ((row, survivor),) = database.rows(Patient.select(Patient.id, Patient.survivor).where(Patient.key == key))
    return int(survivor or row)


def known_as(database: Database, row: int, patient: Attributes) -> dict[str, Any]:
    """Return what an order says of its patient, brought up to what ADT said last."""
    ((said,),) = database.rows(Patient.select(Patient.attributes).where(Patient.id == row))
    kept = {k: v for k, v in patient.items() if "PatientID" not in said or k not in IDENTITY}
    return {**kept, **{k: v for k, v in said.items() if k != "OtherPatientIDsSequence"}}


class Patients:
    """Updates and merges. With `local_authority` only its PatientIDs may come without an issuer.

    Scanners often leave the issuer out. Where none is configured, a PatientID without an issuer is taken for
    the one that the message names.
    """

    def __init__(self, database: Database, local_authority: str | None = None) -> None:
        self._database = database
        self._local = local_authority

    def update(self, patient: Attributes) -> None:
        """Take over what the hospital says of a patient now (ADT^A08), for its orders and its resource.

        Of patients without an order or a study nothing is kept: a hospital has many that are never imaged.
        """
        with self._database.writing():
            rows = self._rows(patient)
            for row in rows:
                self._say(row, {k: patient[k] for k in UPDATED if patient.get(k)})
            self._rewrite_orders(rows, patient)
            touch_patients(self._database, rows)

    def merge(self, old: Attributes, survivor: Attributes) -> None:
        """Let the survivor have everything of the old patient, now and later (ADT^A40)."""
        self.merge_all([(old, survivor)])

    def merge_all(self, pairs: Iterable[tuple[Attributes, Attributes]]) -> None:
        """Do several merges, each of an old patient and the survivor, all or none."""
        with self._database.writing():
            for old, survivor in pairs:
                self._merge(old, survivor)

    def _merge(self, old: Attributes, survivor: Attributes) -> None:
        into = self._survivor(survivor)
        gone = [row for row in self._rows(old, create=True, resolve=False) if row != into]
        execute = self._database.execute
        # A patient that was merged away before and survives now has come back.
        execute(Patient.update(survivor=None).where(Patient.id == into))
        execute(Patient.update(survivor=into).where(Patient.id.in_(gone) | Patient.survivor.in_(gone)))
        moved = [*gone, into]
        touch_patients(self._database, moved)
        execute(StudyVariant.update(patient=into).where(StudyVariant.patient.in_(gone)))
        execute(ImagingOrder.update(patient=into).where(ImagingOrder.patient.in_(gone)))
        self._say(into, {k: survivor[k] for k in (*IDENTITY, *UPDATED) if survivor.get(k)}, also=old)
        self._rewrite_orders([into], survivor)

    def _rows(self, patient: Attributes, *, create: bool = False, resolve: bool = True) -> list[int]:
        """Return the rows that a patient may have: with its issuer, and without where that is local."""
        identities = [dict(patient)]
        issuer = issuer_of(patient)
        if issuer and self._local in (None, issuer):
            identities.append({"PatientID": patient["PatientID"]})
        if create:
            for identity in identities:
                patient_row(self._database, identity)
        keys = [identity_key(identity, "") for identity in identities]
        rows = self._database.rows(Patient.select(Patient.id, Patient.survivor).where(Patient.key.in_(keys)))
        return sorted({int((resolve and survivor) or row) for row, survivor in rows})

    def _survivor(self, patient: Attributes) -> int:
        """Return the row of the survivor: the one that has studies, where only one of its rows has."""
        patient_row(self._database, patient)
        own_key = Patient.key == identity_key(patient, "")
        ((exact,),) = self._database.rows(Patient.select(Patient.id).where(own_key))
        rows = self._rows(patient, resolve=False)
        query = StudyVariant.select(StudyVariant.patient).where(StudyVariant.patient.in_(rows)).distinct()
        with_studies = [row for (row,) in self._database.rows(query)]
        return with_studies[0] if len(with_studies) == 1 else int(exact)

    def _say(self, row: int, said: dict[str, Any], *, also: Attributes | None = None) -> None:
        ((before,),) = self._database.rows(Patient.select(Patient.attributes).where(Patient.id == row))
        now = {**before, **said}
        if also:
            other = {k: also[k] for k in IDENTITY if also.get(k)}
            others = [one for one in before.get("OtherPatientIDsSequence", []) if one != other]
            now["OtherPatientIDsSequence"] = [*others, other]
        self._database.execute(Patient.update(attributes=now).where(Patient.id == row))

    def _rewrite_orders(self, patients: list[int], patient: Attributes) -> None:
        """Bring what the worklist says of these patients up to date."""
        query = ImagingOrder.select(ImagingOrder.id, ImagingOrder.patient, ImagingOrder.patient_attributes)
        for order, row, attributes in self._database.rows(query.where(ImagingOrder.patient.in_(patients))):
            said = {k: v for k, v in patient.items() if v and k not in IDENTITY}
            now = known_as(self._database, row, {**attributes, **said})
            self._database.execute(
                ImagingOrder.update(**patient_columns(now)).where(ImagingOrder.id == order)
            )


def patient_columns(patient: Attributes) -> dict[str, Any]:
    """Return the columns of an order that its patient fills."""
    return {
        "patient_number": str(patient.get("PatientID", "")),
        "patient_name": str(patient.get("PatientName", "")).casefold(),
        "patient_attributes": dict(patient),
    }
