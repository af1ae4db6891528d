"""The statements of the hot path: built by peewee, compiled once, run with named parameters.

What finds or makes a row (`study`, `series`, …) returns its id; instances are counted in afterwards, once for
each row and batch.
"""

from collections.abc import Callable

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

_ZERO = SQL("0")
_ONE = SQL("1")
_NOTHING = SQL("'{}'")


class Statements:
    """All of them, compiled for one database."""

    def __init__(self, database: Database) -> None:
        compiled = database.compile
        self.source = compiled(_source)
        self.patient = compiled(patient_by_key)
        self.study = compiled(_study)
        self.series = compiled(_series)
        self.study_variant = compiled(_study_variant)
        self.series_variant = compiled(_series_variant)
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
