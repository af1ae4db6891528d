"""Modalities without MPPS: the first matched instance ends a step (`[worklist] without_mpps`)."""

from collections.abc import Collection

from peewee import SQL, fn

from index.database.connection import Database, tried_again
from index.database.tables import (
    Instance,
    PerformedFor,
    ScheduledStep,
    Series,
    SeriesVariant,
    Source,
    StudyKey,
    StudyOrder,
)
from index.orders.records import OPEN, OrderStatus
from index.orders.store import OrderStore

# Every sender.
ANY = "*"


class StepsWithoutMpps:
    """Ends the scheduled steps that a study has instances of."""

    def __init__(self, database: Database, orders: OrderStore, senders: Collection[str]) -> None:
        self._database = database
        self._orders = orders
        self._senders = frozenset(sender.strip() for sender in senders)

    @tried_again
    def end_steps(self, study: int, uid: str) -> None:
        """End the steps of a study (row id, UID) that has been matched. Raises NotKept, DatabaseFault."""
        if not self._senders:
            return
        with self._database.reading():
            done = self._done(study, uid)
        if not done:
            return
        with self._database.deciding():
            for step in self._done(study, uid):
                self._orders.set_step_status(step, OrderStatus.COMPLETED)

    def _done(self, study: int, uid: str) -> list[int]:
        """Return the open steps of the study's orders that no MPPS is linked to.

        Those that the instances name by their id; else those of a modality that the study has.
        """
        if not self._is_without_mpps(study):
            return []
        linked = PerformedFor.select(SQL("1")).where(PerformedFor.scheduled == ScheduledStep.id)
        query = (
            ScheduledStep.select(ScheduledStep.id, ScheduledStep.step_id, ScheduledStep.modality)
            .join(StudyOrder, on=(StudyOrder.order == ScheduledStep.order))
            .where((StudyOrder.study_uid == uid) & ~fn.EXISTS(linked))
        )
        steps = self._database.rows(query.where(ScheduledStep.status.in_(OPEN)))
        named = StudyKey.select(StudyKey.value).where((StudyKey.study_uid == uid) & (StudyKey.kind == "step"))
        ids = {value for (value,) in self._database.rows(named)}
        if ids:
            return [row for row, step_id, _ in steps if step_id in ids]
        modalities = self._modalities(study) if steps else set()
        return [row for row, _, modality in steps if not modality or modality in modalities]

    def _is_without_mpps(self, study: int) -> bool:
        query = Source.select(Source.calling_aet).join(Instance).join(Series).where(Series.study == study)
        if ANY not in self._senders:
            query = query.where(Source.calling_aet.in_(sorted(self._senders)))
        return bool(self._database.rows(query.limit(1)))

    def _modalities(self, study: int) -> set[str]:
        query = SeriesVariant.select(SeriesVariant.attributes).join(Series).where(Series.study == study)
        return {str(attributes.get("Modality", "")) for (attributes,) in self._database.rows(query)}
