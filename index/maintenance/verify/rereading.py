"""Rows of instances made again from their objects: wrong rows, and rows of another attribute table."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from peewee import JOIN

from index.database.attribute_tables import count_outdated, note_all_current, outdated, rows_within
from index.database.instance_rows import InstanceRows, StoredObject, patient_key, study_digest
from index.database.tables import Instance, Series, SeriesVariant, Source, Study, StudyVariant, canonical
from index.dicom.file import read_object
from index.dicom.part10 import NotPart10
from index.errors import IndexFault
from index.maintenance.verify.context import PAGE, VerifyContext
from index.maintenance.verify.counts import recount
from index.maintenance.verify.findings import Finding, Kind
from index.records import Header, Origin

# The columns of an instance and of the rows that it refers to, in the order of `header_values`.
HEADER_COLUMNS = (
    Instance.uid,
    Instance.sop_class_uid,
    Study.uid,
    Series.uid,
    StudyVariant.digest,
    StudyVariant.attributes,
    SeriesVariant.attributes,
    Instance.attributes,
)
# How many of them do not depend on the attribute table.
UIDS = 4


def header_values(header: Header) -> tuple[str, ...]:
    """Return the values that the row of an instance with this header has in HEADER_COLUMNS."""
    return (
        header.sop_instance_uid,
        header.sop_class_uid,
        header.study_uid,
        header.series_uid,
        study_digest(patient_key(header), canonical(header.patient), canonical(header.study)),
        canonical(header.study),
        canonical(header.series),
        canonical(header.instance),
    )


def row_values(values: Iterable[Any]) -> tuple[str, ...]:
    """Return the values of HEADER_COLUMNS in the form of `header_values`."""
    return tuple(value if isinstance(value, str) else canonical(value) for value in values)


def check_attribute_table(context: VerifyContext, publish: Callable[[], object]) -> Iterator[Finding]:
    """Find out whether instances were read with another attribute table; to repair that, read them again.

    `publish` publishes what that changes, where no daemon does.
    """
    count = count_outdated(context.database)
    if not count:
        return
    if context.repair:
        _reread_outdated(context)
        if not context.served:
            publish()
    advice = ": run `imagingstudyd reindex` or `imagingstudyd verify --repair`"
    detail = f"{count} instances were read with another attribute table{'' if context.repair else advice}"
    yield Finding(Kind.ATTRIBUTES_OUTDATED, "index", context.database.name, detail, context.repair)


def _reread_outdated(context: VerifyContext) -> None:
    """Make outdated rows again. A row whose object cannot be read stays; `check_objects` reports it."""
    last, query = 0, Instance.select(Instance.id).where(rows_within(outdated(context.database)))
    while rows := context.database.rows(query.where(Instance.id > last).order_by(Instance.id).limit(PAGE)):
        last = rows[-1][0]
        reread(context, [row for (row,) in rows])
    with context.database.writing():
        note_all_current(context.database)


def reread(context: VerifyContext, rows: Sequence[int]) -> set[int]:
    """Make rows, and the rows that they refer to, again from their objects; return those that were made."""
    read = _read_objects(context, rows)
    database, writer, studies = context.database, InstanceRows(context.database), set[int]()
    done = set[int]()
    with database.writing():
        for row, stored, study in read:
            same = (Instance.id == row) & (Instance.path == stored.path) & (Instance.sha1 == stored.sha1)
            uid = stored.header.sop_instance_uid
            known = writer.find([uid]).get(uid)
            if (known and known.id != row) or not database.execute(Instance.delete().where(same)):
                continue
            studies.update(writer.add([stored]))
            if study is not None:
                studies.add(study)
            # The order of arrival is that of the ids.
            made = Instance.uid == uid
            database.execute(Instance.update({Instance.id: row}).where(made))
            done.add(row)
        for changed in studies:
            recount(database, changed)
    return done


def _read_objects(context: VerifyContext, rows: Sequence[int]) -> list[tuple[int, StoredObject, int | None]]:
    """Return each row, its object and its study's row; without those whose object cannot be read."""
    read = []
    query = Instance.select(
        Instance.id,
        Instance.path,
        Instance.size,
        Instance.sha1,
        Instance.received,
        Source.calling_aet,
        Source.called_aet,
        Source.address,
        Series.study,
    )
    query = query.join(Source, JOIN.LEFT_OUTER).join_from(Instance, Series, JOIN.LEFT_OUTER)
    found = context.database.rows(query.where(Instance.id.in_(rows)).order_by(Instance.id))
    for row, path, size, sha1, received, calling, called, address, study in found:
        if not context.is_mine(path):
            continue
        try:
            with context.objects.open(path) as file:
                header, meta = read_object(file)
        except (NotPart10, IndexFault, OSError):
            continue
        origin = Origin(calling or "", called or "", address or "")
        stored = StoredObject(header, origin, meta.transfer_syntax, path, size, sha1, received)
        read.append((row, stored, study))
    return read
