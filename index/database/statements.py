"""The statements of the hot path: built by peewee, compiled once, run with named parameters.

What finds or makes a row (`study`, `series`, …) returns its id; instances are counted in afterwards, once for
each row and batch. On PostgreSQL a row that is there is only read: a lock on it would hold up the other nodes
to which the same scanner, or the same patient's images, come.
"""

from collections.abc import Callable
from typing import Any

from peewee import SQL, Query, fn

from index.database.connection import Database, Statement
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

_ZERO = SQL("0")
_ONE = SQL("1")
_NOTHING = SQL("'{}'")


Build = Callable[[Placeholder], Query]


class FindOrMake:
    """A row that is read where it is there, else made, which another process may do at the same time."""

    def __init__(self, find: Statement | None, make: Statement) -> None:
        self._find = find
        self._make = make

    def one(self, **values: Any) -> Any:
        """Return the first row of the query."""
        return (self._find and self._find.one(**values)) or self._make.one(**values)


class Statements:
    """All of them, compiled for one database."""

    def __init__(self, database: Database) -> None:
        compiled = database.compile

        def find_or_make(find: Build, make: Build) -> FindOrMake:
            return FindOrMake(None if database.is_sqlite else compiled(find), compiled(make))

        self.source = find_or_make(_find_source, _source)
        self.patient = find_or_make(_find_patient, patient_by_key)
        self.study = find_or_make(_find_study, _study)
        self.series = find_or_make(_find_series, _series)
        self.study_variant = find_or_make(_find_study_variant, _study_variant)
        self.series_variant = find_or_make(_find_series_variant, _series_variant)
        self.instance = compiled(_instance)
        self.count_study = compiled(_count_study)
        self.count = {
            "series": compiled(lambda p: _count(Series, p)),
            "study_variant": compiled(lambda p: _count(StudyVariant, p)),
            "series_variant": compiled(lambda p: _count(SeriesVariant, p)),
        }


def _source(p: Placeholder) -> Query:
    row = Source.insert(calling_aet=p("calling_aet"), called_aet=p("called_aet"), address=p("address"))
    key = [Source.calling_aet, Source.called_aet, Source.address]
    # An update that changes nothing: without one there is no id to be returned.
    return row.on_conflict(conflict_target=key, update={Source.address: p("address")}).returning(Source.id)


def _find_source(p: Placeholder) -> Query:
    same = (Source.calling_aet == p("calling_aet")) & (Source.called_aet == p("called_aet"))
    return Source.select(Source.id).where(same & (Source.address == p("address")))


def _find_patient(p: Placeholder) -> Query:
    """Find a patient, or its survivor; a merge of it waits until the transaction has ended."""
    row = Patient.select(fn.COALESCE(Patient.survivor, Patient.id)).where(Patient.key == p("key"))
    return row.for_update("FOR SHARE")  # type: ignore[arg-type]  # its stubs lack it


def _find_study(p: Placeholder) -> Query:
    return Study.select(Study.id).where(Study.uid == p("uid"))


def _find_series(p: Placeholder) -> Query:
    same = (Series.study == p("study")) & (Series.uid == p("uid"))
    return Series.select(Series.id, Series.instance_count).where(same)


def _find_study_variant(p: Placeholder) -> Query:
    same = (StudyVariant.study == p("study")) & (StudyVariant.digest == p("digest"))
    return StudyVariant.select(StudyVariant.id).where(same)


def _find_series_variant(p: Placeholder) -> Query:
    same = (SeriesVariant.series == p("series")) & (SeriesVariant.digest == p("digest"))
    return SeriesVariant.select(SeriesVariant.id).where(same)


def patient_by_key(p: Placeholder) -> Query:
    """Add a patient if it is missing; return its row or that of its survivor."""
    row = Patient.insert(key=p("key"), attributes=_NOTHING)
    found = row.on_conflict(conflict_target=[Patient.key], update={Patient.key: p("key")})
    return found.returning(fn.COALESCE(Patient.survivor, Patient.id))


def _study(p: Placeholder) -> Query:
    row = Study.insert(
        uid=p("uid"),
        attributes=_NOTHING,
        series_count=_ZERO,
        instance_count=_ZERO,
        first_received=p("received"),
        last_received=p("received"),
        revision=_ZERO,
        published=_ZERO,
        withdrawn=_ZERO,
    )
    return row.on_conflict(conflict_target=[Study.uid], update={Study.uid: p("uid")}).returning(Study.id)


def _series(p: Placeholder) -> Query:
    row = Series.insert(study=p("study"), uid=p("uid"), attributes=_NOTHING, instance_count=_ZERO)
    found = row.on_conflict(conflict_target=[Series.study, Series.uid], update={Series.uid: p("uid")})
    return found.returning(Series.id, Series.instance_count)


def _study_variant(p: Placeholder) -> Query:
    row = StudyVariant.insert(
        study=p("study"),
        digest=p("digest"),
        patient=p("patient"),
        patient_attributes=p("patient_attributes"),
        attributes=p("attributes"),
        instance_count=_ZERO,
    )
    same = {StudyVariant.digest: p("digest")}
    found = row.on_conflict(conflict_target=[StudyVariant.study, StudyVariant.digest], update=same)
    return found.returning(StudyVariant.id)


def _series_variant(p: Placeholder) -> Query:
    row = SeriesVariant.insert(
        series=p("series"), digest=p("digest"), attributes=p("attributes"), instance_count=_ZERO
    )
    same = {SeriesVariant.digest: p("digest")}
    found = row.on_conflict(conflict_target=[SeriesVariant.series, SeriesVariant.digest], update=same)
    return found.returning(SeriesVariant.id)


def _instance(p: Placeholder) -> Query:
    return Instance.insert(**{name: p(name) for name in (*ROW, *PLACE)})


def _count_study(p: Placeholder) -> Query:
    """Count instances and new series in; whoever publishes sees by the revision that there is more."""
    counted = {
        Study.instance_count: Study.instance_count + p("number"),
        Study.series_count: Study.series_count + p("series"),
        Study.last_received: p("received"),
        Study.revision: Study.revision + _ONE,
        Study.withdrawn: _ZERO,
    }
    return Study.update(counted).where(Study.id == p("id"))


def _count(table: type[StudyVariant | SeriesVariant | Series], p: Placeholder) -> Query:
    return table.update(instance_count=table.instance_count + p("number")).where(table.id == p("id"))
