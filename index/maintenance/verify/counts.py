"""The counts of a study's rows, counted again."""

from peewee import SQL, fn

from index.database.connection import Database
from index.database.tables import Instance, Series, SeriesVariant, Study, StudyVariant

_COUNT = fn.COUNT(SQL("*"))


def recount(database: Database, study: int) -> None:
    """Count a study's rows again and mark the study changed; inside a write transaction."""
    run = database.execute
    of_study = Series.select(Series.id).where(Series.study == study)
    for table, column, mine in (
        (StudyVariant, Instance.study_variant, StudyVariant.study == study),
        (SeriesVariant, Instance.series_variant, SeriesVariant.series.in_(of_study)),
        (Series, Instance.series, Series.study == study),
    ):
        counted = Instance.select(_COUNT).where(column == table.id)
        run(table.update(instance_count=counted).where(mine))
    empty = Series.select(Series.id).where((Series.study == study) & (Series.instance_count == 0))
    run(
        SeriesVariant.delete().where((SeriesVariant.instance_count == 0) & SeriesVariant.series.in_(of_study))
    )
    run(SeriesVariant.delete().where(SeriesVariant.series.in_(empty)))
    run(Series.delete().where((Series.study == study) & (Series.instance_count == 0)))
    run(
        Study.update(
            series_count=Series.select(_COUNT).where(Series.study == Study.id),
            instance_count=Instance.select(_COUNT).join(Series).where(Series.study == Study.id),
            revision=Study.revision + 1,
        ).where(Study.id == study)
    )
    tombstone = Study.select(Study.id).where((Study.withdrawn == 1) & (Study.instance_count == 0))
    run(
        StudyVariant.delete().where(
            (StudyVariant.study == study)
            & (StudyVariant.instance_count == 0)
            & StudyVariant.study.not_in(tombstone)
        )
    )
