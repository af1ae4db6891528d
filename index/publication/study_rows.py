"""Queries over the rows: a study as its resource needs it, and the studies that steps tell of."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
import peewee

from index.database.connection import Database
from index.database.tables import Instance as InstanceRow
from index.database.tables import Series as SeriesRow
from index.database.tables import SeriesVariant, StudyVariant, canonical
from index.database.tables import Study as StudyRow
from index.dicom.value_rules import texts
from index.election.patients import study_patient
from index.election.values import Variant, body_variants, elect, series_before_study, stored
from index.errors import NotFound
from index.orders.matching.match_store import orders_of_study
from index.procedures.completeness import announced, steps_of
from index.records import Attributes, Disagreed, Instance, Series, Study

# Of a missing number: after every number that IS can hold (PS3.5 Table 6.2-1).
_LAST = 1 << 40
_ACCESSION = ("AccessionNumber", "IssuerOfAccessionNumberSequence")


@dataclass(frozen=True, slots=True)
class Summary:
    """One line of `studies`."""

    uid: str
    patient_id: str | None
    accession: str | None
    modalities: tuple[str, ...]
    series: int
    instances: int
    started: str | None

    def row(self) -> dict[str, Any]:
        """Return it as a mapping, in the order of its keys; faster than asdict."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def sort_number(text: Any) -> int:
    """Return the value of an IS for sorting; missing and malformed ones come last."""
    try:
        return int(text)
    except (TypeError, ValueError):
        return _LAST


def load_study(database: Database, uid: str) -> Study:
    """Return a study as it is now, with elected attributes, in order. Raises NotFound."""
    with database.reading():
        query = StudyRow.select(StudyRow.id, StudyRow.instance_count).where(StudyRow.uid == uid)
        rows = database.rows(query)
        orders = orders_of_study(database, uid, has_instances=bool(rows and rows[0][1]))
        withdrawn = bool(rows and not rows[0][1] and _is_tombstone(database, uid))
        if not rows or not (rows[0][1] or orders or withdrawn):
            raise NotFound(f"study {uid} is not in the index")
        study = _load_study(database, rows[0][0], uid)
        return replace(study, orders=orders, steps=steps_of(database, uid), withdrawn=withdrawn)


def _is_tombstone(database: Database, uid: str) -> bool:
    """Return whether this is a withdrawn study whose variants are kept for its resource."""
    query = StudyVariant.select(StudyVariant.id).join(StudyRow)
    return bool(database.rows(query.where((StudyRow.uid == uid) & (StudyRow.withdrawn == 1)).limit(1)))


def _load_study(database: Database, study: int, uid: str) -> Study:
    rows = database.rows(
        StudyVariant.select(StudyVariant.attributes, StudyVariant.instance_count).where(
            StudyVariant.study == study
        )
    )
    variants = [Variant(*variant) for variant in rows]
    attributes, disagreements = elect(variants, "study", uid)
    found = study_patient(database, study, uid)
    if found is None:
        raise NotFound(f"study {uid} has no patient in the index")
    series = []
    for each, of_series, series_variants in _series(database, study):
        series.append(each)
        disagreements += of_series
        variants += series_variants
    series.sort(key=lambda each: (sort_number(each.attributes.get("SeriesNumber")), each.uid))
    disagreements += series_before_study(uid, attributes, series)
    return Study(
        uid,
        found.published,
        attributes,
        series,
        (*found.disagreements, *disagreements),
        accessions=_accessions(variants),
    )


def _accessions(variants: Sequence[Variant]) -> list[Attributes]:
    """Return the Accession Numbers of a study's instances and of their requests, with their issuers."""
    counts: Counter[str] = Counter()
    for variant in stored(variants):
        for source in (variant.attributes, *variant.attributes.get("RequestAttributesSequence", ())):
            if source.get("AccessionNumber"):
                accession = canonical({key: source[key] for key in _ACCESSION if key in source})
                counts[accession] += variant.instances
    return [orjson.loads(text) for text in sorted(counts, key=lambda text: (-counts[text], text))]


def _series(database: Database, study: int) -> Iterable[tuple[Series, list[Disagreed], list[Variant]]]:
    for row, uid in database.rows(
        SeriesRow.select(SeriesRow.id, SeriesRow.uid).where(SeriesRow.study == study)
    ):
        rows = database.rows(
            SeriesVariant.select(SeriesVariant.attributes, SeriesVariant.instance_count).where(
                SeriesVariant.series == row
            )
        )
        variants = [Variant(*variant) for variant in rows]
        attributes, disagreements = elect(variants, "series", uid)
        yield (
            Series(uid, attributes, _instances(database, row), body_variants(variants)),
            disagreements,
            variants,
        )


def _instances(database: Database, series: int) -> list[Instance]:
    """Return a series' instances in order. A study may have 100,000, so this does not use the ORM."""
    rows = database.prepared(_select_instances).run(series=series).fetchall()
    decode = orjson.loads
    instances = [
        Instance(uid, sop_class, size, sha1, decode(attributes))
        for uid, sop_class, size, sha1, attributes in rows
    ]
    instances.sort(key=lambda each: (sort_number(each.attributes.get("InstanceNumber")), each.uid))
    return instances


def _select_instances(p: Callable[[str], peewee.SQL]) -> peewee.Query:
    row = InstanceRow
    return row.select(row.uid, row.sop_class_uid, row.size, row.sha1, row.attributes).where(
        row.series == p("series")
    )


def announced_summaries(database: Database) -> list[tuple[Summary, str]]:
    """Return line and patient's name of each study of performed steps without instances, by UID."""
    return [
        (
            _announced(uid, steps),
            next((str(step["PatientName"]) for step in steps if step.get("PatientName")), ""),
        )
        for uid, steps in sorted(announced(database).items())
    ]


def _announced(uid: str, steps: list[Attributes]) -> Summary:
    items = [item for step in steps for item in step.get("ScheduledStepAttributesSequence") or ()]
    accessions = (item.get("AccessionNumber") for item in items if item.get("StudyInstanceUID") == uid)
    dates = [str(date) for step in steps if (date := step.get("PerformedProcedureStepStartDate"))]
    return Summary(
        uid,
        next((str(step["PatientID"]) for step in steps if step.get("PatientID")), None),
        next((str(accession) for accession in accessions if accession), None),
        tuple(sorted({text for step in steps for text in texts(step.get("Modality"))})),
        0,
        0,
        study_date({"StudyDate": min(dates, default="")}),
    )


def study_date(study: Attributes) -> str | None:
    """Return StudyDate as `studies` prints it."""
    date = study.get("StudyDate")
    return f"{date[:4]}-{date[4:6]}-{date[6:]}" if date else None
