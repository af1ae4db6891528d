"""What an audit message says of a study: its patient, and how many instances of each SOP Class."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peewee import SQL, fn

from index.database.connection import Database
from index.database.tables import Instance, Series, Study, StudyVariant


@dataclass(frozen=True, slots=True)
class StudyFacts:
    """PatientID and Accession Number as most instances have them; `classes`: instances by SOP Class UID."""

    patient_id: str = ""
    accession: str = ""
    classes: Mapping[str, int] = field(default_factory=dict)


def study_facts(database: Database, uid: str) -> StudyFacts:
    """Return what is known of a study, series or instance; nothing where there is none. Raises NotKept."""
    of_study = Series.select(Series.study).where(Series.uid == uid)
    of_instance = Series.select(Series.study).join(Instance).where(Instance.uid == uid)
    which = (Study.uid == uid) | Study.id.in_(of_study) | Study.id.in_(of_instance)
    columns = Study.id, StudyVariant.patient_attributes, StudyVariant.attributes
    query = StudyVariant.select(*columns).join(Study).where(which)
    found = database.rows(query.order_by(StudyVariant.instance_count.desc()).limit(1))
    if not found:
        return StudyFacts()
    ((study, patient, attributes),) = found
    counts = Instance.select(Instance.sop_class_uid, fn.COUNT(SQL("*"))).join(Series)
    within = (Series.study == study) & ((Series.uid == uid) | (Instance.uid == uid) | (Study.uid == uid))
    rows = database.rows(counts.join(Study).where(within).group_by(Instance.sop_class_uid))
    return StudyFacts(_text(patient, "PatientID"), _text(attributes, "AccessionNumber"), dict(rows))


def _text(attributes: Mapping[str, Any], keyword: str) -> str:
    value = attributes.get(keyword)
    return value if isinstance(value, str) else ""
