"""What a patient is called: a PatientID and who issued it, which has up to two names, or none."""

from collections.abc import Iterable
from typing import Any

from peewee import SQL, fn

from index.database.connection import Database
from index.database.instance_rows import identity_key
from index.database.tables import ImagingOrder, Patient, StudyVariant
from index.records import Attributes

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
    made = {**kept, **{k: v for k, v in said.items() if k != "OtherPatientIDsSequence"}}
    return {k: v for k, v in made.items() if v is not None}


def patient_columns(patient: Attributes) -> dict[str, Any]:
    """Return the columns of an order that its patient fills."""
    return {
        "patient_number": str(patient.get("PatientID", "")),
        "patient_name": str(patient.get("PatientName", "")).casefold(),
        "patient_attributes": dict(patient),
    }


def names_of(identity: Attributes) -> set[str]:
    """Return the names of the issuer: local and universal (PS3.3 C.7.1.1, Table 10-18)."""
    qualifiers = identity.get("IssuerOfPatientIDQualifiersSequence") or [{}]
    names = (identity.get("IssuerOfPatientID"), qualifiers[0].get("UniversalEntityID"))
    return {str(name) for name in names if name}


def is_same(one: Attributes, other: Attributes) -> bool:
    """Whether two are one patient by what they say: one number, of issuers that agree or are not named."""
    if not one.get("PatientID") or one.get("PatientID") != other.get("PatientID"):
        return False
    mine, theirs = names_of(one), names_of(other)
    return not mine or not theirs or bool(mine & theirs)


def rows_of(database: Database, identities: Iterable[Attributes], *, resolve: bool = True) -> set[int]:
    """Return the rows of these patients; `resolve`: those that they were merged into."""
    keys = [identity_key(identity, "") for identity in identities]
    rows = database.rows(Patient.select(Patient.id, Patient.survivor).where(Patient.key.in_(keys)))
    return {int((resolve and survivor) or row) for row, survivor in rows}


def known_identities(database: Database, identity: Attributes) -> list[Attributes]:
    """Return what orders and instances call patients of a number, whoever issued it."""
    number = str(identity["PatientID"])
    orders = ImagingOrder.select(ImagingOrder.patient_attributes).where(ImagingOrder.patient_number == number)
    said = [attributes for (attributes,) in database.rows(orders)]
    column = StudyVariant.patient_attributes
    # As the index of migration 0012 has it; SQL("'$.…'"): an index is found by the same text alone.
    extracted = (
        fn.json_extract(column, SQL("'$.PatientID'"))
        if database.is_sqlite
        else SQL("(patient_attributes::json ->> 'PatientID')")
    )
    said += [
        attributes for (attributes,) in database.rows(StudyVariant.select(column).where(extracted == number))
    ]
    found: dict[tuple[str, ...], Any] = {}
    for attributes in said:
        found.setdefault(tuple(sorted(names_of(attributes))), attributes)
    return [found[names] for names in sorted(found)]
