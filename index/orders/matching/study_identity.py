"""From rows to what matching.py weighs: what a study says of itself, and the orders that it could mean."""

from collections.abc import Iterable, Mapping
from typing import Any

from index.database.connection import Database
from index.database.instance_rows import issuer_of
from index.database.mark_changed import Key
from index.database.tables import ImagingOrder, ScheduledStep, Series, SeriesVariant, StudyVariant
from index.election.patients import study_patient
from index.election.values import Variant, elect
from index.orders.matching.rules import Option, Person, Request, StudyIdentity
from index.orders.records import Status, short_id
from index.records import Attributes


def identity_of(database: Database, study: int, uid: str) -> StudyIdentity | None:
    """Return what the instances of a study (row id, UID) say, elected. None: it has none."""
    found = study_patient(database, study, uid)
    query = StudyVariant.select(StudyVariant.attributes, StudyVariant.instance_count)
    opinions = database.rows(query.where(StudyVariant.study == study))
    if found is None or not opinions:
        return None
    attributes, _ = elect([Variant(*row) for row in opinions], "study", uid)
    items = [item for one in _series(database, study) for item in one.get("RequestAttributesSequence") or ()]
    # As the worklist answers them, whoever has told the scanner.
    requests = [Request(*(short_id(str(item.get(k) or "")) for k in _REQUEST)) for item in items]
    accessions = [_accession(attributes), *map(_accession, items)]
    return StudyIdentity(
        uid,
        _person(found.row, found.patient.attributes),
        tuple(sorted(set(requests), key=lambda one: (one.procedure_id, one.step_id, one.accession))),
        tuple(sorted({one for one in accessions if one[0]})),
    )


_REQUEST = ("RequestedProcedureID", "ScheduledProcedureStepID", "AccessionNumber")


def _series(database: Database, study: int) -> Iterable[Attributes]:
    query = SeriesVariant.select(SeriesVariant.series, SeriesVariant.attributes, SeriesVariant.instance_count)
    by_series: dict[int, list[Variant]] = {}
    for series, attributes, count in database.rows(query.join(Series).where(Series.study == study)):
        by_series.setdefault(series, []).append(Variant(attributes, count))
    for opinions in by_series.values():
        yield elect(opinions, "series", "")[0]


def _accession(attributes: Attributes) -> tuple[str, str]:
    return str(attributes.get("AccessionNumber") or ""), accession_issuer(attributes)


def accession_issuer(attributes: Attributes) -> str:
    """Return who issued AccessionNumber: the universal name, else the local one, or none."""
    items = attributes.get("IssuerOfAccessionNumberSequence") or ()
    issuer: Mapping[str, Any] = next(iter(items), {})
    return str(issuer.get("UniversalEntityID") or issuer.get("LocalNamespaceEntityID") or "")


def _person(row: int, attributes: Attributes) -> Person:
    return Person(row, str(attributes.get("PatientID") or ""), issuer_of(attributes))


def keys_of(facts: StudyIdentity) -> set[Key]:
    """Return what an order that comes later would find this study by: touching.py says how."""
    keys = {("accession", number) for number, _ in facts.accessions}
    shared = {("procedure", one.procedure_id) for one in facts.requests if one.procedure_id}
    shared |= {("step", one.step_id) for one in facts.requests if one.step_id}
    patient = {("patient", facts.patient.number)} if shared and facts.patient.number else set()
    return keys | shared | patient


def _orders_of(patient: Person) -> Any:
    """Select the orders of a patient, by its row or by its PatientID."""
    other = ImagingOrder.alias()
    mine = other.patient == patient.row
    return other.select(other.id).where(
        mine | (other.patient_number == patient.number) if patient.number else mine
    )


def options_for(database: Database, facts: StudyIdentity) -> list[Option]:
    """Return the orders that share a key with a study: ids of procedures and steps with its patient only."""
    keys = keys_of(facts)
    order, step = ImagingOrder, ScheduledStep

    def values(kind: str) -> list[str]:
        return sorted(value for one, value in keys if one == kind)

    wanted = (order.study_uid == facts.study_uid) | order.accession.in_(values("accession"))
    if values("procedure") or values("step"):
        of_patient = _orders_of(facts.patient)
        steps_of = step.select(step.order).where(
            step.step_id.in_(values("step")) & step.order.in_(of_patient)
        )
        wanted |= order.id.in_(of_patient) & order.procedure_id.in_(values("procedure"))
        wanted |= order.id.in_(steps_of)
    columns = (order.id, order.key, order.patient, order.patient_attributes, order.status, order.study_uid)
    rows = database.rows(
        order.select(*columns, order.procedure_id, order.accession, order.accession_issuer).where(wanted)
    )
    steps: dict[int, set[str]] = {}
    for row, step_id in database.rows(
        step.select(step.order, step.step_id).where(step.order.in_([r[0] for r in rows]))
    ):
        steps.setdefault(row, set()).add(step_id)
    return [
        Option(
            row,
            key,
            _person(patient, attributes),
            Status(status),
            uid,
            procedure,
            (accession, issuer),
            frozenset(steps.get(row, ())),
        )
        for row, key, patient, attributes, status, uid, procedure, accession, issuer in rows
    ]
