"""What the matching rules compare, read from the index: the identity of a study, and its candidate orders."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from index.database.connection import Database
from index.database.instance_rows import issuer_of
from index.database.mark_changed import Key
from index.database.tables import ImagingOrder, ScheduledStep, Series, SeriesVariant, StudyVariant
from index.election.patients import study_patient
from index.election.values import Variant, elect
from index.orders.matching.rules import OrderIdentity, PatientIdentity, RequestAttributes, StudyIdentity
from index.orders.records import OrderStatus, issuer_name, short_id
from index.records import Attributes

_REQUEST = ("RequestedProcedureID", "ScheduledProcedureStepID", "AccessionNumber")


def identity_of(database: Database, study: int, uid: str) -> StudyIdentity | None:
    """Return the identity of a study (row id, UID), elected from its instances. None: it has none."""
    found = study_patient(database, study, uid)
    query = StudyVariant.select(StudyVariant.attributes, StudyVariant.instance_count)
    variants = database.rows(query.where(StudyVariant.study == study))
    if found is None or not variants:
        return None
    attributes, _ = elect([Variant(*row) for row in variants], "study", uid)
    items = [item for one in _series(database, study) for item in one.get("RequestAttributesSequence") or ()]
    # Shortened as the worklist answers them.
    requests = {RequestAttributes(*(short_id(str(item.get(k) or "")) for k in _REQUEST)) for item in items}
    accessions = {_accession(one) for one in (attributes, *items)}
    return StudyIdentity(
        uid,
        _patient(found.row, found.patient.attributes),
        tuple(sorted(requests, key=lambda one: (one.procedure_id, one.step_id, one.accession))),
        tuple(sorted(one for one in accessions if one[0])),
    )


def _series(database: Database, study: int) -> Iterator[Attributes]:
    query = SeriesVariant.select(SeriesVariant.series, SeriesVariant.attributes, SeriesVariant.instance_count)
    by_series: defaultdict[int, list[Variant]] = defaultdict(list)
    for series, attributes, count in database.rows(query.join(Series).where(Series.study == study)):
        by_series[series].append(Variant(attributes, count))
    for variants in by_series.values():
        yield elect(variants, "series", "")[0]


def _accession(attributes: Attributes) -> tuple[str, str]:
    issuer = issuer_name(attributes.get("IssuerOfAccessionNumberSequence"))
    return str(attributes.get("AccessionNumber") or ""), issuer


def _patient(row: int, attributes: Attributes) -> PatientIdentity:
    return PatientIdentity(row, str(attributes.get("PatientID") or ""), issuer_of(attributes))


def keys_of(study: StudyIdentity) -> set[Key]:
    """Return the keys by which a later order finds this study (see mark_changed.py)."""
    keys = {("accession", number) for number, _ in study.accessions}
    shared = {("procedure", one.procedure_id) for one in study.request_attributes if one.procedure_id}
    shared |= {("step", one.step_id) for one in study.request_attributes if one.step_id}
    patient = {("patient", study.patient.number)} if shared and study.patient.number else set()
    return keys | shared | patient


def _orders_of(patient: PatientIdentity) -> Any:
    """Select the orders of a patient, by its row or by its PatientID."""
    other = ImagingOrder.alias()
    wanted = other.patient == patient.row
    if patient.number:
        wanted |= other.patient_number == patient.number
    return other.select(other.id).where(wanted)


def candidate_orders(database: Database, study: StudyIdentity) -> list[OrderIdentity]:
    """Return the orders that share a key with a study: procedure or step ids only with its patient."""
    values: defaultdict[str, list[str]] = defaultdict(list)
    for kind, value in sorted(keys_of(study)):
        values[kind].append(value)
    order, step = ImagingOrder, ScheduledStep
    wanted = (order.study_uid == study.study_uid) | order.accession.in_(values["accession"])
    if values["procedure"] or values["step"]:
        of_patient = _orders_of(study.patient)
        has_step = step.step_id.in_(values["step"]) & step.order.in_(of_patient)
        wanted |= order.id.in_(of_patient) & order.procedure_id.in_(values["procedure"])
        wanted |= order.id.in_(step.select(step.order).where(has_step))
    columns = (order.id, order.key, order.patient, order.patient_attributes, order.status, order.study_uid)
    query = order.select(*columns, order.procedure_id, order.accession, order.accession_issuer)
    rows = database.rows(query.where(wanted))
    steps: defaultdict[int, set[str]] = defaultdict(set)
    of_rows = step.order.in_([row for row, *_ in rows])
    for row, step_id in database.rows(step.select(step.order, step.step_id).where(of_rows)):
        steps[row].add(step_id)
    return [
        OrderIdentity(
            row,
            key,
            _patient(patient, attributes),
            OrderStatus(status),
            uid,
            procedure,
            (accession, issuer),
            frozenset(steps[row]),
        )
        for row, key, patient, attributes, status, uid, procedure, accession, issuer in rows
    ]
