"""Rows: that each refers to existing rows, and that all counts are right."""

from collections.abc import Iterator
from typing import Any

from peewee import JOIN, SQL, fn

from index.database.tables import Instance, Series, SeriesVariant, Source, Study, StudyVariant
from index.maintenance.verify.context import PAGE, VerifyContext
from index.maintenance.verify.counts import recount
from index.maintenance.verify.findings import Finding, Kind
from index.maintenance.verify.rereading import reread

_COUNT = fn.COUNT(SQL("*"))


def check_database(context: VerifyContext) -> Iterator[Finding]:
    """Have SQLite check its pages and indexes; PostgreSQL has its own tools for that."""
    if not context.database.is_sqlite:
        return
    with context.database.connection():
        result = [row[0] for row in context.database.peewee.execute_sql("PRAGMA quick_check").fetchall()]
    if result != ["ok"]:
        detail = f"{'; '.join(result)}: stop the daemon and run `imagingstudyd reindex`"
        yield Finding(Kind.DATABASE_DAMAGED, "index", str(context.database.peewee.database), detail)


def check_references(context: VerifyContext) -> Iterator[Finding]:
    """Find instances whose series, variants or source are missing; repair them from their objects."""
    query = Instance.select(Instance.id, Instance.uid, Instance.path)
    absent: Any = SQL("1 = 0")
    for table, column in (
        (Series, Instance.series),
        (StudyVariant, Instance.study_variant),
        (SeriesVariant, Instance.series_variant),
        (Source, Instance.source),
    ):
        query = query.join_from(Instance, table, JOIN.LEFT_OUTER, on=(column == table.id))
        absent = absent | table.id.is_null()
    last = 0
    query = query.where(absent).order_by(Instance.id).limit(PAGE)
    while rows := context.database.rows(query.where(Instance.id > last)):
        last = rows[-1][0]
        mended = reread(context, [row for row, *_ in rows]) if context.repair else set()
        for row, uid, path in rows:
            yield Finding(Kind.ROW_BROKEN, uid, path, "refers to missing rows", row in mended)


def check_counts(context: VerifyContext) -> Iterator[Finding]:
    """Compare every count with the rows that it counts, in one snapshot; to repair that, count again."""
    wrong: set[int] = set()
    found = []
    with context.database.reading():
        for kind, query in _counts():
            for study, uid, noted, counted in context.database.rows(query):
                wrong.add(study)
                found.append(Finding(kind, uid, "", f"is {noted}, counted {counted}", context.repair))
    for study in wrong if context.repair else ():
        with context.database.writing():
            recount(context.database, study)
    yield from found


def _counts() -> Iterator[tuple[Kind, Any]]:
    """Yield queries for study row, UID, the count and the number of rows, where these differ."""
    yield from _variant_counts()
    yield (
        Kind.SERIES_COUNT,
        Series.select(Series.study, Series.uid, Series.instance_count, fn.COUNT(Instance.id))
        .join(Instance, JOIN.LEFT_OUTER, on=(Instance.series == Series.id))
        .group_by(Series.id, Series.study, Series.uid, Series.instance_count)
        .having((Series.instance_count != fn.COUNT(Instance.id)) | (fn.COUNT(Instance.id) == 0)),
    )
    series = Series.select(Series.study, _COUNT.alias("series")).group_by(Series.study).alias("counted")
    instances = (
        Instance.select(Series.study, _COUNT.alias("instances"))
        .join(Series)
        .group_by(Series.study)
        .alias("counted")
    )
    for count, counted in (
        (Study.series_count, (series, series.c.study_id, series.c.series)),
        (Study.instance_count, (instances, instances.c.study_id, instances.c.instances)),
    ):
        table, study, number = counted
        actual = fn.COALESCE(number, 0)
        yield (
            Kind.STUDY_COUNT,
            Study.select(Study.id, Study.uid, count, actual)
            .join(table, JOIN.LEFT_OUTER, on=(study == Study.id))
            .where(count != actual),
        )


def _variant_counts() -> Iterator[tuple[Kind, Any]]:
    # A withdrawn study may have variants without instances.
    is_wrong = (StudyVariant.instance_count != fn.COUNT(Instance.id)) | (
        (fn.COUNT(Instance.id) == 0) & (fn.MAX(Study.withdrawn) == 0)
    )
    yield (
        Kind.VARIANT_COUNT,
        StudyVariant.select(Study.id, Study.uid, StudyVariant.instance_count, fn.COUNT(Instance.id))
        .join(Study)
        .join_from(StudyVariant, Instance, JOIN.LEFT_OUTER, on=(Instance.study_variant == StudyVariant.id))
        .group_by(StudyVariant.id, Study.id, Study.uid, StudyVariant.instance_count)
        .having(is_wrong),
    )
    yield (
        Kind.VARIANT_COUNT,
        SeriesVariant.select(Series.study, Series.uid, SeriesVariant.instance_count, fn.COUNT(Instance.id))
        .join(Series)
        .join_from(SeriesVariant, Instance, JOIN.LEFT_OUTER, on=(Instance.series_variant == SeriesVariant.id))
        .group_by(SeriesVariant.id, Series.study, Series.uid, SeriesVariant.instance_count)
        .having((SeriesVariant.instance_count != fn.COUNT(Instance.id)) | (fn.COUNT(Instance.id) == 0)),
    )
