"""The matches of studies to orders in the index: found by the rules, or set by an operator."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import structlog
from peewee import SQL, fn

from index.database.connection import Database, tried_again
from index.database.mark_changed import Key, mark_studies_changed
from index.database.tables import ImagingOrder, ScheduledStep, Study, StudyKey, StudyMatch, StudyOrder
from index.database.tables import Patient as PatientRow
from index.election.patients import elect_patient
from index.errors import NotFound
from index.orders.matching.rules import DEFAULT_RULES, MatchResult, RuleName, match_orders
from index.orders.matching.study_identity import candidate_orders, identity_of, keys_of
from index.orders.records import OPEN, OrderStatus
from index.records import Order, Patient

log = structlog.get_logger(__name__)

BY_OPERATOR = "operator"
UNDONE = "undone by operator"


@dataclass(frozen=True, slots=True)
class Unmatched:
    """A study with instances and without an order; `doubt` is the reason."""

    uid: str
    doubt: str


class MatchStore:
    """Matches studies to orders by the rules; a match set by an operator stays."""

    def __init__(self, database: Database, rules: Sequence[RuleName] = DEFAULT_RULES) -> None:
        self._database = database
        self._rules = rules

    @tried_again
    def match(self, study: int, uid: str) -> None:
        """Match a study (row id, UID) again, before it is published. Raises NotKept, DatabaseFault.

        The studies that its new and its lost orders ask for are marked changed in the same transaction.
        """
        with self._database.reading():
            unchanged = self._changes(study, uid) is None
        if unchanged:
            return
        with self._database.deciding():
            changes = self._changes(study, uid)
            if changes is None:
                return
            keys, result = changes
            self._write_keys(uid, keys)
            if result is not None:
                self._write(uid, result, operator=False)
        if result is not None:
            orders = sorted(result.orders)
            log.info("matched", study_uid=uid, orders=orders, rule=result.rule, doubts=result.doubts)

    def _changes(self, study: int, uid: str) -> tuple[set[Key], MatchResult | None] | None:
        """Return the study's keys, and its match if that is a new one. None: nothing has changed."""
        identity = identity_of(self._database, study, uid)
        keys, result = set(), MatchResult()
        if identity:
            keys = keys_of(identity)
            result = match_orders(identity, candidate_orders(self._database, identity), self._rules)
        known, operator = self._known(uid)
        changed = None if operator or result == known else result
        return None if changed is None and keys == self._keys(uid) else (keys, changed)

    def _keys(self, uid: str) -> set[Key]:
        query = StudyKey.select(StudyKey.kind, StudyKey.value)
        return {(kind, value) for kind, value in self._database.rows(query.where(StudyKey.study_uid == uid))}

    def _known(self, uid: str) -> tuple[MatchResult, bool]:
        query = StudyMatch.select(StudyMatch.rule, StudyMatch.doubt, StudyMatch.operator)
        rows = self._database.rows(query.where(StudyMatch.study_uid == uid))
        rule, doubt, operator = rows[0] if rows else ("", "", 0)
        return MatchResult(frozenset(self._orders(uid)), rule, tuple(doubt.splitlines())), bool(operator)

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

    def _write(self, uid: str, result: MatchResult, *, operator: bool) -> None:
        execute = self._database.execute
        before = set(self._orders(uid))
        lost = (StudyOrder.study_uid == uid) & StudyOrder.order.in_(before - result.orders)
        execute(StudyOrder.delete().where(lost))
        for order in sorted(result.orders - before):
            execute(StudyOrder.insert(study_uid=uid, order=order))
        execute(StudyMatch.delete().where(StudyMatch.study_uid == uid))
        doubt = "\n".join(result.doubts)
        if operator or result.rule or doubt:
            execute(StudyMatch.insert(study_uid=uid, rule=result.rule, doubt=doubt, operator=operator))
        changed = ImagingOrder.id.in_(before ^ result.orders)
        rows = self._database.rows(ImagingOrder.select(ImagingOrder.study_uid).where(changed))
        mark_studies_changed(self._database, {other for (other,) in rows} - {uid})

    @tried_again
    def set(self, uid: str, order: int) -> None:
        """Match a study to an order against the rules. Raises NotFound."""
        with self._deciding(uid):
            if not self._database.rows(ImagingOrder.select(ImagingOrder.id).where(ImagingOrder.id == order)):
                raise NotFound(f"order {order} is not in the index")
            self._write(uid, MatchResult(frozenset((order,)), BY_OPERATOR), operator=True)

    @tried_again
    def undo(self, uid: str) -> None:
        """Separate a study from its orders; the rules no longer match it. Raises NotFound."""
        with self._deciding(uid):
            self._write(uid, MatchResult(rule=UNDONE), operator=True)

    @tried_again
    def rematch(self, uid: str) -> None:
        """Let the rules match a study again. Raises NotFound."""
        with self._deciding(uid):
            self._write(uid, MatchResult(), operator=False)

    @contextmanager
    def _deciding(self, uid: str) -> Iterator[None]:
        """The transaction in which an operator decides about a study. Raises NotFound."""
        has_instances = (Study.uid == uid) & (Study.instance_count > 0)
        with self._database.deciding():
            if not self._database.rows(Study.select(Study.id).where(has_instances)):
                raise NotFound(f"study {uid} has no instances in the index")
            yield
            mark_studies_changed(self._database, [uid])

    def unmatched(self) -> list[Unmatched]:
        """Return the studies that have instances and no order, in order of arrival."""
        matched = StudyOrder.select(StudyOrder.study_uid)
        wanted = (Study.instance_count > 0) & Study.uid.not_in(matched)
        studies = self._database.rows(Study.select(Study.uid).where(wanted).order_by(Study.id))
        query = StudyMatch.select(StudyMatch.study_uid, StudyMatch.rule, StudyMatch.doubt)
        doubts = {uid: doubt.replace("\n", "; ") or rule for uid, rule, doubt in self._database.rows(query)}
        return [Unmatched(uid, doubts.get(uid) or "no order fits") for (uid,) in studies]


def orders_of_study(database: Database, uid: str, *, has_instances: bool) -> tuple[Order, ...]:
    """Return the orders matched to a study; of one without instances, also those that ask for its UID."""
    table = ImagingOrder
    columns = (table.id, table.key, table.status, table.attributes, table.study_uid)
    query = table.select(*columns, PatientRow.id, PatientRow.key).join(PatientRow)
    wanted: Any = StudyOrder.select(StudyOrder.order).where(StudyOrder.study_uid == uid)
    if not has_instances:
        matched = StudyOrder.select(SQL("1")).where(StudyOrder.order == table.id)
        wanted |= table.select(table.id).where((table.study_uid == uid) & ~fn.EXISTS(matched))
    rows = database.rows(query.where(table.id.in_(wanted)).order_by(table.key))
    starts = _starts(database, [row for row, *_ in rows])
    keys = {patient: key for *_, patient, key in rows}
    patients = {
        patient: Patient(key, elect_patient(database, patient, key)[0]) for patient, key in keys.items()
    }
    return tuple(
        Order(
            key,
            str(OrderStatus.SCHEDULED if status in OPEN else status),
            {**attributes, "StudyInstanceUID": asked, **starts.get(row, {})},
            patients[patient],
        )
        for row, key, status, attributes, asked, patient, _ in rows
    )


def _starts(database: Database, orders: list[int]) -> dict[int, dict[str, Any]]:
    """Return when the steps of orders (row ids) are to start, as ScheduledProcedureStepSequence."""
    table = ScheduledStep
    query = table.select(table.order, table.start_date, table.start_time).where(table.order.in_(orders))
    steps: defaultdict[int, list[dict[str, str]]] = defaultdict(list)
    for order, date, time in database.rows(query.order_by(table.order, table.start_date, table.start_time)):
        step = {"ScheduledProcedureStepStartDate": date, "ScheduledProcedureStepStartTime": time}
        steps[order].append(step)
    return {order: {"ScheduledProcedureStepSequence": items} for order, items in steps.items()}
