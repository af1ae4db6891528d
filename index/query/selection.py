"""The entities that an identifier may match, selected by SQL before it is matched exactly.

The values of an entity are elected from its variants; those of a patient may also come from orders and ADT
messages. So SQL selects by each value that may be elected.
"""

import re
from collections.abc import Callable, Iterator
from functools import reduce
from operator import and_, or_
from typing import Any

from peewee import SQL, Field, fn

from index.database.connection import Database
from index.database.extracted import begins_with, extracted, folded_name, is_one_of
from index.database.tables import Instance, Patient, Series, SeriesVariant, Study, StudyVariant
from index.dicom.attributes import WANTED
from index.dicom.person_names import folded, folded_without_accents, name_groups
from index.dicom.value_rules import texts
from index.query.identifiers import Identifier
from index.query.information_models import KEYS, Level
from index.query.keys import NOT_MATCHED
from index.query.value_matching import range_of

Condition = Callable[[Field], Any]
"""Makes the condition on a column of attributes."""

# Values of one key that are made conditions of SQL. Of UIDs there may be any number.
MOST_VALUES = 20
# Text that is compared as it is, and codes, which are stored in any case.
_EXACT, _CODES = frozenset(("LO", "SH")), frozenset(("AE", "CS"))
_ONE_VALUE = frozenset(attribute.keyword for attribute in WANTED.values() if not attribute.many)
_WILD = re.compile(r"[*?]")
_LIKE = str.maketrans({"*": "%", "?": "_", "%": "_", "\\": "_"})
# Letters and digits, which no padding separates.
_RUN = re.compile(r"[^\W_]+")
# Keys with an index, those first that select the fewest studies.
_INDEXED = ("AccessionNumber", "PatientID", "PatientName", "StudyDate")
_TABLES: dict[Level, Any] = {
    Level.PATIENT: Patient,
    Level.STUDY: Study,
    Level.SERIES: Series,
    Level.IMAGE: Instance,
}


class EntitySelection:
    """The row ids of the entities of a level that may match an identifier, in the order of the answers.

    Patients and studies come newest first, series and instances in the order of their arrival.
    Raises BadIdentifier for a date that is not valid.
    """

    def __init__(
        self, database: Database, identifier: Identifier, level: Level, *, ignore_accents: bool = False
    ) -> None:
        self._database = database
        self._identifier = identifier
        self._fold = folded_without_accents if ignore_accents else folded
        self._is_newest_first = level in (Level.PATIENT, Level.STUDY)
        self._row = _TABLES[level].id
        self._query = self._patients() if level is Level.PATIENT else self._below_patient(level)

    def rows_after(self, last: int | None, count: int, passed_over: int = 0) -> list[int]:
        """Return so many row ids that follow `last`; None: the first ones, behind those passed over."""
        query, row = self._query, self._row
        if last is not None:
            query = query.where(row < last if self._is_newest_first else row > last)
        query = query.order_by(row.desc() if self._is_newest_first else row)
        return [found for (found,) in self._database.rows(query.limit(count).offset(passed_over or None))]

    def count(self) -> int:
        """Return how many there are."""
        ((count,),) = self._database.rows(self._query.select(fn.COUNT(self._row)))
        return int(count)

    def _patients(self) -> Any:
        stored = StudyVariant.select(SQL("1"))
        stored = stored.where((StudyVariant.patient == Patient.id) & (StudyVariant.instance_count > SQL("0")))
        query = Patient.select(Patient.id).where(fn.EXISTS(stored))
        conditions = self._conditions(Level.PATIENT)
        for keyword in sorted(conditions, key=_rank)[:1]:
            query = query.where(Patient.id.in_(self._rows_of_patients(keyword, conditions[keyword])))
        return query

    def _below_patient(self, level: Level) -> Any:
        query = _TABLES[level].select(self._row)
        if level is Level.IMAGE:
            query = query.join(Series).join(Study)
        elif level is Level.SERIES:
            query = query.join(Study)
        query = query.where(Study.instance_count > SQL("0"))
        if uids := list(self._uids(level)):
            return query.where(*uids)
        conditions = self._conditions(Level.STUDY)
        by_patient = self._conditions(Level.PATIENT)
        best = min((*conditions, *by_patient), key=_rank, default="")
        if best in by_patient:
            of_patient = StudyVariant.patient.in_(self._rows_of_patients(best, by_patient[best]))
            query = query.where(Study.id.in_(StudyVariant.select(StudyVariant.study).where(of_patient)))
        elif best in _INDEXED:
            found = StudyVariant.select(StudyVariant.study)
            found = found.where(conditions.pop(best)(StudyVariant.attributes))
            query = query.where(Study.id.in_(found))
        variants = StudyVariant.select(SQL("1")).where(StudyVariant.study == Study.id)
        for fits in conditions.values():
            query = query.where(fn.EXISTS(variants.where(fits(StudyVariant.attributes))))
        return self._with_series(query, level)

    def _with_series(self, query: Any, level: Level) -> Any:
        """Add the conditions on the attributes of series."""
        if level is not Level.STUDY:
            variants = SeriesVariant.select(SQL("1")).where(SeriesVariant.series == Series.id)
            for fits in self._conditions(Level.SERIES).values():
                query = query.where(fn.EXISTS(variants.where(fits(SeriesVariant.attributes))))
        elif condition := self._condition("ModalitiesInStudy", "Modality", "CS"):
            variants = SeriesVariant.select(SQL("1")).join(Series).where(Series.study == Study.id)
            query = query.where(fn.EXISTS(variants.where(condition(SeriesVariant.attributes))))
        return query

    def _uids(self, level: Level) -> Iterator[Any]:
        columns = (
            ("StudyInstanceUID", Study.uid),
            ("SeriesInstanceUID", Series.uid),
            ("SOPInstanceUID", Instance.uid),
        )
        for keyword, column in columns[: level.depth]:
            values = texts(self._identifier.get(keyword))
            if len(values) == 1:
                yield column == values[0]
            elif values:
                yield is_one_of(self._database, column, values)

    def _rows_of_patients(self, keyword: str, condition: Condition) -> Any:
        """Select the patients for whom a value that fits may be elected.

        The value of an order is elected only where no instance of the patient has one.
        """
        column = StudyVariant.patient_attributes
        # A name has an index only as it is folded.
        value = folded_name if KEYS[Level.PATIENT][keyword].vr == "PN" else extracted
        has_none = value(self._database, column, keyword).is_null()
        stored = StudyVariant.select(StudyVariant.patient).where(condition(column) | has_none)
        by_adt = Patient.select(Patient.id).where(
            (Patient.attributes != SQL("'{}'")) & condition(Patient.attributes)
        )
        return stored | by_adt

    def _conditions(self, level: Level) -> dict[str, Condition]:
        """Return the conditions of the keys of a level, by keyword."""
        conditions = {}
        for keyword, key in KEYS[level].items():
            if key.matching == NOT_MATCHED or keyword not in _ONE_VALUE:
                continue
            if condition := self._condition(keyword, keyword, key.vr):
                conditions[keyword] = condition
        return conditions

    def _condition(self, keyword: str, stored: str, vr: str) -> Condition | None:
        """Return the condition that an attribute, `stored`, may have a value that is asked for."""
        wanted = texts(self._identifier.get(keyword))
        if not 0 < len(wanted) <= MOST_VALUES:
            return None
        each = [self._one_value(keyword, stored, vr, value) for value in wanted]
        some = [condition for condition in each if condition]
        if len(some) < len(each):
            return None
        return lambda column: reduce(or_, (condition(column) for condition in some))

    def _one_value(self, keyword: str, stored: str, vr: str, wanted: str) -> Condition | None:
        database = self._database
        if vr == "PN":
            return self._name(stored, wanted)
        if vr == "DA":
            first, last = range_of(keyword, vr, wanted)
            return lambda column: _between(extracted(database, column, stored), first, last)
        if vr in _EXACT and not _WILD.search(wanted):
            return lambda column: extracted(database, column, stored) == wanted
        if vr not in _EXACT | _CODES or set(wanted) == {"*"}:
            return None
        prefix = _WILD.split(wanted)[0] if vr in _EXACT else ""
        # ILIKE takes no account of case; a wildcard of its own stands for itself, and more.
        pattern = wanted.translate(_LIKE)

        def condition(column: Field) -> Any:
            value = extracted(database, column, stored)
            return (value**pattern) & begins_with(value, prefix) if prefix else value**pattern

        return condition

    def _name(self, stored: str, wanted: str) -> Condition | None:
        """Return the condition on a name: SQL folds plain names, which have an index, Python the others."""
        database, fold = self._database, self._fold
        group = name_groups(fold(wanted))[0]
        prefix = _WILD.split(group.partition("^")[0])[0].rstrip()
        runs = _RUN.findall(group)
        if not runs:
            return None

        def condition(column: Field) -> Any:
            name = folded_name(database, column, stored)
            other = name == SQL("''")
            if database.is_sqlite:
                by_python = getattr(fn, fold.__name__)(extracted(database, column, stored))
                other &= reduce(and_, (by_python.contains(run) for run in runs))
            if not group.isascii():
                return other
            tests = [name.contains(run) for run in runs]
            tests += [begins_with(name, prefix)] if prefix else []
            return other | reduce(and_, tests)

        return condition


def _rank(keyword: str) -> int:
    return _INDEXED.index(keyword) if keyword in _INDEXED else len(_INDEXED)


def _between(value: Any, first: str | None, last: str | None) -> Any:
    if first and last:
        return (value >= first) & (value <= last)
    return value >= first if first else value <= last
