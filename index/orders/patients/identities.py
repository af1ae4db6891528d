"""The identifiers of a patient: a PatientID with its issuer, which has up to two names, or none."""

from collections.abc import Iterable
from typing import Any

import orjson
from peewee import Query

from index.database.connection import Database
from index.database.extracted import extracted
from index.database.instance_rows import identity_key
from index.database.statements import Placeholder, patient_by_key
from index.database.tables import ImagingOrder, Patient, StudyVariant
from index.records import Attributes

IDENTITY = ("PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence")
"""The attributes that identify a patient."""

UPDATED = ("PatientName", "PatientBirthDate", "PatientSex")
"""The attributes of a Patient resource that ADT messages overrule."""


def patient_row(database: Database, patient: Attributes, study_uid: str = "") -> int:
    """Return the row of a patient, or of its survivor, in a write transaction; it is added if missing."""
    return int(database.prepared(patient_by_key).one(key=identity_key(patient, study_uid))[0])


def current_attributes(database: Database, row: int, patient: Attributes) -> dict[str, Any]:
    """Return the patient attributes of an order, with those that ADT messages have given its row."""
    with database.connection():
        by_adt = orjson.loads(database.prepared(_attributes).one(row=row)[0])
    own = {k: v for k, v in patient.items() if "PatientID" not in by_adt or k not in IDENTITY}
    current = {**own, **{k: v for k, v in by_adt.items() if k != "OtherPatientIDsSequence"}}
    return {k: v for k, v in current.items() if v is not None}


def _attributes(p: Placeholder) -> Query:
    return Patient.select(Patient.attributes).where(Patient.id == p("row"))


def patient_columns(patient: Attributes) -> dict[str, Any]:
    """Return the columns of an order for its patient."""
    return {
        "patient_number": str(patient.get("PatientID", "")),
        "patient_name": str(patient.get("PatientName", "")).casefold(),
        "patient_attributes": dict(patient),
    }


def issuer_names(identity: Attributes) -> set[str]:
    """Return the names of the issuer: local and universal (PS3.3 C.7.1.1, Table 10-18)."""
    qualifiers = identity.get("IssuerOfPatientIDQualifiersSequence") or [{}]
    names = (identity.get("IssuerOfPatientID"), qualifiers[0].get("UniversalEntityID"))
    return {str(name) for name in names if name}


def is_same(one: Attributes, other: Attributes) -> bool:
    """Whether two identifiers have the same PatientID, and issuers that agree or are missing."""
    if not one.get("PatientID") or one.get("PatientID") != other.get("PatientID"):
        return False
    names, others = issuer_names(one), issuer_names(other)
    return not names or not others or bool(names & others)


def rows_of(database: Database, identities: Iterable[Attributes], *, resolve: bool = True) -> set[int]:
    """Return the rows of these patients; with `resolve`, the rows of their survivors."""
    keys = [identity_key(identity, "") for identity in identities]
    rows = database.rows(Patient.select(Patient.id, Patient.survivor).where(Patient.key.in_(keys)))
    return {int((resolve and survivor) or row) for row, survivor in rows}


def known_identities(database: Database, identity: Attributes) -> list[Attributes]:
    """Return the identifiers of orders and instances with a PatientID, one for each issuer."""
    number = str(identity["PatientID"])
    orders = ImagingOrder.select(ImagingOrder.patient_attributes).where(ImagingOrder.patient_number == number)
    rows = database.rows(orders)
    column = StudyVariant.patient_attributes
    rows += database.rows(
        StudyVariant.select(column).where(extracted(database, column, "PatientID") == number)
    )
    found: dict[tuple[str, ...], Attributes] = {}
    for (attributes,) in rows:
        found.setdefault(tuple(sorted(issuer_names(attributes))), attributes)
    return [found[names] for names in sorted(found)]
