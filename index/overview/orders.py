"""Orders as an operator looks at them: the steps of a day by station, and those that may be a study's."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from index.database.connection import Database
from index.database.tables import ImagingOrder, PerformedFor, PerformedStep, ScheduledStep, StudyOrder
from index.orders.records import OrderStatus

# Steps of one page, and orders that are offered for a study.
MAX_STEPS = 500
MAX_CANDIDATES = 20


@dataclass(frozen=True, slots=True)
class ScheduledLine:
    """A scheduled step with what its order tells. `performed`: the states of steps that perform it."""

    order: int
    station: str
    modality: str
    time: str
    status: str
    patient_id: str
    patient_name: str
    accession: str
    description: str
    studies: tuple[str, ...]
    performed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An order that may be a study's."""

    id: int
    status: str
    patient_id: str
    patient_name: str
    accession: str
    description: str


class OrderOverview:
    """Reads orders for an operator's page."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def scheduled(self, date: str, station: str = "") -> list[ScheduledLine]:
        """Return the steps of a date (DA) by station and time; at most MAX_STEPS. Raises NotKept."""
        step, order = ScheduledStep, ImagingOrder
        columns = (step.id, step.order, step.station, step.modality, step.start_time, step.status)
        of_order = (order.patient_number, order.patient_attributes, order.accession, order.attributes)
        query = step.select(*columns, *of_order).join(order)
        # With every status, since the index begins with it.
        query = query.where(step.status.in_([str(one) for one in OrderStatus]) & (step.start_date == date))
        if station:
            query = query.where(step.station == station)
        with self._database.reading():
            rows = self._database.rows(
                query.order_by(step.station, step.start_time, step.id).limit(MAX_STEPS)
            )
            studies = self._studies([row[1] for row in rows])
            performed = self._performed([row[0] for row in rows])
        return [
            ScheduledLine(
                number,
                at,
                modality,
                time,
                status,
                patient,
                str(attributes.get("PatientName") or ""),
                accession,
                str(of_procedure.get("RequestedProcedureDescription") or ""),
                tuple(studies.get(number, ())),
                tuple(performed.get(row, ())),
            )
            for row, number, at, modality, time, status, patient, attributes, accession, of_procedure in rows
        ]

    def candidates(self, patient_id: str, accession: str) -> list[Candidate]:
        """Return the orders of a patient or of an Accession Number, the latest first. Raises NotKept."""
        table = ImagingOrder
        wanted = [table.patient_number == patient_id] if patient_id else []
        wanted += [table.accession == accession] if accession else []
        if not wanted:
            return []
        columns = table.id, table.status, table.patient_number, table.patient_attributes, table.accession
        found: dict[int, Any] = {}
        for condition in wanted:
            query = table.select(*columns, table.attributes).where(condition).order_by(table.id.desc())
            found |= {row[0]: row for row in self._database.rows(query.limit(MAX_CANDIDATES))}
        return list(_candidates(found[row] for row in sorted(found, reverse=True)[:MAX_CANDIDATES]))

    def _studies(self, orders: list[int]) -> dict[int, list[str]]:
        query = StudyOrder.select(StudyOrder.order, StudyOrder.study_uid).where(StudyOrder.order.in_(orders))
        return _grouped(self._database.rows(query.order_by(StudyOrder.study_uid)))

    def _performed(self, steps: list[int]) -> dict[int, list[str]]:
        query = PerformedFor.select(PerformedFor.scheduled, PerformedStep.state).join(PerformedStep)
        return _grouped(self._database.rows(query.where(PerformedFor.scheduled.in_(steps))))


def _candidates(rows: Any) -> Iterator[Candidate]:
    for row, status, patient, attributes, accession, of_procedure in rows:
        name = str(attributes.get("PatientName") or "")
        description = str(of_procedure.get("RequestedProcedureDescription") or "")
        yield Candidate(row, status, patient, name, accession, description)


def _grouped(rows: list[tuple[Any, ...]]) -> dict[int, list[str]]:
    groups: dict[int, list[str]] = {}
    for key, value in rows:
        groups.setdefault(key, []).append(value)
    return groups
