"""Matches of studies and orders as they stand in the index: found by rules, or set by an operator."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from index.database.connection import Database
from index.database.mark_changed import Key, mark_studies_changed
from index.database.tables import ImagingOrder, ScheduledStep, Study, StudyKey, StudyMatch, StudyOrder
from index.database.tables import Patient as PatientRow
from index.election.patients import elect_patient
from index.errors import NotFound
from index.orders.matching.rules import DEFAULT_RULES, Verdict, decide
from index.orders.matching.study_identity import identity_of, keys_of, options_for
from index.orders.records import OPEN, Status
from index.records import Order, Patient

log = structlog.get_logger(__name__)

BY_OPERATOR = "operator"
UNDONE = "undone by operator"


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A study with instances and without an order, and why."""

    uid: str
    doubt: str


class Matches:
    """Matches studies to orders by rules, and keeps what an operator decided."""

    def __init__(self, database: Database, rules: Sequence[str] = DEFAULT_RULES) -> None:
        self._database = database
        self._rules = rules

    def match(self, study: int, uid: str) -> None:
        """Match a study (row id, UID) anew, before it is published. Raises NotKept, DatabaseFault.

        Orders that it gains or loses are told to the studies that they asked for, in the same transaction.
        """
        with self._database.reading():
            unchanged = self._weigh(study, uid) is None
        if unchanged:
            return
        with self._database.writing():
            weighed = self._weigh(study, uid)
            if weighed is None:
                return
            keys, verdict = weighed
            self._write_keys(uid, keys)
            if verdict is not None:
                self._write(uid, verdict, operator=False)
        if verdict is not None:
            log.info(
                "matched",
                study_uid=uid,
                orders=sorted(verdict.orders),
                rule=verdict.rule,
                doubts=verdict.doubts,
            )

    def _weigh(self, study: int, uid: str) -> tuple[set[Key], Verdict | None] | None:
        """Return the study's keys, and the verdict where it is a new one. None: nothing has changed."""
        facts = identity_of(self._database, study, uid)
        keys = keys_of(facts) if facts else set()
        verdict = decide(facts, options_for(self._database, facts), self._rules) if facts else Verdict()
        known, operator = self._known(uid)
        changed = None if operator or verdict == known else verdict
        return None if changed is None and keys == self._keys(uid) else (keys, changed)

    def _keys(self, uid: str) -> set[Key]:
        query = StudyKey.select(StudyKey.kind, StudyKey.value)
        return {(kind, value) for kind, value in self._database.rows(query.where(StudyKey.study_uid == uid))}

    def _known(self, uid: str) -> tuple[Verdict, bool]:
        query = StudyMatch.select(StudyMatch.rule, StudyMatch.doubt, StudyMatch.operator)
        rows = self._database.rows(query.where(StudyMatch.study_uid == uid))
        rule, doubt, operator = rows[0] if rows else ("", "", 0)
        return Verdict(frozenset(self._orders(uid)), rule, tuple(doubt.splitlines())), bool(operator)

    def _orders(self, uid: str) -> list[int]:
        query = StudyOrder.select(StudyOrder.order).where(StudyOrder.study_uid == uid)
        return [order for (order,) in self._database.rows(query)]

    def _write_keys(self, uid: str, keys: set[Key]) -> None:
        execute = self._database.execute
        before = self._keys(uid)
        for kind, value in before - keys:
            gone = (StudyKey.study_uid == uid) & (StudyKey.kind == kind) & (StudyKey.value == value)
            execute(StudyKey.delete().where(gone))
        for kind, value in sorted(keys - before):
            execute(StudyKey.insert(study_uid=uid, kind=kind, value=value))

    def _write(self, uid: str, verdict: Verdict, *, operator: bool) -> None:
        execute = self._database.execute
        before = set(self._orders(uid))
        execute(
            StudyOrder.delete().where(
                (StudyOrder.study_uid == uid) & StudyOrder.order.in_(before - verdict.orders)
            )
        )
        for order in sorted(verdict.orders - before):
            execute(StudyOrder.insert(study_uid=uid, order=order))
        execute(StudyMatch.delete().where(StudyMatch.study_uid == uid))
        doubt = "\n".join(verdict.doubts)
        if operator or verdict.rule or doubt:
            execute(StudyMatch.insert(study_uid=uid, rule=verdict.rule, doubt=doubt, operator=operator))
        asked = ImagingOrder.select(ImagingOrder.study_uid).where(
            ImagingOrder.id.in_(before ^ verdict.orders)
        )
        mark_studies_changed(self._database, {other for (other,) in self._database.rows(asked)} - {uid})

    def set(self, uid: str, order: int) -> None:
        """Match a study to an order, whatever the rules say. Raises NotFound."""
        with self._database.writing():
            self._must_exist(uid)
            if not self._database.rows(ImagingOrder.select(ImagingOrder.id).where(ImagingOrder.id == order)):
                raise NotFound(f"order {order} is not in the index")
            self._write(uid, Verdict(frozenset((order,)), BY_OPERATOR), operator=True)
            mark_studies_changed(self._database, [uid])

    def undo(self, uid: str) -> None:
        """Part a study from its orders; the rules leave it alone from now on. Raises NotFound."""
        with self._database.writing():
            self._must_exist(uid)
            self._write(uid, Verdict(rule=UNDONE), operator=True)
            mark_studies_changed(self._database, [uid])

    def automatic(self, uid: str) -> None:
        """Let the rules decide about a study again. Raises NotFound."""
        with self._database.writing():
            self._must_exist(uid)
            self._write(uid, Verdict(), operator=False)
            mark_studies_changed(self._database, [uid])

    def _must_exist(self, uid: str) -> None:
        if not self._database.rows(
            Study.select(Study.id).where((Study.uid == uid) & (Study.instance_count > 0))
        ):
            raise NotFound(f"study {uid} has no instances in the index")

    def unmatched(self) -> list[Unmatched]:
        """Return the studies with instances that have no order, or have a doubt, in order of arrival."""
        matched = StudyOrder.select(StudyOrder.study_uid)
        studies = self._database.rows(
            Study.select(Study.uid)
            .where((Study.instance_count > 0) & Study.uid.not_in(matched))
            .order_by(Study.id)
        )
        said = StudyMatch.select(StudyMatch.study_uid, StudyMatch.rule, StudyMatch.doubt)
        known = {uid: doubt.replace("\n", "; ") or rule for uid, rule, doubt in self._database.rows(said)}
        return [Unmatched(uid, known.get(uid) or "no order fits") for (uid,) in studies]


def orders_of(database: Database, uid: str, *, has_instances: bool) -> tuple[Order, ...]:
    """Return the orders of a study: those matched to it; without instances those that ask for its UID."""
    table = ImagingOrder
    order = (table.id, table.key, table.status, table.attributes, table.study_uid)
    query = table.select(*order, PatientRow.id, PatientRow.key).join(PatientRow)
    matched = StudyOrder.select(StudyOrder.order)
    mine = table.id.in_(matched.where(StudyOrder.study_uid == uid))
    if not has_instances:
        mine |= (table.study_uid == uid) & table.id.not_in(StudyOrder.select(StudyOrder.order))
    rows = database.rows(query.where(mine).order_by(table.key))
    starts = _starts(database, [row for row, *_ in rows])
    keys = {patient: key for *_, patient, key in rows}
    patients = {
        patient: Patient(key, elect_patient(database, patient, key)[0]) for patient, key in keys.items()
    }
    return tuple(
        Order(
            key,
            _said(Status(status)),
            {**attributes, "StudyInstanceUID": asked, **starts.get(row, {})},
            patients[patient],
        )
        for row, key, status, attributes, asked, patient, _ in rows
    )


def _starts(database: Database, orders: list[int]) -> dict[int, dict[str, Any]]:
    """Return when the steps of orders (row ids) are to start, as ScheduledProcedureStepSequence."""
    table = ScheduledStep
    query = table.select(table.order, table.start_date, table.start_time).where(table.order.in_(orders))
    found: dict[int, dict[str, Any]] = {}
    for order, date, time in database.rows(query.order_by(table.order, table.start_date, table.start_time)):
        step = {"ScheduledProcedureStepStartDate": date, "ScheduledProcedureStepStartTime": time}
        steps = found.setdefault(order, {"ScheduledProcedureStepSequence": []})
        steps["ScheduledProcedureStepSequence"].append(step)
    return found


def _said(status: Status) -> str:
    return str(Status.SCHEDULED if status in OPEN else status)
