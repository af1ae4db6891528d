"""The rows that `studies` lists: made from the elected values when a study is published.

A study that has changed since has a row of an older revision, or none: index/publication/search.py then
lists it as it is now.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peewee import SQL, chunked, fn

from index.database.connection import Database
from index.database.tables import (
    Instance,
    Patient,
    Series,
    SeriesVariant,
    Source,
    Study,
    StudyListing,
    StudyTerm,
    StudyVariant,
)
from index.dicom.value_rules import texts
from index.election.values import Variant, elect
from index.errors import NotFound
from index.publication.study_rows import Summary, load_study, study_date
from index.query.study_filter import key, name_terms, plain_name
from index.records import Study as StudyRecord

# Studies whose rows are made in one transaction: others wait for it.
BATCH = 100


@dataclass(frozen=True, slots=True)
class Listed:
    """A study in the list, as of a revision; `sources`: calling and called AE titles."""

    id: int
    revision: int
    state: str
    summary: Summary
    name: str
    last_received: int
    bytes: int
    sources: tuple[tuple[str, str], ...]

    def column(self, name: str) -> Any:
        """Return a column by which it is found or ordered."""
        return COLUMNS[name](self)

    @property
    def terms(self) -> set[tuple[str, str]]:
        """Its rows of StudyTerm: kind and value."""
        modalities = {("modality", key(modality).upper()) for modality in self.summary.modalities}
        return modalities | {("name", term) for term in name_terms(self.name)}


COLUMNS: Mapping[str, Callable[[Listed], Any]] = {
    "id": lambda one: one.id,
    "state": lambda one: one.state,
    "patient_id": lambda one: key(one.summary.patient_id),
    "accession": lambda one: key(one.summary.accession),
    "name": lambda one: key(plain_name(one.name)),
    "started": lambda one: key(one.summary.started),
    "last_received": lambda one: one.last_received,
    "bytes": lambda one: one.bytes,
}

# The columns that `from_row` reads.
ROW = (
    StudyListing.id,
    StudyListing.revision,
    StudyListing.state,
    StudyListing.details,
    StudyListing.last_received,
    StudyListing.bytes,
)


def from_row(row: Sequence[Any]) -> Listed:
    """Return a study of the values of ROW."""
    study, revision, state, details, received, size = row
    summary = details["summary"]
    summary = Summary(**{**summary, "modalities": tuple(summary["modalities"])})
    sources = tuple((calling, called) for calling, called in details["sources"])
    return Listed(study, revision, state, summary, details["name"], received, size, sources)


def save(database: Database, made: Sequence[Listed]) -> None:
    """Write the rows of these studies, whose own rows are held; a row of a later revision stays.

    In a write transaction.
    """
    rows = StudyListing.select(StudyListing.id, StudyListing.revision)
    rows = rows.where(StudyListing.id.in_([one.id for one in made]))
    revisions = dict(database.rows(rows))
    new = [one for one in made if one.revision >= revisions.get(one.id, -1)]
    for one in new:
        details = {"summary": one.summary.row(), "name": one.name, "sources": one.sources}
        columns = {name: value(one) for name, value in COLUMNS.items()}
        values = {**columns, "revision": one.revision, "details": details}
        if one.id in revisions:
            database.execute(StudyListing.update(values).where(StudyListing.id == one.id))
        else:
            database.execute(StudyListing.insert(values))
    _save_terms(database, new)


def remove(database: Database, studies: Sequence[int], which: Any = None) -> None:
    """Delete the rows of studies of which there is nothing to list; in a write transaction."""
    query = StudyListing.delete().where(StudyListing.id.in_(studies))
    database.execute(query if which is None else query.where(which))


def _save_terms(database: Database, new: Sequence[Listed]) -> None:
    """Insert the terms that are missing, and delete those that no longer hold: most often there is none."""
    query = StudyTerm.select(StudyTerm.study, StudyTerm.kind, StudyTerm.value)
    there = set(database.rows(query.where(StudyTerm.study.in_([one.id for one in new]))))
    wanted = {(one.id, *term) for one in new for term in one.terms}
    for study, kind, value in there - wanted:
        same = (StudyTerm.study == study) & (StudyTerm.kind == kind) & (StudyTerm.value == value)
        database.execute(StudyTerm.delete().where(same))
    fields = (StudyTerm.study, StudyTerm.kind, StudyTerm.value)
    for some in chunked(sorted(wanted - there), BATCH):
        database.execute(StudyTerm.insert_many(some, fields))


def as_they_are(database: Database, studies: Sequence[int]) -> list[Listed]:
    """Return what is to be listed of these studies, as they are now in one snapshot.

    Left out are studies of which there is nothing to list: withdrawn ones, and orders that have gone.
    """
    with database.reading():
        query = Study.select(
            Study.id, Study.uid, Study.revision, Study.series_count, Study.instance_count, Study.last_received
        )
        rows = database.rows(query.where(Study.id.in_(studies)))
        values = _Values(database, [row[0] for row in rows if row[4]])
        found = []
        for study, uid, revision, series, instances, received in rows:
            if instances:
                made = values.listed(study, uid, series, instances)
            else:
                try:
                    made = _without_instances(load_study(database, uid))
                except NotFound:
                    continue
            size, sources = values.sources.get(study, (0, ()))
            found.append(Listed(study, revision, *made, received, size, sources))
    return found


class _Values:
    """The variants and sources of several studies, read by one query each."""

    def __init__(self, database: Database, studies: list[int]) -> None:
        of_study = StudyVariant.select(
            StudyVariant.study,
            StudyVariant.patient_attributes,
            Patient.attributes,
            StudyVariant.attributes,
            StudyVariant.instance_count,
        )
        self._variants = _grouped(
            database.rows(of_study.join(Patient).where(StudyVariant.study.in_(studies)))
        )
        of_series = Series.select(
            Series.study, Series.id, SeriesVariant.attributes, SeriesVariant.instance_count
        ).join(SeriesVariant, on=(SeriesVariant.series == Series.id))
        self._series = _grouped(database.rows(of_series.where(Series.study.in_(studies))))
        self.sources = dict(_sources(database, studies))

    def listed(self, study: int, uid: str, series: int, instances: int) -> tuple[str, Summary, str]:
        """Return state, summary and patient's name of a study that has instances."""
        variants = self._variants.get(study, [])
        patient, _ = elect([Variant({**own, **adt}, n) for own, adt, _, n in variants], "patient", "")
        attributes, _ = elect([Variant(values, n) for _, _, values, n in variants], "study", uid)
        modalities = set()
        for rows in _grouped(self._series.get(study, [])).values():
            elected, _ = elect([Variant(*row) for row in rows], "series", "")
            modalities.add(elected.get("Modality", "OT"))
        summary = Summary(
            uid,
            patient.get("PatientID"),
            attributes.get("AccessionNumber"),
            tuple(sorted(modalities)),
            series,
            instances,
            study_date(attributes),
        )
        return "available", summary, str(patient.get("PatientName") or "")


def _without_instances(study: StudyRecord) -> tuple[str, Summary, str]:
    """Return the same of a study that is ordered or announced, or that was withdrawn."""
    from index.imagingstudy.elements.orders import status_of  # few lists need it

    attributes = {**(study.orders[0].attributes if study.orders else {}), **study.attributes}
    modalities = {text for step in study.steps for text in texts(step.attributes.get("Modality"))}
    patient = study.patient.attributes
    accession, number = attributes.get("AccessionNumber"), patient.get("PatientID")
    summary = Summary(
        study.uid, number, accession, tuple(sorted(modalities)), 0, 0, study_date(study.attributes)
    )
    return status_of(study), summary, str(patient.get("PatientName") or "")


def _sources(
    database: Database, studies: list[int]
) -> Iterator[tuple[int, tuple[int, tuple[tuple[str, str], ...]]]]:
    """Yield each study with the bytes of its objects, and the AE titles that they came with."""
    size = fn.SUM(Instance.size)
    query = Series.select(Series.study, Instance.source, size).join(
        Instance, on=(Instance.series == Series.id)
    )
    rows = database.rows(query.where(Series.study.in_(studies)).group_by(Series.study, Instance.source))
    titles = {
        row: (calling, called)
        for row, calling, called in database.rows(
            Source.select(Source.id, Source.calling_aet, Source.called_aet).where(
                Source.id.in_({source for _, source, _ in rows})
            )
        )
    }
    for study, of_study in _grouped(rows).items():
        pairs = {titles[source] for source, _ in of_study if source in titles}
        yield study, (sum(int(size) for _, size in of_study), tuple(sorted(pairs)))


def outdated(database: Database) -> list[int]:
    """Return the studies whose row is not of their revision, or is still to be made."""
    changed_query, to_make = outdated_queries()
    changed = dict(database.rows(changed_query))
    for some in chunked(list(changed), BATCH):
        made = StudyListing.select(StudyListing.id, StudyListing.revision)
        for study, revision in database.rows(made.where(StudyListing.id.in_(some))):
            if changed[study] == revision:
                del changed[study]
    return sorted({*changed, *(study for (study,) in database.rows(to_make))})


def outdated_queries() -> list[Any]:
    """Return the queries for the studies that have changed, with their revisions, and for those to be made.

    Each reads a partial index. For a join PostgreSQL would expect all studies to have changed.
    """
    changed = Study.select(Study.id, Study.revision).where(Study.revision != Study.published)
    return [changed, StudyListing.select(StudyListing.id).where(StudyListing.revision < SQL("0"))]


def bring_up_to_date(database: Database, studies: Sequence[int]) -> None:
    """Make the rows of these studies, though they are not published. Raises NotKept."""
    for some in chunked(studies, BATCH):
        made = as_they_are(database, some)
        with database.writing(durable=False):
            hold = Study.select(Study.id).where(Study.id.in_(some)).order_by(Study.id)
            database.rows(hold if database.is_sqlite else hold.for_update())
            save(database, made)
            # Another process may have published it meanwhile.
            gone = set(some) - {one.id for one in made}
            remove(database, list(gone), StudyListing.revision < SQL("0"))


def _grouped(rows: Iterable[Sequence[Any]]) -> dict[int, list[tuple[Any, ...]]]:
    groups: dict[int, list[tuple[Any, ...]]] = {}
    for first, *rest in rows:
        groups.setdefault(first, []).append(tuple(rest))
    return groups
