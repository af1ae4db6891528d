"""The statements of the hot path: built by peewee, compiled once, run with named parameters.

What finds or makes a row (`study`, `series`, …) counts an instance in and returns the row's id.
"""

import functools
from collections.abc import Callable
from typing import Any

from peewee import SQL, Query, fn

from index.database.connection import Database
from index.database.tables import Instance, Patient, Series, SeriesVariant, Source, Study, StudyVariant

# The columns of an instance: what it says, and the rows that it refers to.
ROW = (
    "uid",
    "sop_class_uid",
    "transfer_syntax",
    "attributes",
    "doubts",
    "path",
    "size",
    "sha1",
    "received",
)
PLACE = ("series", "study_variant", "series_variant", "source")

Placeholder = Callable[[str], SQL]

_ONE = SQL("1")
_ZERO = SQL("0")
_NOTHING = SQL("'{}'")


class Statements:
    """All of them, compiled for one database."""

    def __init__(self, database: Database) -> None:
        compiled = database.compile
        self.find = compiled(_find)
        self.source = compiled(_source)
        self.patient = compiled(_patient)
        self.study = compiled(_study)
        self.series = compiled(_series)
        self.study_variant = compiled(_study_variant)
        self.series_variant = compiled(_series_variant)
        self.instance = compiled(_instance)
        self.count_new_series = compiled(_count_new_series)
        self.count_study = compiled(_count_study)
        self.count_series = compiled(lambda p: _count(Series, p))
        self.count_study_variant = compiled(lambda p: _count(StudyVariant, p))
        self.count_series_variant = compiled(lambda p: _count(SeriesVariant, p))


def _find(p: Placeholder) -> Query:
    columns = Instance.id, Instance.path, Instance.sha1, Series.study
    return Instance.select(*columns).join(Series).where(Instance.uid == p("uid"))


def _source(p: Placeholder) -> Query:
    row = Source.insert(calling_aet=p("calling_aet"), called_aet=p("called_aet"), address=p("address"))
    key = [Source.calling_aet, Source.called_aet, Source.address]
    # An update that changes nothing: without one there is no id to be returned.
    return row.on_conflict(conflict_target=key, update={Source.address: p("address")}).returning(Source.id)


def _patient(p: Placeholder) -> Query:
    row = Patient.insert(key=p("key"), attributes=_NOTHING)
    found = row.on_conflict(conflict_target=[Patient.key], update={Patient.key: p("key")})
    return found.returning(fn.COALESCE(Patient.survivor, Patient.id))


def _study(p: Placeholder) -> Query:
    row = Study.insert(
        uid=p("uid"),
        attributes=_NOTHING,
        series_count=_ZERO,
        instance_count=_ONE,
        first_received=p("received"),
        last_received=p("received"),
        revision=_ONE,
        published=_ZERO,
        withdrawn=_ZERO,
    )
    return row.on_conflict(conflict_target=[Study.uid], update=_one_more(p)).returning(Study.id)


def _series(p: Placeholder) -> Query:
    row = Series.insert(study=p("study"), uid=p("uid"), attributes=_NOTHING, instance_count=_ONE)
    one_more = {Series.instance_count: Series.instance_count + _ONE}
    found = row.on_conflict(conflict_target=[Series.study, Series.uid], update=one_more)
    return found.returning(Series.id, Series.instance_count)


def _study_variant(p: Placeholder) -> Query:
    row = StudyVariant.insert(
        study=p("study"),
        digest=p("digest"),
        patient=p("patient"),
        patient_attributes=p("patient_attributes"),
        attributes=p("attributes"),
        instance_count=_ONE,
    )
    one_more = {StudyVariant.instance_count: StudyVariant.instance_count + _ONE}
    found = row.on_conflict(conflict_target=[StudyVariant.study, StudyVariant.digest], update=one_more)
    return found.returning(StudyVariant.id)


def _series_variant(p: Placeholder) -> Query:
    row = SeriesVariant.insert(
        series=p("series"), digest=p("digest"), attributes=p("attributes"), instance_count=_ONE
    )
    one_more = {SeriesVariant.instance_count: SeriesVariant.instance_count + _ONE}
    found = row.on_conflict(conflict_target=[SeriesVariant.series, SeriesVariant.digest], update=one_more)
    return found.returning(SeriesVariant.id)


def _instance(p: Placeholder) -> Query:
    return Instance.insert(**{name: p(name) for name in (*ROW, *PLACE)})


@functools.cache
def arrivals(count: int) -> str:
    """Return the statement that inserts so many instances and counts them in: migrations/0007.

    Its values are, for each, those of ROW and PLACE, the study's row id and the number in the journal.
    """
    columns = [*ROW, *(f"{name}_id" for name in PLACE), "study_id", "number"]
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO arrival ({', '.join(columns)}) VALUES {', '.join([row] * count)}"  # noqa: S608


def _count_new_series(p: Placeholder) -> Query:
    return Study.update(series_count=Study.series_count + _ONE).where(Study.id == p("study"))


def _count_study(p: Placeholder) -> Query:
    return Study.update(_one_more(p)).where(Study.id == p("id"))


def _one_more(p: Placeholder) -> dict[Any, Any]:
    """Return what an instance more changes of its study."""
    return {
        Study.instance_count: Study.instance_count + _ONE,
        Study.last_received: p("received"),
        Study.revision: Study.revision + _ONE,
        Study.withdrawn: _ZERO,
    }


def _count(table: type[StudyVariant | SeriesVariant | Series], p: Placeholder) -> Query:
    """Count a number of instances in, or out."""
    return table.update(instance_count=table.instance_count + p("number")).where(table.id == p("id"))
