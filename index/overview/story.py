"""What happened to a study, in order of time, and how it stands now."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from peewee import JOIN, SQL, fn

from index.database.connection import Database
from index.database.tables import (
    Change,
    Conflict,
    ImagingOrder,
    Instance,
    OutboxRow,
    PerformedStep,
    PerformedStepStudy,
    Resource,
    ScheduledStep,
    Series,
    SeriesVariant,
    Source,
    Study,
    StudyMatch,
    StudyOrder,
    StudyVariant,
)
from index.election.patients import study_patient
from index.election.values import Variant, elect
from index.errors import NotFound
from index.overview.situations import Situation, situations
from index.procedures.completeness import Completeness, completeness
from index.publication.study_rows import sort_number
from index.records import Attributes, Disagreed

# Rows of each kind in a time line, the last ones: a study may be published thousands of times.
MAX_ROWS = 50


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a study. `at` is in ms since 1970; `kind` is one of a few words."""

    at: int
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class MatchedOrder:
    """An order to which a study is matched."""

    id: int
    key: str
    status: str
    accession: str
    description: str


@dataclass(frozen=True, slots=True)
class KeptAside:
    """A data set of the study, or with the UID of one of its instances, that is kept aside."""

    uid: str
    study_uid: str
    path: str
    size: int
    received: int
    is_of_study: bool


@dataclass(frozen=True, slots=True)
class SeriesLine:
    """A series of the study, with its first instance, for a thumbnail."""

    uid: str
    instances: int
    attributes: Attributes
    first_instance: str


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Instances of the study that cannot be sent to a peer, and why the last of them could not."""

    peer: str
    state: str
    instances: int
    error: str


@dataclass(frozen=True, slots=True)
class Subject:
    """The elected attributes of patient and study, the series in order, and where instances disagree."""

    patient: Attributes
    attributes: Attributes
    series: tuple[SeriesLine, ...]
    disagreements: tuple[Disagreed, ...]


@dataclass(frozen=True, slots=True)
class StudyStory:
    """How a study stands. `rule` tells by which rule it was matched, `doubt` why it was not."""

    uid: str
    first_received: int
    last_received: int
    is_published: bool
    withdrawn: bool
    instances: int
    situations: tuple[Situation, ...]
    events: tuple[Event, ...]
    orders: tuple[MatchedOrder, ...]
    rule: str
    doubt: str
    completeness: Completeness
    kept_aside: tuple[KeptAside, ...]
    outbox: tuple[DeadLetters, ...]
    subject: Subject


def story_of(database: Database, uid: str) -> StudyStory:
    """Return the story of a study. Raises NotFound."""
    with database.reading():
        columns = Study.id, Study.first_received, Study.last_received, Study.revision, Study.published
        rows = database.rows(
            Study.select(*columns, Study.withdrawn, Study.instance_count).where(Study.uid == uid)
        )
        aside = tuple(_kept_aside(database, uid))
        if not rows and not aside:
            raise NotFound(f"study {uid} is not in the index")
        ((row, first, last, revision, published, withdrawn, instances),) = rows or [(0, 0, 0, 0, 0, 0, 0)]
        orders = tuple(_orders(database, uid))
        rule, doubt = _match(database, uid)
        events = [*_of_orders(database, orders), *_of_steps(database, uid)]
        events += [*_of_instances(database, row), *_of_resources(database, uid)]
        events += [
            Event(one.received, "conflict", f"data set of {one.uid} kept aside: {one.path}") for one in aside
        ]
        return StudyStory(
            uid,
            first,
            last,
            revision == published,
            bool(withdrawn),
            instances,
            tuple(situations(database, [row]).get(row, ())),
            tuple(sorted(events, key=lambda one: one.at)),
            orders,
            rule,
            doubt,
            completeness(database, uid),
            aside,
            tuple(_outbox(database, row)),
            _subject(database, row, uid),
        )


def _orders(database: Database, uid: str) -> Iterator[MatchedOrder]:
    table = ImagingOrder
    query = table.select(table.id, table.key, table.status, table.accession, table.attributes)
    matched = StudyOrder.select(StudyOrder.order).where(StudyOrder.study_uid == uid)
    for row, key, status, accession, attributes in database.rows(
        query.where(table.id.in_(matched) | (table.study_uid == uid)).order_by(table.id)
    ):
        yield MatchedOrder(
            row, key, status, accession, str(attributes.get("RequestedProcedureDescription") or "")
        )


def _match(database: Database, uid: str) -> tuple[str, str]:
    query = StudyMatch.select(StudyMatch.rule, StudyMatch.doubt).where(StudyMatch.study_uid == uid)
    rows = database.rows(query)
    return rows[0] if rows else ("", "")


def _of_orders(database: Database, orders: tuple[MatchedOrder, ...]) -> Iterator[Event]:
    table = ImagingOrder
    query = table.select(table.id, table.source, table.sender, table.created, table.changed, table.status)
    for row, source, sender, created, changed, status in database.rows(
        query.where(table.id.in_([one.id for one in orders]))
    ):
        yield Event(created, "order", f"order {row} came in ({source} {sender})".replace(" )", ")"))
        if changed != created:
            yield Event(changed, "order", f"order {row} was changed last; it is {status.lower()}")
    step = ScheduledStep
    by_order = step.select(step.order, step.station, step.start_date, step.start_time)
    for row, station, date, time in database.rows(
        by_order.where(step.order.in_([one.id for one in orders])).limit(MAX_ROWS)
    ):
        if at := _local(date, time):
            yield Event(at, "order", f"order {row} was to begin at {station or 'any station'}")


def _local(date: str, time: str) -> int:
    """Return the time of a DA and a TM, in ms since 1970; 0 where they are not valid."""
    from datetime import datetime

    try:
        return int(datetime.strptime(date + (time[:4] or "0000"), "%Y%m%d%H%M").timestamp() * 1000)  # noqa: DTZ007
    except ValueError:
        return 0


def _of_steps(database: Database, uid: str) -> Iterator[Event]:
    table = PerformedStep
    query = table.select(table.uid, table.state, table.sender, table.created, table.changed)
    query = query.join(PerformedStepStudy).where(PerformedStepStudy.study_uid == uid)
    for step, state, sender, created, changed in database.rows(query.order_by(table.id).limit(MAX_ROWS)):
        yield Event(created, "step", f"{sender} began procedure step {step}")
        if changed != created:
            yield Event(changed, "step", f"procedure step {step} is {state.lower()}")


def _of_instances(database: Database, study: int) -> Iterator[Event]:
    """Yield when the instances of each sender began and ended to arrive."""
    table = Instance
    columns = fn.MIN(table.received), fn.MAX(table.received), fn.COUNT(SQL("*")), fn.SUM(table.size)
    query = table.select(table.source, *columns).join(Series).where(Series.study == study)
    rows = database.rows(query.group_by(table.source))
    names = {
        row: f"{calling} ({address})" if calling else "an import"
        for row, calling, address in database.rows(
            Source.select(Source.id, Source.calling_aet, Source.address).where(
                Source.id.in_([row[0] for row in rows])
            )
        )
    }
    for source, first, last, count, size in rows:
        name = names.get(source, "unknown")
        noun = "instance" if count == 1 else "instances"
        if count > 1:
            yield Event(first, "instances", f"the first instance from {name} arrived")
        yield Event(last, "instances", f"{count} {noun} from {name} had arrived, {int(size)} bytes")


def _of_resources(database: Database, uid: str) -> Iterator[Event]:
    query = Change.select(Change.changed, Change.kind, Resource.fhir, Change.version).join(Resource)
    mine = (Resource.type == "ImagingStudy") & (Resource.name == uid)
    for at, kind, fhir, version in database.rows(
        query.where(mine).order_by(Change.id.desc()).limit(MAX_ROWS)
    ):
        yield Event(at, "publication", f"ImagingStudy {fhir.upper()} {kind}, version {version}")


def _kept_aside(database: Database, uid: str) -> Iterator[KeptAside]:
    """Yield the data sets kept aside that differ from what is indexed, of the study or against it."""
    table = Conflict
    columns = table.uid, table.study_uid, table.path, table.size, table.received
    query = table.select(*columns).join(Instance, JOIN.LEFT_OUTER, on=(Instance.uid == table.uid))
    query = query.join(Series, JOIN.LEFT_OUTER).join(Study, JOIN.LEFT_OUTER)
    differs = Instance.sha1.is_null() | (Instance.sha1 != table.sha1)
    query = query.where(differs & ((table.study_uid == uid) | (Study.uid == uid)))
    for conflicting, study, path, size, received in database.rows(query.order_by(table.id).limit(MAX_ROWS)):
        yield KeptAside(conflicting, study, path, size, received, study == uid)


def _outbox(database: Database, study: int) -> Iterator[DeadLetters]:
    table = OutboxRow
    query = table.select(table.peer, table.state, fn.COUNT(SQL("*")), fn.MAX(table.error))
    query = query.join(Instance, on=(Instance.uid == table.uid)).join(
        Series, on=(Instance.series == Series.id)
    )
    query = query.where(Series.study == study).group_by(table.peer, table.state)
    for row in database.rows(query.order_by(table.peer, table.state)):
        yield DeadLetters(*row)


def _subject(database: Database, study: int, uid: str) -> Subject:
    """Return the study as its resource has it, without its instances: it may have 100,000."""
    of_study = StudyVariant.select(StudyVariant.attributes, StudyVariant.instance_count)
    rows = database.rows(of_study.where(StudyVariant.study == study))
    attributes, disagreements = elect([Variant(*row) for row in rows], "study", uid)
    found = study_patient(database, study, uid)
    series = []
    for row, line in _series(database, study):
        variants = SeriesVariant.select(SeriesVariant.attributes, SeriesVariant.instance_count)
        own = [Variant(*one) for one in database.rows(variants.where(SeriesVariant.series == row))]
        elected, of_series = elect(own, "series", line.uid)
        series.append(replace(line, attributes=elected))
        disagreements += of_series
    series.sort(key=lambda one: (sort_number(one.attributes.get("SeriesNumber")), one.uid))
    patient = found.published.attributes if found else {}
    of_patient = found.disagreements if found else ()
    return Subject(patient, attributes, tuple(series), (*of_patient, *disagreements))


def _series(database: Database, study: int) -> Iterator[tuple[int, SeriesLine]]:
    first = Instance.select(fn.MIN(Instance.id)).where(Instance.series == Series.id)
    query = Series.select(Series.id, Series.uid, Series.instance_count, Instance.uid)
    query = query.join(Instance, JOIN.LEFT_OUTER, on=(Instance.id == first)).where(Series.study == study)
    for row, uid, count, instance in database.rows(query):
        yield row, SeriesLine(uid, count, {}, instance or "")
